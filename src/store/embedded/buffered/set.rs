//! How a resource shows its buffered rows to the flusher.
//!
//! Invariant: what a set drains is the state of one moment, and either reaches the disk whole or
//! is marked again.

use rusqlite::{Connection, Transaction};

use crate::model::time::SteadyTime;
use crate::store::StoreResult;
use crate::store::embedded::sqlite::SchemaPart;

/// The buffered rows of one resource.
pub(in crate::store::embedded) trait BufferedSet: Send + Sync {
    /// Returns the tables of the set, with their migrations.
    fn schema(&self) -> SchemaPart;

    /// Fills the set, which is empty, from the file.
    ///
    /// # Errors
    /// When the file can't be read, or does not hold what it should.
    fn load(&self, conn: &Connection) -> StoreResult<()>;

    /// Locks the set. The flusher locks all sets, in the order in which they are listed, before it
    /// drains the first; a write that needs several of them at once locks them in the same order.
    fn lock(&self) -> Box<dyn LockedSet + '_>;

    /// Returns what is not on disk, that of a running flush included.
    fn unflushed(&self) -> Unflushed;
}

/// A set that does not change meanwhile.
pub(in crate::store::embedded) trait LockedSet {
    /// Takes all marks, and reads what they stand for now.
    fn drain(&mut self) -> Box<dyn FlushBatch>;
}

/// What was drained from one set.
pub(in crate::store::embedded) trait FlushBatch {
    /// Returns how many rows it writes or deletes.
    fn len(&self) -> usize;

    /// Writes the rows that are there. Sets are written in the order in which they are listed, so a
    /// set may refer to those before it.
    fn upsert(&self, txn: &Transaction<'_>) -> rusqlite::Result<()>;

    /// Deletes the rows that are gone. Runs after all sets have written, in the reverse order.
    fn delete(&self, txn: &Transaction<'_>) -> rusqlite::Result<()>;

    /// Ends the flush: all is on disk, or `failed`, and then the marks come back without overriding
    /// newer ones.
    fn finish(self: Box<Self>, failed: bool);
}

/// How much is not on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::embedded) struct Unflushed {
    /// How many rows.
    pub(in crate::store::embedded) rows: usize,
    /// When the oldest of them was marked.
    pub(in crate::store::embedded) oldest: Option<SteadyTime>,
}
