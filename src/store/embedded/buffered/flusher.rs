//! The flusher: brings all buffered sets to disk together.
//!
//! Invariant: a flush is the state of all sets at one moment, in one transaction; so no row is on
//! disk without another that was written before it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Notify;

use super::set::{BufferedSet, FlushBatch, Unflushed};
use crate::clock::SharedClock;
use crate::store::embedded::sqlite::{
    CheckedFile, Missing, OpenError, SyncMode, WalCheckpoints, failed_to, is_failed_sync,
};
use crate::store::{ErrorKind, StoreError, StoreResult};

const WHAT: &str = "buffered database";

/// After a flush failed, the next one waits this long, and twice as long after each further failure.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// So many frames in SQLite's log are written into the file.
const LOG_FRAMES: i64 = 1_000;

/// Wakes the flusher before its time.
pub(in crate::store::embedded) struct FlushSignal {
    threshold: usize,
    wake: Notify,
}

impl FlushSignal {
    /// Makes a signal that a set gives when it holds `threshold` marks.
    pub(in crate::store::embedded) fn new(threshold: usize) -> Self {
        Self { threshold, wake: Notify::new() }
    }

    /// Notes how many marks a set holds.
    pub(in crate::store::embedded) fn note(&self, marks: usize) {
        if marks >= self.threshold {
            self.wake.notify_one();
        }
    }
}

/// The file of the buffered data.
enum File {
    /// There is none: everything stays in memory.
    Memory,
    Open(Connection, WalCheckpoints),
    Closed,
}

/// How the buffered data stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::embedded) struct BufferedStatus {
    /// Rows that are not on disk.
    pub(in crate::store::embedded) unflushed: u64,
    /// How long the oldest of them has been waiting.
    pub(in crate::store::embedded) oldest_unflushed: Duration,
    /// Flushes that failed since the start.
    pub(in crate::store::embedded) flush_failures: u64,
}

/// How often flushes have failed since the last one that succeeded, and when the next one may begin.
#[derive(Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    /// Why the last one failed.
    why: Option<String>,
}

/// The flusher.
pub(in crate::store::embedded) struct Flusher {
    /// Locked for as long as a flush takes: one at a time.
    file: Mutex<File>,
    sets: Vec<Arc<dyn BufferedSet>>,
    signal: Arc<FlushSignal>,
    clock: SharedClock,
    failures: AtomicU64,
    backoff: Mutex<Backoff>,
}

impl Flusher {
    /// Looks at the file at `path`, which is to hold `sets`, without changing it.
    ///
    /// # Errors
    /// When the file can't be served.
    pub(in crate::store::embedded) fn check(
        path: &Path,
        sets: &[Arc<dyn BufferedSet>],
        missing: Missing,
    ) -> Result<CheckedFile, OpenError> {
        let parts = sets.iter().map(|set| set.schema()).collect();
        CheckedFile::look_at(path, WHAT, parts, missing)
    }

    /// Opens the file, makes it where it is missing, and fills the sets from it; without a file,
    /// everything stays in memory. A set may refer to those that are listed before it.
    ///
    /// Blocks while it reads.
    ///
    /// # Errors
    /// When the file can't be served; it is left as it was.
    pub(in crate::store::embedded) fn open(
        file: Option<&CheckedFile>,
        sync: SyncMode,
        sets: Vec<Arc<dyn BufferedSet>>,
        signal: Arc<FlushSignal>,
        clock: SharedClock,
    ) -> Result<Self, OpenError> {
        let file = match file {
            None => File::Memory,
            Some(file) => {
                let conn = file.open(sync)?;
                for set in &sets {
                    set.load(&conn).map_err(|error| file.unreadable(error))?;
                }
                File::Open(conn, WalCheckpoints::of(file)?)
            }
        };
        Ok(Self {
            file: Mutex::new(file),
            sets,
            signal,
            clock,
            failures: AtomicU64::new(0),
            backoff: Mutex::default(),
        })
    }

    /// Commits what opening the file has changed, and brings to disk what an earlier process left in the log. To
    /// be called before the first flush.
    ///
    /// # Errors
    /// When the disk fails.
    pub(in crate::store::embedded) fn make_whole(&self) -> StoreResult<()> {
        match &*self.file.lock() {
            File::Open(conn, wal) => wal.make_whole(conn),
            File::Memory | File::Closed => Ok(()),
        }
    }

