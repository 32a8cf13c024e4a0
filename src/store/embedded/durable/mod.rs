//! The durable data of the embedded backend: locks, leases, checkpoints and generations.
//!
//! All of it is in memory, in typed tables; every change goes through one writer thread
//! that commits groups of commands to a journal in `durable.db` before it answers. Invariant:
//! what a reader sees is on the disk, and stays.
//!
//! Not a database: there are no transactions over several calls, and no queries but by key.

mod compaction;
pub(super) mod counters;
mod file;
mod journal;
mod latches;
pub(super) mod table;
pub(super) mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::{oneshot, watch};

use self::counters::Counter;
use self::file::DurableFile;
use self::latches::FenceLatches;
use self::transaction::{Changes, Tables, Txn};
use self::writer::{Job, Queue, Writer};

use super::sqlite::{OpenError, SyncMode};
use crate::clock::SharedClock;
use crate::model::leases::Fence;
use crate::model::time::Timestamp;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How many rows a table loses in one command of the garbage collection.
const COLLECT_ROWS: usize = 1_000;

/// What readers and the writer share.
struct Shared {
    clock: SharedClock,
    tables: RwLock<Tables>,
    gates: FenceLatches,
    queue: Queue,
    closed: watch::Sender<bool>,
    close_error: Mutex<Option<StoreError>>,
    compaction_failure: Mutex<Option<String>>,
    commits: AtomicU64,
    committed_writes: AtomicU64,
    /// Done to the disk before the next commit: how a test makes it fail.
    #[cfg(test)]
    before_commit: Mutex<Option<TestHook>>,
}

#[cfg(test)]
type TestHook = Box<dyn FnOnce(&mut DurableFile) + Send>;

impl Shared {
    /// Makes a committed group visible.
    fn publish(&self, changes: Changes, writes: u64) {
        let shut = self.gates.shut_for(&changes.leases, &self.tables);
        self.tables.write().promote(changes);
        drop(shut);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.committed_writes.fetch_add(writes, Ordering::Relaxed);
    }
}

/// What was read from the disk, before it is served: the clock can be started in between.
pub(super) struct Loaded {
    tables: Tables,
    disk: Option<DurableFile>,
}

impl Loaded {
    /// Returns the latest time at which an earlier run committed something: what
    /// [`crate::clock::SystemClock::start`] wants.
    pub(super) fn clock_floor(&self) -> Timestamp {
        let nanos = self.tables.counters.get(&Counter::Clock, Timestamp::MIN);
        nanos.copied().map_or(Timestamp::MIN, Timestamp::from_nanos)
    }

    /// Starts to serve.
    ///
    /// # Errors
    /// When the writer's thread can't be started.
    pub(super) fn serve(mut self, clock: SharedClock) -> Result<Arc<DurableStore>, OpenError> {
        self.tables.counters.start_life(clock.now());
        let shared = Arc::new(Shared {
            clock,
            tables: RwLock::new(self.tables),
            gates: FenceLatches::default(),
            queue: Queue::default(),
            closed: watch::Sender::new(false),
            close_error: Mutex::default(),
            compaction_failure: Mutex::default(),
            commits: AtomicU64::new(0),
            committed_writes: AtomicU64::new(0),
            #[cfg(test)]
            before_commit: Mutex::default(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk: self.disk,
            last_compaction: Instant::now(),
            compaction_retry_at: None,
        };
        let thread = std::thread::Builder::new()
            .name("durable-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Failed {
                path: "the thread durable-writer".into(),
                why: error.to_string(),
            })?;
        Ok(Arc::new(DurableStore { shared, thread: Some(thread) }))
    }
}

/// How much is held, live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DurableStatus {
    /// Locks.
    pub(super) locks: u64,
    /// Leases.
    pub(super) leases: u64,
    /// Checkpoints.
    pub(super) checkpoints: u64,
    /// Generations above 0.
    pub(super) generations: u64,
    /// Groups of writes that were committed since the start.
    pub(super) commits: u64,
    /// The writes in those groups.
    pub(super) committed_writes: u64,
}

