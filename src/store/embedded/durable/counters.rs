//! The few numbers that only grow: part of the durable data, so that they are committed in the
//! same step as what depends on them.
//!
//! Resources name their counters; only the time of the last commit is the engine's own.

use super::table::{Counter, DurableTable};
use crate::model::time::Timestamp;

/// The latest time at which something was committed, in nanoseconds since 1970.
pub(super) const LAST_COMMIT: Counter = Counter::named("last_commit_nanos");

/// The table of the counters.
#[derive(Debug)]
pub(super) struct Counters;

impl DurableTable for Counters {
    type Key = Counter;
    type Row = i64;
    const NAME: &'static str = "counters";
    const TAG: u8 = 1;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE counters (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID"];

    fn expires_at(&self, _: &i64) -> Option<Timestamp> {
        None
    }
}