    /// Waits until a set holds as many marks as make a flush worthwhile, or until a failed flush
    /// should be tried again; never ends before the backoff after a failed flush is over.
    pub(in crate::store::embedded) async fn wanted(&self) {
        self.signal.wake.notified().await;
        let until = self.backoff.lock().until;
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Brings every marked row to disk; returns how many. Blocks: not for async threads.
    ///
    /// # Errors
    /// When it fails; everything is marked again then.
    pub(in crate::store::embedded) fn flush(&self) -> StoreResult<u64> {
        // The file first, for the whole flush, and the sets only while they are drained: writes of the
        // resources go on while the disk works, and no second flush drains newer marks before the
        // older ones are written or merged back.
        let mut file = self.file.lock();
        let batches = match &*file {
            File::Closed => {
                return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
            }
            File::Memory | File::Open(..) => self.drain(),
        };
        let rows: usize = batches.iter().map(|batch| batch.len()).sum();
        let outcome = match &mut *file {
            File::Open(conn, wal) if rows > 0 => write(conn, wal, &batches).map(|()| rows as u64),
            _ => Ok(0),
        };
        for batch in batches {
            batch.finish(outcome.is_err());
        }
        self.note(outcome)
    }

    /// Drains all sets at one moment: none of them can change until the last is drained.
    fn drain(&self) -> Vec<Box<dyn FlushBatch>> {
        let mut locked: Vec<_> = self.sets.iter().map(|set| set.lock()).collect();
        locked.iter_mut().map(|set| set.drain()).collect()
    }

    /// Notes how a flush ended. The caller logs a failure, unless the flush before failed for the same cause.
    fn note(&self, outcome: StoreResult<u64>) -> StoreResult<u64> {
        let mut backoff = self.backoff.lock();
        let error = match outcome {
            Ok(rows) => {
                *backoff = Backoff::default();
                return Ok(rows);
            }
            Err(error) => error,
        };
        let before = backoff.why.replace(error.with_causes());
        let is_logged = before == backoff.why;
        self.failures.fetch_add(1, Ordering::Relaxed);
        let factor = 2_u32.saturating_pow(backoff.failures);
        backoff.failures += 1;
        backoff.until = Some(Instant::now() + (FIRST_BACKOFF * factor).min(MAX_BACKOFF));
        drop(backoff);
        // What failed is tried again, even if nothing is written meanwhile.
        self.signal.wake.notify_one();
        Err(if is_logged { error.logged() } else { error })
    }

    /// Returns whether the last flush succeeded, and if not why it failed.
    ///
    /// # Errors
    /// The reason, in words.
    pub(in crate::store::embedded) fn ready(&self) -> Result<(), String> {
        match &self.backoff.lock().why {
            Some(why) => Err(format!("flushing the buffered data fails: {why}")),
            None => Ok(()),
        }
    }

    /// Reports on the buffered data.
    pub(in crate::store::embedded) fn status(&self) -> BufferedStatus {
        let now = self.clock.steady();
        let unflushed: Vec<Unflushed> = self.sets.iter().map(|set| set.unflushed()).collect();
        let oldest = unflushed.iter().filter_map(|of| of.oldest).min();
        BufferedStatus {
            unflushed: unflushed.iter().map(|of| of.rows as u64).sum(),
            oldest_unflushed: oldest.map_or(Duration::ZERO, |oldest| now.saturating_since(oldest)),
            flush_failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Flushes for the last time and closes the file. Blocks: not for async threads.
    ///
    /// # Errors
    /// When the flush fails; the file is still open then, and this may be called again.
    pub(in crate::store::embedded) fn close(&self) -> StoreResult<()> {
        if matches!(*self.file.lock(), File::Closed) {
            return Ok(());
        }
        self.flush()?;
        match std::mem::replace(&mut *self.file.lock(), File::Closed) {
            File::Memory | File::Closed => Ok(()),
            File::Open(conn, wal) => wal.close(conn),
        }
    }
}

/// Writes all batches in one transaction: parents before their children, and deletes children
/// before their parents.
///
/// In `full`, the transaction before is on disk when one begins. Where a sync fails, the log is copied into
/// the file and begins anew, so that nothing is written behind pages that are perhaps not on disk.
fn write(
    conn: &mut Connection,
    wal: &mut WalCheckpoints,
    batches: &[Box<dyn FlushBatch>],
) -> StoreResult<()> {
    wal.check_present()?;
    let outcome = conn.transaction().and_then(|txn| {
        batches.iter().try_for_each(|batch| batch.upsert(&txn))?;
        batches.iter().rev().try_for_each(|batch| batch.delete(&txn))?;
        txn.commit()
    });
    match outcome {
        Ok(()) => wal.run_above(conn, LOG_FRAMES),
        Err(error) => {
            let sync_failed = is_failed_sync(&error);
            let error = failed_to("flush the buffered data")(error);
            if sync_failed {
                // Its own failure says nothing more: the next flush tries again.
                drop(wal.run(conn));
            }
            Err(error)
        }
    }
}
