//! The rows of generations, and the two counters that order all bumps.

use serde::{Deserialize, Serialize};

use crate::model::generations::GenerationKey;
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::Limited;
use crate::store::embedded::durable::{Counter, DurableTable};

/// The number of the last bump in the order of all bumps.
pub(super) const LAST_BUMP: Counter = Counter::named("generations.last_bump");
/// The minimum fence: bumps up to here may have been forgotten, so no fence below it holds for any
/// key.
pub(super) const MINIMUM_FENCE: Counter = Counter::named("generations.minimum_fence");

/// The table of the generations.
#[derive(Debug)]
pub(in crate::store::embedded) struct Generations {
    /// The most keys.
    pub(in crate::store::embedded) max: usize,
}

/// A key that was bumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct GenerationRow {
    pub(super) number: i64,
    /// The number of the key's last bump in the order of all bumps.
    pub(super) bump: i64,
    pub(super) bumped_at: SteadyTime,
}

impl DurableTable for Generations {
    type Key = GenerationKey;
    type Row = GenerationRow;
    const NAME: &'static str = "generations";
    const TAG: u8 = 5;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE generations (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn limit(&self) -> Option<(u64, Limited)> {
        Some((self.max as u64, Limited::Generations))
    }

    /// Only a cleanup ends a generation.
    fn expires_at(&self, _: &GenerationRow) -> Option<SteadyTime> {
        None
    }

    /// Raises the last bump to the microseconds since 1970, where it is below, and the minimum fence
    /// past it.
    ///
    /// A run without files, with a new folder or with a restored backup does not know the bumps of
    /// the runs before it, and a value that was made then may still come. Fewer than one bump is done
    /// in a microsecond, so the numbers of all of them lie below the time at which this epoch
    /// begins. The numbers stay below 2^53, exact in every JSON reader, until 2255.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        // Above every number that a fence of an earlier epoch can name.
        let first = last(&LAST_BUMP).max(now.as_nanos() / 1_000) + 1;
        vec![(LAST_BUMP, first), (MINIMUM_FENCE, first)]
    }
}
