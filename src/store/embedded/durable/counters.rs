//! The few numbers that only grow: part of the durable data, so that they are committed in the
//! same step as what depends on them.

use serde::{Deserialize, Serialize};

use super::table::{Resource, Table};
use super::transaction::Txn;
use crate::model::time::Timestamp;

/// Which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store::embedded) enum Counter {
    /// The last fencing token that was given. One for all leases, so that a lease that
    /// ended needs no row to keep its tokens growing. See [`Table::start_life`].
    FencingToken,
    /// The place of the last bump of a generation in the order of all bumps.
    LastBump,
    /// Bumps up to here may have been forgotten: no fence below it holds for any key.
    BumpFloor,
    /// The latest time at which something was committed, in nanoseconds since 1970.
    Clock,
}

/// The table of the counters.
#[derive(Debug)]
pub(in crate::store::embedded) struct Counters;

impl Resource for Counters {
    type Key = Counter;
    type Row = i64;
    const NAME: &'static str = "counters";
    const TAG: u8 = 1;

    fn expires_at(&self, _: &i64) -> Option<Timestamp> {
        None
    }
}

impl Table<Counters> {
    /// Raises the last fencing token and the last bump to the microseconds since 1970, where they
    /// are below, and forgets the fences of generations that earlier lives gave.
    ///
    /// A life without files, with a new folder or with a restored backup does not know what the
    /// lives before it gave, and a leader that was paused, or a value that was made then, may
    /// still come. Fewer than one number is given in a microsecond, so all of them lie
    /// below the time at which this life began. The numbers stay below 2^53, exact in every
    /// JSON reader, until 2255.
    pub(super) fn start_life(&mut self, now: Timestamp) {
        let started = now.as_nanos() / 1_000;
        for counter in [Counter::FencingToken, Counter::LastBump] {
            let last = self.get(&counter, now).copied().unwrap_or(0);
            self.apply(counter, Some(last.max(started)));
        }
        let last_bump = self.get(&Counter::LastBump, now).copied().unwrap_or(0);
        // Above every place that a fence of an earlier life can name.
        self.apply(Counter::LastBump, Some(last_bump + 1));
        self.apply(Counter::BumpFloor, Some(last_bump + 1));
    }
}

impl Txn<'_> {
    /// Raises a counter by one; gives its new value.
    pub(in crate::store::embedded) fn next(&mut self, counter: Counter) -> i64 {
        let value = self.counters.get(&counter).copied().unwrap_or(0) + 1;
        self.counters.put(counter, value);
        value
    }
}
