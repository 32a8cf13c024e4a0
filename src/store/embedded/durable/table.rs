//! How a resource defines a table of durable rows, and counters beside them.
//!
//! A definition lies in a file of its own, apart from the commands that change its rows, and is
//! registered in the list of `embedded/mod.rs`. Invariant: a name or a tag that was used once is
//! never given to another table.

use std::borrow::Cow;
use std::hash::Hash;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::time::{SteadyTime, Timestamp};
use crate::store::Limited;

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
    /// Makes the SQL table, whose columns are `key`, `value` and `crc`.
    const MIGRATIONS: &'static [&'static str];

    /// Returns when a row expires; `None` when never.
    fn expires_at(&self, row: &Self::Row) -> Option<SteadyTime>;

    /// Returns the most live rows that the table may have, and the failure of a command that would
    /// make more; see [`super::Txn::make_room`].
    fn limit(&self) -> Option<(u64, Limited)> {
        None
    }

    /// Returns what a row takes in memory, in bytes; 0 where rows are small enough not to be counted.
    fn bytes(row: &Self::Row) -> usize {
        let _ = row;
        0
    }

    /// Called when changes of the table have become visible. The tables are locked meanwhile.
    fn published(&self) {}

    /// Returns the counters that a new epoch, which begins at the system's time `now`, sets, and their values; `last`
    /// reads a counter as the last epoch left it.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        let (_, _) = (last, now);
        Vec::new()
    }
}

/// Which number. The name stands in the file; no two numbers share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::store::embedded) struct Counter(Cow<'static, str>);

impl Counter {
    /// Makes the name of a counter.
    pub(in crate::store::embedded) const fn named(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

/// How a table stands in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableForm {
    pub(super) tag: u8,
    pub(super) name: &'static str,
    /// Of a paged table: its SQL table has a column for the end, and its rows are counted.
    pub(super) end_of: Option<EndOf>,
}

/// Returns when a row, which is given as JSON, expires: in nanoseconds of the steady time, or never.
pub(super) type EndOf = fn(&str) -> serde_json::Result<Option<i64>>;

/// Returns the CRC-32 that stands beside a row. JSON holds no zero byte, so one can separate them.
pub(super) fn checksum(tag: u8, key: &str, value: &str) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[tag]);
    hasher.update(key.as_bytes());
    hasher.update(&[0]);
    hasher.update(value.as_bytes());
    i64::from(hasher.finalize())
}
