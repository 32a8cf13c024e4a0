//! The rows of leases: fences are checked against them, so they lie below all that is fenced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::leases::{FencingToken, Holder, LeaseName};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::Limited;
use crate::store::embedded::durable::{Counter, DurableTable};

/// The last fencing token that was given. One for all leases, so that a lease that ended needs no
/// row to keep its tokens growing.
pub(in crate::store::embedded) const LAST_TOKEN: Counter = Counter::named("leases.last_token");

/// The table of the leases.
#[derive(Debug)]
pub(in crate::store::embedded) struct Leases {
    /// The most leases that are held.
    pub(in crate::store::embedded) max: usize,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct LeaseRow {
    pub(in crate::store::embedded) holder: Holder,
    pub(in crate::store::embedded) token: FencingToken,
    pub(in crate::store::embedded) expires_at: SteadyTime,
    pub(in crate::store::embedded) ttl: Duration,
    /// See [`crate::model::leases::Claimant::access`]; absent from rows of before there were takeovers.
    #[serde(default)]
    pub(in crate::store::embedded) access: String,
}

impl DurableTable for Leases {
    type Key = LeaseName;
    type Row = LeaseRow;
    const NAME: &'static str = "leases";
    const TAG: u8 = 3;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE leases (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID"];

    fn limit(&self) -> Option<(u64, Limited)> {
        Some((self.max as u64, Limited::Leases))
    }

    fn expires_at(&self, row: &LeaseRow) -> Option<SteadyTime> {
        Some(row.expires_at)
    }

    /// Raises the last token to the microseconds since 1970, where it is below.
    ///
    /// A run without files, with a new folder or with a restored backup does not know the tokens of
    /// the runs before it, and a leader that was paused then may still come. Fewer than one token is
    /// given in a microsecond, so all of them lie below the time at which this epoch begins.
    /// The tokens stay below 2^53, exact in every JSON reader, until 2255.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        vec![(LAST_TOKEN, last(&LAST_TOKEN).max(now.as_nanos() / 1_000))]
    }
}
