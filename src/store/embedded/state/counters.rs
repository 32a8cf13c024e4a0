//! The few numbers that only grow: part of the strong data, so that they are committed in the
//! same step as what depends on them.

use serde::{Deserialize, Serialize};

use super::table::{Resource, Table};
use super::txn::Txn;
use crate::model::time::Timestamp;

/// Which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store::embedded) enum Counter {
    /// The last fencing token that was given. One for all leases, so that a lease that
    /// ended needs no row to keep its tokens growing. See [`Table::start_tokens`].
    FencingToken,
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
    /// Raises the last fencing token to the microseconds since 1970, where it is below.
    ///
    /// A life without files, with a new folder or with a restored backup does not know the tokens
    /// of the lives before, and a leader that was paused may still come with one of them. Fewer
    /// than one token is given in a microsecond, so all of them lie below the time at which
    /// this life began. The numbers stay below 2^53, exact in every JSON reader, until 2255.
    pub(super) fn start_tokens(&mut self, now: Timestamp) {
        let started = now.as_nanos() / 1_000;
        if self.get(&Counter::FencingToken, now).is_none_or(|last| *last < started) {
            self.apply(Counter::FencingToken, Some(started));
        }
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