/// The durable data. Dropping it ends the writer as [`Self::close`] does, and waits for it.
pub(super) struct DurableStore {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DurableStore {
    /// Reads the file at `path`, made where it is missing; with no path, everything stays in
    /// memory. Checkpoints expire `checkpoint_retention` after they were written.
    ///
    /// Blocks while it reads.
    ///
    /// # Errors
    /// When the file can't be served; it is left as it was.
    pub(super) fn load(
        path: Option<&Path>,
        sync: SyncMode,
        checkpoint_retention: Duration,
    ) -> Result<Loaded, OpenError> {
        let mut tables = Tables::empty(checkpoint_retention);
        let disk = path.map(|path| DurableFile::open(path, sync, &mut tables)).transpose()?;
        Ok(Loaded { tables, disk })
    }

    /// Runs `work` as one atomic step, and gives its outcome when all that it did is on the disk.
    pub(super) async fn write<R, F>(&self, work: F) -> StoreResult<R>
    where
        F: FnOnce(&mut Txn<'_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Box::new(Job { work: Some(work), result: None, reply }))?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::Unavailable, "the writer ended before it answered"))
        })
    }

    /// Returns the committed state and the time, for a reader that does not await.
    pub(super) fn read(&self) -> StoreResult<(RwLockReadGuard<'_, Tables>, Timestamp)> {
        if *self.shared.closed.borrow() {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        let now = self.shared.clock.now();
        Ok((self.shared.tables.read(), now))
    }

    /// Runs `write` knowing whether `fence` holds, and keeps it so meanwhile: whoever takes over
    /// or releases that lease is answered only after `write` has returned.
    ///
    /// So `write` should be short. It must not call this method again.
    pub(super) fn with_fence<T>(&self, fence: &Fence, write: impl FnOnce(bool) -> T) -> T {
        let gate = self.shared.gates.pass(&fence.lease);
        let now = self.shared.clock.now();
        let holds =
            super::leases::holds(self.shared.tables.read().leases.get(&fence.lease, now), fence);
        let outcome = write(holds);
        drop(gate);
        outcome
    }

    /// Removes what has expired; gives how many rows.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn collect_garbage(&self) -> StoreResult<u64> {
        let mut collected = 0;
        loop {
            let n = self.write(|txn| txn.delete_expired(COLLECT_ROWS)).await?;
            if n == 0 {
                return Ok(collected);
            }
            collected += n as u64;
        }
    }

    /// Returns whether durable writes can be served, and if not why.
    ///
    /// # Errors
    /// The reason, in words.
    pub(super) fn ready(&self) -> Result<(), String> {
        self.shared.queue.is_open()?;
        match &*self.shared.compaction_failure.lock() {
            Some(why) => {
                Err(format!("compacting the journal of the durable database fails: {why}"))
            }
            None => Ok(()),
        }
    }

    /// Waits until the writer is gone although nobody closed the store; says why.
    pub(super) async fn lost(&self) -> String {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives in `self`.
        drop(closed.wait_for(|closed| *closed).await);
        match self.shared.queue.lost() {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Reports on the store.
    ///
    /// # Errors
    /// When it is closed.
    pub(super) fn status(&self) -> StoreResult<DurableStatus> {
        let (tables, now) = self.read()?;
        Ok(DurableStatus {
            locks: tables.locks.count(now),
            leases: tables.leases.count(now),
            checkpoints: tables.checkpoints.count(now),
            generations: tables.generations.count(now),
            commits: self.shared.commits.load(Ordering::Relaxed),
            committed_writes: self.shared.committed_writes.load(Ordering::Relaxed),
        })
    }

    /// Does what waits, compacts the journal, and closes the file. Calls afterwards fail as
    /// [`ErrorKind::Unavailable`].
    ///
    /// # Errors
    /// When the last steps fail; what was acknowledged is on the disk nevertheless.
    pub(super) async fn close(&self) -> StoreResult<()> {
        self.shared.queue.close();
        let mut closed = self.shared.closed.subscribe();
        // The sender lives in `self`.
        drop(closed.wait_for(|closed| *closed).await);
        match self.shared.close_error.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the durable database panicked");
        }
    }
}

impl Tables {
    fn empty(checkpoint_retention: Duration) -> Self {
        use super::checkpoints::Checkpoints;
        use super::generations::Generations;
        use super::leases::Leases;
        use super::locks::Locks;
        Self {
            counters: table::Table::new(counters::Counters),
            locks: table::Table::new(Locks),
            leases: table::Table::new(Leases),
            checkpoints: table::Table::new(Checkpoints { retention: checkpoint_retention }),
            generations: table::Table::new(Generations),
        }
    }
}

#[cfg(test)]
mod tests;
