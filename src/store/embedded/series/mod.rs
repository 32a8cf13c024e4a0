//! The series of the embedded backend: served from memory, followed by `buffered.db`.
//!
//! One mutex guards the table; it is held for a batch, a chunk of a delta, a page of a snapshot
//! with the scan that it takes, never across an await and never while the disk works. Async threads
//! do small work themselves when the mutex is free, and leave the rest to others. A fenced write
//! passes, around that mutex, the gate of its lease, so that a takeover can't become visible in its
//! middle.

mod expiry;
mod labels;
mod log;
mod metadata;
mod names;
mod persist;
mod read;
mod record;
mod table;
mod tombstones;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use self::persist::MIGRATIONS;
use self::table::{SeriesTable, TableLimits};
use super::durable::DurableStore;
use super::sqlite;
use super::{EmbeddedSettings, OpenError, off_thread};
use crate::clock::SharedClock;
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::{
    Delta, ErrorKind, Fenced, SeriesStore, Snapshot, StoreError, StoreResult, UpsertOutcome,
};

/// A batch of at most this many points is applied on the async thread that brings it: it takes
/// less time than the way to another thread and back.
const INLINE_POINTS: usize = 1000;

/// A slot's number must fit 32 bits, tombstones included.
const MOST_SERIES: usize = 1 << 31;

/// The series.
pub(super) struct EmbeddedSeries {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<SeriesTable>,
    /// `buffered.db`; `None` in memory only. One flush at a time.
    disk: Mutex<Option<Connection>>,
    state: Arc<DurableStore>,
    clock: SharedClock,
    epoch: u64,
    changes: watch::Sender<u64>,
    flush_wanted: Notify,
    flush_threshold: usize,
    flush_failures: AtomicU64,
    closed: AtomicBool,
}

/// How the series stand, for /metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SeriesStatus {
    pub(super) live: usize,
    pub(super) tombstones: usize,
    pub(super) unflushed: usize,
    pub(super) oldest_unflushed: Duration,
    pub(super) flush_failures: u64,
}

