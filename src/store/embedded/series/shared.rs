//! The table of series under its mutex: every access purges some of what has ended, reads the clocks while it holds
//! the mutex, and wakes the waiters for changes.
//!
//! Blocks: not for async threads, but for [`Shared::try_lock`]. Invariant: the mutex is never held for more than a batch
//! or a bounded piece, and is free between two pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use super::read::TableDelta;
use super::table::{Now, SeriesTable};
use crate::clock::{RetentionClock, SharedClock};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::store::embedded::buffered::FlushSignal;
use crate::store::embedded::fences::Fences;
use crate::store::scan::{LOOKED_AT, ScanTurns};
use crate::store::{
    Delta, ErrorKind, Fenced, SeriesWriter, StoreError, StoreResult, UpsertOutcome,
};

/// What all users of the table share.
pub(super) struct Shared {
    pub(super) table: Arc<Mutex<SeriesTable>>,
    pub(super) fences: Fences,
    pub(super) clock: SharedClock,
    pub(super) retention: RetentionClock,
    pub(super) epoch: u64,
    pub(super) changes: watch::Sender<u64>,
    pub(super) flush: Arc<FlushSignal>,
    pub(super) turns: ScanTurns,
    /// The turn of deletions by selector, from when they begin to select series.
    pub(super) deletions: Arc<Semaphore>,
    pub(super) closed: AtomicBool,
}

/// The table, while it is locked.
pub(super) type Locked<'a> = MutexGuard<'a, SeriesTable>;

impl Shared {
    /// Locks the table when that needs no waiting, and nothing has to be purged first.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        let table = self.table.try_lock()?;
        table.has_nothing_to_purge(self.now()).then_some(table)
    }

    /// Runs `change` on the table, in one step with the check of the fence, and wakes those who
    /// wait for changes.
    pub(super) fn write<T>(
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
    pub(super) fn write_in<T>(
        &self,
        mut table: Locked<'_>,
        change: impl FnOnce(&mut SeriesTable, Now) -> T,
    ) -> StoreResult<T> {
        self.check_open()?;
        let outcome = change(&mut table, self.now());
        self.announce(&table);
        Ok(outcome)
    }

    /// Runs `read` on the table. Some of what has ended is purged first, hence `mut`.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut SeriesTable) -> T) -> StoreResult<T> {
        self.read_in(self.table.lock(), read)
    }

    /// As [`Self::read`], on the table that the caller has locked.
    pub(super) fn read_in<T>(
        &self,
        mut table: Locked<'_>,
        read: impl FnOnce(&mut SeriesTable) -> T,
    ) -> StoreResult<T> {
        self.check_open()?;
        table.purge_some(self.now());
        let outcome = read(&mut table);
        self.announce(&table);
        Ok(outcome)
    }

    /// Runs `read` on the table when all is purged that has ended; until then, others may use the table between pieces.
    pub(super) fn read_purged<T>(&self, read: impl Fn(&mut SeriesTable) -> T) -> StoreResult<T> {
        loop {
            if let Some(outcome) = self.read(|table| table.is_purged.then(|| read(table)))? {
                return Ok(outcome);
            }
        }
    }

    /// Purges all that has ended; returns how many series of it had expired.
    pub(super) fn purge(&self) -> StoreResult<usize> {
        let mut expired = 0;
        loop {
            let mut table = self.table.lock();
            self.check_open()?;
            expired += table.purge_some(self.now());
            self.announce(&table);
            if table.is_purged {
                return Ok(expired);
            }
        }
    }

    /// Applies a batch to the table, which the caller has locked. It is freed between two attempts.
    pub(super) fn upsert<'a>(
        &'a self,
        mut table: Locked<'a>,
        batch: &PointBatch,
        writer: &SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        loop {
            let change = |table: &mut SeriesTable, now| table.upsert(batch, writer, now);
            if let Some(outcome) = self.write_in(table, change).flatten()? {
                return Ok(Fenced::Done(outcome));
            }
            table = self.table.lock();
        }
    }

    /// As [`Self::upsert`], where a fence has to be checked with each attempt.
    pub(super) fn upsert_fenced(
        &self,
        batch: &PointBatch,
        writer: &SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        loop {
            let change = |table: &mut SeriesTable, now| table.upsert(batch, writer, now);
            match self.write(writer.fence.as_ref(), change)?.transpose()? {
                Fenced::Done(None) => {}
                Fenced::Done(Some(outcome)) => return Ok(Fenced::Done(outcome)),
                Fenced::Refused => return Ok(Fenced::Refused),
            }
        }
    }

    /// Reads the clocks. To be called under the mutex, so that the times of writes have the order of their numbers.
    pub(super) fn now(&self) -> Now {
        let now = self.clock.read();
        Now {
            stamp: now.system.floor_to_millis(),
            expiry: self.retention.at(now),
            steady: now.steady,
        }
    }

    pub(super) fn announce(&self, table: &SeriesTable) {
        let head = table.log.head();
        self.changes.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        self.flush.note(table.dirty.len());
    }

    /// To be called under the mutex, see [`EmbeddedSeries::close`].
    pub(super) fn check_open(&self) -> StoreResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
    }

    pub(super) fn cursor(&self, seq: u64) -> Cursor {
        Cursor::single(self.epoch, seq)
    }

    /// Reads a delta piece by piece. All pieces end at the newest change of the first one, so no series is
    /// read twice: one that changes meanwhile is beyond it.
    pub(super) fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        let Some((mut after, mut up_to)) = self.seqs(after, up_to) else { return Ok(Delta::Gone) };
        let mut all = Vec::new();
        loop {
            let room = (limit - all.len()).min(LOOKED_AT);
            let piece = self.read_purged(|table| table.delta(after, up_to, room))?;
            let Some(mut piece) = piece else { return Ok(Delta::Gone) };
            all.append(&mut piece.changes);
            if !piece.more || all.len() == limit {
                return Ok(self.changes_of(TableDelta { changes: all, ..piece }));
            }
            (after, up_to) = (piece.next, Some(piece.head));
        }
    }

    /// Returns the sequence numbers of cursors; `None` when they are not of this epoch.
    pub(super) fn seqs(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
    ) -> Option<(u64, Option<u64>)> {
        let seq = |cursor: &Cursor| cursor.as_single().filter(|_| cursor.epoch == self.epoch);
        Some((seq(after)?, up_to.map(seq).map_or(Some(None), |seq| seq.map(Some))?))
    }

    pub(super) fn changes_of(&self, delta: TableDelta) -> Delta {
        let TableDelta { changes, next, head, more } = delta;
        Delta::Changes { changes, next: self.cursor(next), head: self.cursor(head), more }
    }
}
