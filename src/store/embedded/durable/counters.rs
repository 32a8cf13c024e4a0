//! The few numbers that only grow: part of the durable data, so that they are committed in the
//! same step as what depends on them.
//!
//! Resources name their counters; only those of the time of the last commit are the engine's own.

use super::table::{Counter, DurableTable};
use crate::model::time::SteadyTime;

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

    fn expires_at(&self, _: &i64) -> Option<SteadyTime> {
        None
    }
}
