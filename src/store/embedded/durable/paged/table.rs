//! How a resource defines a paged table.
//!
//! Invariant: as for all durable tables, a name or a tag that was used once is never given to another
//! one.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::OrderedKey;
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

    /// Returns the counters that a new epoch sets, as a table in memory does.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        let (_, _) = (last, now);
        Vec::new()
    }
}
