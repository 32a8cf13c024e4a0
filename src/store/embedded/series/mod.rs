//! The series of the embedded backend: served from memory, and brought to disk by the flusher.
//!
//! One mutex guards the table; it is held for a batch, or for a bounded piece of a delta, of a scan or of a purge,
//! never across an await, never while the disk works and never while selectors are matched. Async threads
//! do small work themselves when the mutex is free, and leave the rest to others: they never wait for it.
//! A fenced write holds the latch of its lease around that mutex, so that a takeover can't become visible
//! in its middle.

mod checksum;
mod core;
mod delete;
mod deletion;
mod expiry;
mod labels;
mod load;
mod log;
mod metadata;
mod names;
mod purge;
mod read;
mod record;
mod removal;
mod roles;
mod rows;
mod scanned;
mod shared;
mod snapshots;
mod table;
#[cfg(test)]
mod tests;
mod tombstones;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

pub(super) use self::rows::SeriesSet;
use self::shared::{Locked, Shared};
use self::table::SeriesTable;
use super::blocking::off_thread;
use super::buffered::FlushSignal;
use super::fences::Fences;
use super::sqlite::OpenError;
use crate::clock::{RetentionClock, SharedClock};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::scan::ScanTurns;
use crate::store::{
    DeleteOutcome, Delta, Fenced, ResourceStatus, SeriesStore, SeriesWriter, Snapshot, StoreResult,
    UpsertOutcome,
};

/// A batch of at most this many points is applied on the async thread that brings it: it takes
/// less time than the way to another thread and back.
const INLINE_POINTS: usize = 1000;

/// The series.
pub(super) struct EmbeddedSeries {
    shared: Arc<Shared>,
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
                turns: ScanTurns::new(),
                deletions: Arc::new(Semaphore::new(1)),
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

    /// Reports how many series are held, and how many deletions are remembered. Waits for the table: not for
    /// async threads.
    pub(super) fn status(&self) -> [ResourceStatus; 2] {
        let table = self.shared.table.lock();
        let settings = &table.settings;
        let series = ResourceStatus::sized("series", table.held as u64, table.bytes as u64);
        let tombstones = &table.tombstones;
        let (count, bytes) = (tombstones.len() as u64, tombstones.bytes() as u64);
        [
            series.limited(settings.max_series as u64).limited_in_bytes(settings.max_bytes as u64),
            ResourceStatus::sized("series_tombstones", count, bytes)
                .limited(settings.max_tombstones as u64)
                .limited_in_bytes(settings.max_tombstone_bytes() as u64),
        ]
    }

    /// Does `work` on this thread when it is `short` and the table is free, otherwise on another one: an
    /// async thread that waited for the table would keep all its other requests waiting, too.
    async fn small<T: Send + 'static>(
        &self,
        short: bool,
        work: impl FnOnce(&Shared, Locked<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        if short && let Some(table) = self.shared.try_lock() {
            return work(&self.shared, table);
        }
        let shared = Arc::clone(&self.shared);
        off_thread(move || work(&shared, shared.table.lock())).await
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

#[async_trait]
impl SeriesStore for EmbeddedSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        let short = batch.len() <= INLINE_POINTS;
        let (outcome, batch) = if writer.fence.is_none() {
            let upsert = move |shared: &Shared, table: Locked<'_>| {
                Ok((shared.upsert(table, &batch, &writer), batch))
            };
            self.small(short, upsert).await?
        } else {
            let shared = Arc::clone(&self.shared);
            let upsert = move || Ok((shared.upsert_fenced(&batch, &writer), batch));
            off_thread(upsert).await?
        };
        if !short {
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
        self.scan_snapshot(selectors, after, limit).await
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        let read = |shared: &Shared, table: Locked<'_>| {
            shared.read_in(table, |table| shared.cursor(table.log.head()))
        };
        self.small(true, read).await
    }

    async fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        if limit <= INLINE_POINTS
            && let Some(table) = self.shared.try_lock()
        {
            let Some((after, up_to)) = self.shared.seqs(after, up_to) else {
                return Ok(Delta::Gone);
            };
            let read =
                |table: &mut SeriesTable| table.is_purged.then(|| table.delta(after, up_to, limit));
            match self.shared.read_in(table, read)? {
                Some(None) => return Ok(Delta::Gone),
                Some(Some(piece)) if !piece.more || piece.changes.len() == limit => {
                    return Ok(self.shared.changes_of(piece));
                }
                // More than one piece is left to another thread.
                _ => {}
            }
        }
        let (shared, after, up_to) = (Arc::clone(&self.shared), after.clone(), up_to.cloned());
        let turn = self.shared.turns.read().await;
        let read = move || {
            // Kept by the read, which goes on when its caller is gone.
            let _turn = turn;
            shared.delta(&after, up_to.as_ref(), limit)
        };
        off_thread(read).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>> {
        let read = move |shared: &Shared, table: Locked<'_>| {
            let find =
                |table: &mut SeriesTable| table.find_live(id).map(|slot| table.core.point(slot));
            shared.read_in(table, find)
        };
        self.small(true, read).await
    }

    async fn delete(
        &self,
        id: SeriesId,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        if writer.fence.is_none() {
            let write = move |shared: &Shared, table: Locked<'_>| {
                let delete = |table: &mut SeriesTable, now| table.delete(id, &writer, now);
                shared.write_in(table, delete).flatten().map(Fenced::Done)
            };
            return self.small(true, write).await;
        }
        let shared = Arc::clone(&self.shared);
        let write = move || {
            let delete = |table: &mut SeriesTable, now| table.delete(id, &writer, now);
            shared.write(writer.fence.as_ref(), delete)?.transpose()
        };
        off_thread(write).await
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        self.scan_and_delete(selectors, dry_run, writer).await
    }

    async fn expire(&self) -> StoreResult<usize> {
        let shared = Arc::clone(&self.shared);
        off_thread(move || shared.purge()).await
    }
}
