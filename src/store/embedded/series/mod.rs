//! The series of the embedded backend: served from memory, and brought to disk by the flusher.
//!
//! One mutex guards the table; it is held for a batch, a chunk of a delta, a page of a snapshot
//! with the scan that it takes, never across an await and never while the disk works. Async threads
//! do small work themselves when the mutex is free, and leave the rest to others. A fenced write
//! holds the latch of its lease around that mutex, so that a takeover can't become visible in its
//! middle.

mod core;
mod expiry;
mod labels;
mod load;
mod log;
mod metadata;
mod names;
mod read;
mod record;
mod rows;
mod table;
mod tombstones;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use self::rows::SeriesSet;
use self::table::{Now, SeriesTable};
use super::blocking::off_thread;
use super::buffered::FlushSignal;
use super::fences::Fences;
use super::sqlite::OpenError;
use crate::clock::{RetentionClock, SharedClock};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::{
    Delta, ErrorKind, Fenced, ResourceStatus, SeriesStore, Snapshot, StoreError, StoreResult,
    UpsertOutcome,
};

/// A batch of at most this many points is applied on the async thread that brings it: it takes
/// less time than the way to another thread and back.
const INLINE_POINTS: usize = 1000;

/// The series.
pub(super) struct EmbeddedSeries {
    shared: Arc<Shared>,
}

struct Shared {
    table: Arc<Mutex<SeriesTable>>,
    fences: Fences,
    clock: SharedClock,
    retention: RetentionClock,
    epoch: u64,
    changes: watch::Sender<u64>,
    flush: Arc<FlushSignal>,
    closed: AtomicBool,
}

impl EmbeddedSeries {
    /// Serves the series in `set`, which the flusher has filled.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn new(
        set: &SeriesSet,
        fences: Fences,
        flush: Arc<FlushSignal>,
        clock: SharedClock,
        retention: RetentionClock,
    ) -> Result<Self, OpenError> {
        let table = set.table();
        let head = table.lock().log.head();
        Ok(Self {
            shared: Arc::new(Shared {
                table,
                fences,
                clock,
                retention,
                epoch: new_epoch()?,
                changes: watch::Sender::new(head),
                flush,
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Ends the store: further calls fail as [`ErrorKind::Unavailable`].
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        // A write that saw the store open holds the mutex: the last flush must come after it.
        drop(self.shared.table.lock());
    }

    /// Reports how many series are held, and how many deletions are remembered.
    pub(super) fn status(&self) -> [ResourceStatus; 2] {
        let table = self.shared.table.lock();
        [
            ResourceStatus::counted("series", table.live as u64),
            ResourceStatus::counted("series_tombstones", table.tombstones.len() as u64),
        ]
    }

    /// Does `work` on this thread when it is `short` and the table is free, otherwise on another one: an
    /// async thread that waited for the table would keep all its other requests waiting, too.
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
}

/// Makes a number that no earlier epoch of any store has had: the change log is in memory
/// only, so each start of the server begins a new epoch.
fn new_epoch() -> Result<u64, OpenError> {
    let path = Path::new("the source of random numbers");
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::failed(path, error.to_string()))?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Shared {
    /// Runs `change` on the table, in one step with the check of the fence, and wakes those who
    /// wait for changes.
    fn write<T>(
        &self,
        fence: Option<&Fence>,
        change: impl FnOnce(&mut SeriesTable, Now) -> T,
    ) -> StoreResult<Fenced<T>> {
        let run = || {
            let mut table = self.table.lock();
            self.check_open()?;
            let outcome = change(&mut table, self.now());
            self.announce(&table);
            Ok(Fenced::Done(outcome))
        };
        match fence {
            None => run(),
            Some(fence) => self
                .fences
                .with_fence(fence, |holds| if holds { run() } else { Ok(Fenced::Refused) })
                .flatten(),
        }
    }

    /// Runs `read` on the table; what has expired is deleted first, hence `mut`.
    fn read<T>(&self, read: impl FnOnce(&mut SeriesTable) -> T) -> StoreResult<T> {
        let mut table = self.table.lock();
        self.check_open()?;
        table.expire(self.now());
        let outcome = read(&mut table);
        self.announce(&table);
        Ok(outcome)
    }

    /// Reads the clocks. To be called under the mutex, so that the times of writes have the order of their numbers.
    fn now(&self) -> Now {
        let now = self.clock.read();
        Now {
            stamp: now.system.floor_to_millis(),
            expiry: self.retention.at(now),
            steady: now.steady,
        }
    }

    fn announce(&self, table: &SeriesTable) {
        let head = table.log.head();
        self.changes.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        self.flush.note(table.dirty.len());
    }

    /// To be called under the mutex, see [`EmbeddedSeries::close`].
    fn check_open(&self) -> StoreResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::single(self.epoch, seq)
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
            // Freeing a large batch takes milliseconds, for which the caller should not wait.
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
            let mut table = shared.table.lock();
            shared.check_open()?;
            let expired = table.expire(shared.now());
            shared.announce(&table);
            Ok(expired)
        })
        .await
    }
}
