//! What readers and the writer of the durable data share.
//!
//! Invariant: `tables` holds committed rows only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::changes::Changes;
#[cfg(test)]
use super::file::DurableFile;
use super::queue::Queue;
use super::tables::Tables;
use crate::clock::{Moment, SharedClock};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Takes part in the moment at which a committed group becomes visible.
pub(in crate::store::embedded) trait PublishHook: Send + Sync {
    /// Waits until `changes`, which are on disk already, may become visible in `tables`. The guard
    /// is dropped when they are.
    ///
    /// Everything durable waits meanwhile. Only the writer calls this, and it holds no lock then.
    fn before_publish<'a>(
        &'a self,
        changes: &Changes,
        tables: &RwLock<Tables>,
    ) -> Option<Box<dyn PublishGuard + 'a>>;
}

/// Lives while a group becomes visible.
pub(in crate::store::embedded) trait PublishGuard {}

/// The last attempt to commit, which failed.
pub(super) struct CommitFailure {
    pub(super) why: String,
    pub(super) at: Instant,
}

/// What is shared.
pub(super) struct Shared {
    pub(super) clock: SharedClock,
    pub(super) tables: RwLock<Tables>,
    pub(super) queue: Queue,
    /// The writer is gone.
    pub(super) closed: watch::Sender<bool>,
    pub(super) close_error: Mutex<Option<StoreError>>,
    /// `None` when the last commit succeeded.
    pub(super) commit_failure: Mutex<Option<CommitFailure>>,
    /// Why the last compaction or WAL checkpoint failed.
    pub(super) upkeep_failure: Mutex<Option<String>>,
    pub(super) commits: AtomicU64,
    pub(super) commit_failures: AtomicU64,
    pub(super) committed_writes: AtomicU64,
    hook: Arc<dyn PublishHook>,
    /// Called with the file before the next commit, so that a test can make it fail.
    #[cfg(test)]
    pub(super) before_commit: Mutex<Option<TestHook>>,
}

#[cfg(test)]
pub(super) type TestHook = Box<dyn FnOnce(&mut DurableFile) + Send>;

impl Shared {
    pub(super) fn new(clock: SharedClock, tables: Tables, hook: Arc<dyn PublishHook>) -> Self {
        Self {
            clock,
            tables: RwLock::new(tables),
            queue: Queue::default(),
            closed: watch::Sender::new(false),
            close_error: Mutex::default(),
            commit_failure: Mutex::default(),
            upkeep_failure: Mutex::default(),
            commits: AtomicU64::new(0),
            commit_failures: AtomicU64::new(0),
            committed_writes: AtomicU64::new(0),
            hook,
            #[cfg(test)]
            before_commit: Mutex::default(),
        }
    }

    /// Returns the committed rows and the time, for a reader that does not await.
    pub(super) fn read(&self) -> StoreResult<(RwLockReadGuard<'_, Tables>, Moment)> {
        if *self.closed.borrow() {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        let now = self.clock.read();
        Ok((self.tables.read(), now))
    }

    /// Makes a committed group visible, which is entry number `seq` of the journal.
    pub(super) fn publish(&self, changes: Changes, seq: i64, writes: u64) {
        // The hook may wait for others that read the tables, so the write lock comes after it.
        let guard = self.hook.before_publish(&changes, &self.tables);
        self.tables.write().publish(changes, seq);
        drop(guard);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.committed_writes.fetch_add(writes, Ordering::Relaxed);
    }
}
