//! The series of the embedded backend: served from memory, and brought to disk by the flusher.
//!
//! One mutex guards the table; it is held for a batch, or for a bounded piece of a delta or of a scan,
//! never across an await, never while the disk works and never while selectors are matched. Async threads
//! do small work themselves when the mutex is free, and leave the rest to others: they never wait for it.
//! A fenced write holds the latch of its lease around that mutex, so that a takeover can't become visible
//! in its middle.

mod checksum;
mod core;
mod created;
mod expiry;
mod labels;
mod load;
mod log;
mod metadata;
mod names;
mod read;
mod record;
mod rows;
mod scan;
mod snapshots;
mod table;
#[cfg(test)]
mod tests;
mod tombstones;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use self::read::TableDelta;
pub(super) use self::rows::SeriesSet;
use self::scan::LOOKED_AT;
use self::snapshots::ScanTurns;
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
    turns: ScanTurns,
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
                turns: ScanTurns::new(),
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
        [
            ResourceStatus::sized("series", table.live as u64, table.bytes as u64),
            ResourceStatus::sized(
                "series_tombstones",
                table.tombstones.len() as u64,
                table.tombstones.bytes() as u64,
            ),
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

type Locked<'a> = MutexGuard<'a, SeriesTable>;

/// Makes a number that no earlier epoch of any store has had: the change log is in memory
/// only, so each start of the server begins a new epoch.
fn new_epoch() -> Result<u64, OpenError> {
    let path = Path::new("the source of random numbers");
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::failed(path, error.to_string()))?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Shared {
    /// Locks the table when that needs no waiting, and nothing has to expire first.
    fn try_lock(&self) -> Option<Locked<'_>> {
        let table = self.table.try_lock()?;
        table.wheel.is_idle(self.now().expiry.as_nanos()).then_some(table)
    }

    /// Runs `change` on the table, in one step with the check of the fence, and wakes those who
    /// wait for changes.
    fn write<T>(
        &self,
        fence: Option<&Fence>,
        change: impl FnOnce(&mut SeriesTable, Now) -> T,
    ) -> StoreResult<Fenced<T>> {
        let run = || self.write_in(self.table.lock(), change).map(Fenced::Done);
        match fence {
            None => run(),
            Some(fence) => self
                .fences
                .with_fence(fence, |holds| if holds { run() } else { Ok(Fenced::Refused) })
                .flatten(),
        }
    }

    /// As [`Self::write`], without a fence and on the table that the caller has locked.
    fn write_in<T>(
        &self,
        mut table: Locked<'_>,
        change: impl FnOnce(&mut SeriesTable, Now) -> T,
    ) -> StoreResult<T> {
        self.check_open()?;
        let outcome = change(&mut table, self.now());
        self.announce(&table);
        Ok(outcome)
    }

    /// Runs `read` on the table; what has expired is deleted first, hence `mut`.
    fn read<T>(&self, read: impl FnOnce(&mut SeriesTable) -> T) -> StoreResult<T> {
        self.read_in(self.table.lock(), read)
    }

    /// As [`Self::read`], on the table that the caller has locked.
    fn read_in<T>(
        &self,
        mut table: Locked<'_>,
        read: impl FnOnce(&mut SeriesTable) -> T,
    ) -> StoreResult<T> {
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

    /// Reads a delta piece by piece. All pieces end at the newest change of the first one, so no series is
    /// read twice: one that changes meanwhile is beyond it.
    fn delta(&self, after: &Cursor, up_to: Option<&Cursor>, limit: usize) -> StoreResult<Delta> {
        let Some((mut after, mut up_to)) = self.seqs(after, up_to) else { return Ok(Delta::Gone) };
        let mut all = Vec::new();
        loop {
            let room = (limit - all.len()).min(LOOKED_AT);
            let piece = self.read(|table| table.delta(after, up_to, room))?;
            let Some(mut piece) = piece else { return Ok(Delta::Gone) };
            all.append(&mut piece.changes);
            if !piece.more || all.len() == limit {
                return Ok(self.changes_of(TableDelta { changes: all, ..piece }));
            }
            (after, up_to) = (piece.next, Some(piece.head));
        }
    }

    /// Returns the sequence numbers of cursors; `None` when they are not of this epoch.
    fn seqs(&self, after: &Cursor, up_to: Option<&Cursor>) -> Option<(u64, Option<u64>)> {
        let seq = |cursor: &Cursor| cursor.as_single().filter(|_| cursor.epoch == self.epoch);
        Some((seq(after)?, up_to.map(seq).map_or(Some(None), |seq| seq.map(Some))?))
    }

    fn changes_of(&self, delta: TableDelta) -> Delta {
        let TableDelta { changes, next, head, more } = delta;
        Delta::Changes { changes, next: self.cursor(next), head: self.cursor(head), more }
    }
}

#[async_trait]
impl SeriesStore for EmbeddedSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        let short = batch.len() <= INLINE_POINTS;
        let (outcome, batch) = match fence {
            None => {
                let upsert = move |shared: &Shared, table: Locked<'_>| {
                    let outcome = shared.write_in(table, |table, now| table.upsert(&batch, now));
                    Ok((outcome.map(Fenced::Done), batch))
                };
                self.small(short, upsert).await?
            }
            Some(fence) => {
                let shared = Arc::clone(&self.shared);
                let upsert = move || {
                    let change = |table: &mut SeriesTable, now| table.upsert(&batch, now);
                    Ok((shared.write(Some(&fence), change), batch))
                };
                off_thread(upsert).await?
            }
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
            match self.shared.read_in(table, |table| table.delta(after, up_to, limit))? {
                None => return Ok(Delta::Gone),
                // More than one piece is left to another thread.
                Some(piece) if piece.more && piece.changes.len() < limit => {}
                Some(piece) => return Ok(self.shared.changes_of(piece)),
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

    async fn delete(&self, id: SeriesId, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        let delete = move |table: &mut SeriesTable, now| table.delete(id, now);
        match fence {
            None => {
                let write = move |shared: &Shared, table: Locked<'_>| {
                    shared.write_in(table, delete).map(Fenced::Done)
                };
                self.small(true, write).await
            }
            Some(fence) => {
                let shared = Arc::clone(&self.shared);
                off_thread(move || shared.write(Some(&fence), delete)).await
            }
        }
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        self.scan_and_delete(selectors, dry_run, fence).await
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
