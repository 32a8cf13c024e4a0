//! How a resource defines a paged table.
//!
//! Invariant: as for all durable tables, a name or a tag that was used once is never given to another
//! one.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::{KeyText, OrderedKey, WriteKey, key_text};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::durable::table::Counter;

/// Defines a table whose rows need not all fit into memory.
///
/// Rows are JSON, in the journal and in the file. Every later version must be able to read them.
pub(in crate::store::embedded) trait PagedTable:
    Send + Sync + 'static
{
    /// Identifies a row. Sorts as its text does, see [`OrderedKey`].
    type Key: OrderedKey + Ord + Send + Sync + 'static;
    /// A row.
    type Row: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The name of the SQL table, and of the resource in reports.
    const NAME: &'static str;
    /// Names the table in journal entries.
    const TAG: u8;
    /// Makes the SQL table, whose columns are `key`, `value`, `crc` and `expires_at` (nanoseconds
    /// of the steady time, or NULL), and an index on `expires_at`.
    const MIGRATIONS: &'static [&'static str];

    /// Returns when a row expires; `None` when never. Follows from the row alone, since the file has
    /// it beside the row.
    fn expires_at(row: &Self::Row) -> Option<SteadyTime>;

    /// Returns what a row takes in memory, in bytes.
    fn bytes(row: &Self::Row) -> usize;

    /// Returns when a row, which is given as JSON, expires.
    ///
    /// # Errors
    /// When it does not read.
    fn end_of(row: &str) -> serde_json::Result<Option<SteadyTime>> {
        serde_json::from_str(row).map(|row| Self::expires_at(&row))
    }

    /// Returns the counters that a new epoch sets, as a table in memory does.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        let (_, _) = (last, now);
        Vec::new()
    }
}

/// The text of a key, which need not be written on the writer's thread then.
pub(in crate::store::embedded) struct RowKey<T>(pub(super) KeyText, PhantomData<fn() -> T>);

impl<T: PagedTable> RowKey<T> {
    /// Makes the text of a key, or of what is written as one is.
    pub(in crate::store::embedded) fn of(key: &impl WriteKey) -> Self {
        Self::from_text(key_text(key))
    }

    pub(super) fn from_text(text: KeyText) -> Self {
        Self(text, PhantomData)
    }
}

impl<T> Clone for RowKey<T> {
    fn clone(&self) -> Self {
        Self(KeyText::clone(&self.0), PhantomData)
    }
}

/// The rows from one key to another one, both included.
pub(in crate::store::embedded) struct KeyRange<T> {
    pub(in crate::store::embedded) first: RowKey<T>,
    pub(in crate::store::embedded) last: RowKey<T>,
}