impl EmbeddedSeries {
    /// Opens `buffered.db` in `folder` (nothing when there is none) and reads all series.
    pub(super) fn open(
        folder: Option<&Path>,
        settings: &EmbeddedSettings,
        state: Arc<DurableStore>,
        clock: SharedClock,
    ) -> Result<Self, OpenError> {
        let mut table = SeriesTable::new(TableLimits {
            retention: settings.series_retention,
            max_series: settings.max_series.min(MOST_SERIES),
            max_tombstones: settings.max_tombstones.min(MOST_SERIES),
        });
        let disk = match folder.map(|folder| folder.join("buffered.db")) {
            None => None,
            Some(path) => {
                let disk =
                    sqlite::open(Some(&path), "buffered database", MIGRATIONS, settings.sync)?;
                persist::load(&disk, &mut table).map_err(|error| load_error(path, error))?;
                Some(disk)
            }
        };
        Ok(Self {
            shared: Arc::new(Shared {
                changes: watch::Sender::new(table.log.head()),
                table: Mutex::new(table),
                disk: Mutex::new(disk),
                state,
                clock,
                epoch: new_epoch()?,
                flush_wanted: Notify::new(),
                flush_threshold: settings.flush_threshold,
                flush_failures: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Waits until as many writes wait for the disk as make a flush worth while.
    pub(super) async fn flush_wanted(&self) {
        self.shared.flush_wanted.notified().await;
    }

    /// Brings every marked series to disk; gives how many. Blocks: not for async threads.
    pub(super) fn flush(&self) -> StoreResult<u64> {
        self.shared.flush()
    }

    /// Flushes for the last time and closes the file. Blocks: not for async threads.
    pub(super) fn close(&self) -> StoreResult<()> {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.flush()?;
        match self.shared.disk.lock().take() {
            None => Ok(()),
            Some(disk) => disk.close().map_err(|(_, error)| sqlite::store_error(&error)),
        }
    }

    /// Does `work` here when it is `short` and the table is free, elsewhere otherwise: an async
    /// thread that waited for the table would keep all its other requests waiting, too.
    async fn small<T: Send + 'static>(
        &self,
        short: bool,
        work: impl FnOnce(&Shared) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        if short && !self.shared.table.is_locked() {
            return work(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        off_thread(move || work(&shared)).await
    }

    /// Reports how the series stand.
    pub(super) fn status(&self) -> SeriesStatus {
        let now = self.shared.clock.now();
        let table = self.shared.table.lock();
        SeriesStatus {
            live: table.live,
            tombstones: table.tombstones.len(),
            unflushed: table.dirty.unflushed(),
            oldest_unflushed: table.dirty.age(now),
            flush_failures: self.shared.flush_failures.load(Ordering::Relaxed),
        }
    }
}

fn load_error(path: PathBuf, error: StoreError) -> OpenError {
    let why = error.detail;
    match error.kind {
        ErrorKind::Corrupt => OpenError::Damaged { what: "buffered database", path, why },
        _ => OpenError::Failed { path, why },
    }
}

/// Makes a number that no earlier life of any store has had: the log of changes is in memory
/// only, so each start of the server is a new life.
fn new_epoch() -> Result<u64, OpenError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Failed {
        path: "the source of random numbers".into(),
        why: error.to_string(),
    })?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Shared {
    /// Runs `change` on the table, in one step with the check of the fence, and wakes whoever
    /// waits for changes.
    fn write<T>(
        &self,
        fence: Option<&Fence>,
        change: impl FnOnce(&mut SeriesTable, Timestamp) -> T,
    ) -> StoreResult<Fenced<T>> {
        self.check_open()?;
        let run = || {
            let mut table = self.table.lock();
            // Read under the lock, so that the times of writes have the order of their numbers.
            let outcome = change(&mut table, self.clock.now().floor_to_millis());
            self.announce(&table);
            outcome
        };
        match fence {
            None => Ok(Fenced::Done(run())),
            Some(fence) => Ok(self.state.with_fence(fence, |holds| {
                if holds { Fenced::Done(run()) } else { Fenced::Refused }
            })),
        }
    }

    /// Runs `read` on the table; what has expired is deleted first, hence `mut`.
    fn read<T>(&self, read: impl FnOnce(&mut SeriesTable) -> T) -> StoreResult<T> {
        self.check_open()?;
        let mut table = self.table.lock();
        table.expire(self.clock.now());
        let answer = read(&mut table);
        self.announce(&table);
        Ok(answer)
    }

    fn announce(&self, table: &SeriesTable) {
        let head = table.log.head();
        self.changes.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        if table.dirty.len() >= self.flush_threshold {
            self.flush_wanted.notify_one();
        }
    }

    fn check_open(&self) -> StoreResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::single(self.epoch, seq)
    }

    fn flush(&self) -> StoreResult<u64> {
        let mut disk = self.disk.lock();
        let batch = self.table.lock().begin_flush();
        let Some(disk) = disk.as_mut().filter(|_| batch.len() > 0) else {
            self.table.lock().dirty.flushed();
            return Ok(0);
        };
        match batch.write(disk) {
            Ok(()) => {
                self.table.lock().dirty.flushed();
                Ok(batch.len() as u64)
            }
            Err(error) => {
                self.table.lock().undo_flush(batch);
                self.flush_failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        self.read(|table| {
            let (points, more) = table.snapshot(selectors, after, limit);
            Snapshot { points, cursor: self.cursor(table.log.head()), more }
        })
    }

    fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        let Some(after) = after.as_single().filter(|_| after.epoch == self.epoch) else {
            return Ok(Delta::Gone);
        };
        self.read(|table| match table.delta(after, limit) {
            None => Delta::Gone,
            Some(delta) => Delta::Changes {
                changes: delta.changes,
                next: self.cursor(delta.next),
                more: delta.more,
            },
        })
    }

    fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<&Fence>,
    ) -> StoreResult<Fenced<usize>> {
        self.write(fence, |table, now| {
            table.expire(now);
            let slots = table.matching(selectors);
            if !dry_run {
                for slot in &slots {
                    table.delete_slot(*slot, now);
                }
                table.trim();
            }
            slots.len()
        })
    }
}

#[async_trait]
impl SeriesStore for EmbeddedSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        let short = batch.len() <= INLINE_POINTS && fence.is_none();
        let upsert = move |shared: &Shared| {
            let outcome = shared.write(fence.as_ref(), |table, now| table.upsert(&batch, now));
            Ok((outcome, batch))
        };
        let (outcome, batch) = self.small(short, upsert).await?;
        if batch.len() > INLINE_POINTS {
            // Giving a large batch back to the system takes milliseconds; nobody should wait for it.
            tokio::task::spawn_blocking(move || drop(batch));
        }
        outcome
    }

    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        let shared = Arc::clone(&self.shared);
        let (selectors, after) = (selectors.to_vec(), after.cloned());
        off_thread(move || shared.snapshot(&selectors, after.as_ref(), limit)).await
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        self.small(true, |shared| shared.read(|table| shared.cursor(table.log.head()))).await
    }

    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        let after = after.clone();
        self.small(limit <= INLINE_POINTS, move |shared| shared.delta(&after, limit)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>> {
        self.small(true, move |shared| {
            shared.read(|table| table.find_live(id).map(|slot| table.core.point(slot)))
        })
        .await
    }

    async fn delete(&self, id: SeriesId, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        self.small(fence.is_none(), move |shared| {
            shared.write(fence.as_ref(), |table, now| {
                table.expire(now);
                let found = table.find_live(id);
                if let Some(slot) = found {
                    table.delete_slot(slot, now);
                    table.trim();
                }
                found.is_some()
            })
        })
        .await
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        let shared = Arc::clone(&self.shared);
        let selectors = selectors.to_vec();
        off_thread(move || shared.delete_matching(&selectors, dry_run, fence.as_ref())).await
    }

    async fn expire(&self) -> StoreResult<usize> {
        let shared = Arc::clone(&self.shared);
        off_thread(move || {
            shared.check_open()?;
            let mut table = shared.table.lock();
            let expired = table.expire(shared.clock.now());
            shared.announce(&table);
            Ok(expired)
        })
        .await
    }
}
