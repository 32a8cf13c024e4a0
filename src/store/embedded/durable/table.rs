//! How a resource defines a table of durable rows.
//!
//! A definition lies in a file of its own, apart from the commands that change its rows, and is
//! registered in the list of `embedded/mod.rs`. Invariant: a name or a tag that was used once is
//! never given to another table.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::Tables;
use crate::model::time::Timestamp;
use crate::store::embedded::sqlite::SchemaPart;

/// Defines a table.
///
/// Rows are JSON, in the journal and in the file. The journal may hold rows that an earlier version
/// wrote, so every later version must be able to read them: new fields need a default.
pub(in crate::store::embedded) trait DurableTable:
    Send + Sync + 'static
{
    /// Identifies a row. Its JSON is unambiguous, and is the key in the file.
    type Key: Clone + Ord + Hash + Serialize + DeserializeOwned + Send + Sync;
    /// A row.
    type Row: Clone + Serialize + DeserializeOwned + Send + Sync;

    /// The name of the SQL table, and of the resource in reports.
    const NAME: &'static str;
    /// Names the table in journal entries.
    const TAG: u8;
    /// Makes the SQL table, whose columns are `key`, `value` and `crc`; see [`SchemaPart`].
    const MIGRATIONS: &'static [&'static str];

    /// Returns when a row expires; `None` when never.
    fn expires_at(&self, row: &Self::Row) -> Option<Timestamp>;

    /// Prepares what was read from the file for a new epoch, which begins at `now`.
    fn begin_epoch(tables: &mut Tables, now: Timestamp) {
        let (_, _) = (tables, now);
    }
}

/// Returns the schema of a table.
pub(super) fn schema<T: DurableTable>() -> SchemaPart {
    SchemaPart { name: T::NAME, migrations: T::MIGRATIONS }
}
