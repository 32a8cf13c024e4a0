//! What each commit records about its time, so that the next start can go on with the steady time.
//!
//! Not the clocks, which read it at the start. Invariant: the time is committed in the same step as what was granted
//! at it; so a later run's steady time never starts before a grant.

use super::changes::Changes;
use super::counters::Counters;
use super::table::Counter;
use super::tables::Tables;
use crate::clock::{Boot, LastCommit, Moment};
use crate::model::time::{SteadyTime, Timestamp};

/// The steady time of the last commit.
pub(super) const LAST_COMMIT: Counter = Counter::named("last_commit_nanos");
/// The boot of the machine on which it was made, and how the steady time was counted there, see [`Boot`].
const BOOT_ID: Counter = Counter::named("boot_id");
const BOOT_OFFSET: Counter = Counter::named("boot_offset_nanos");
/// How far the system's clock was ahead of the steady one, to a second.
const SYSTEM_OFFSET: Counter = Counter::named("system_offset_nanos");
/// A smaller change of that offset is not written down.
const SYSTEM_STEP_NANOS: u64 = 1_000_000_000;

/// Adds to the changes of a group what the next start must know about its time, see [`LastCommit`].
pub(super) fn record_time(tables: &Tables, changes: &mut Changes, now: Moment, boot: Boot) {
    let rows = &mut changes.pending_mut::<Counters>().rows;
    rows.insert(LAST_COMMIT, Some(now.steady.as_nanos()));
    // These stay the same for the whole run, mostly.
    for (counter, value) in [(BOOT_ID, boot.id), (BOOT_OFFSET, boot.offset_nanos)] {
        if tables.counter(&counter) != value {
            rows.insert(counter, Some(value));
        }
    }
    let offset = now.offset_nanos();
    if tables.counter(&SYSTEM_OFFSET).abs_diff(offset) >= SYSTEM_STEP_NANOS {
        rows.insert(SYSTEM_OFFSET, Some(offset));
    }
}

/// Returns what the last commit recorded; `None` when there was none.
pub(super) fn last_commit(tables: &Tables) -> Option<LastCommit> {
    let steady = Some(tables.counter(&LAST_COMMIT)).filter(|nanos| *nanos != 0)?;
    let system = steady.saturating_add(tables.counter(&SYSTEM_OFFSET));
    let at =
        Moment { steady: SteadyTime::from_nanos(steady), system: Timestamp::from_nanos(system) };
    let boot = Boot { id: tables.counter(&BOOT_ID), offset_nanos: tables.counter(&BOOT_OFFSET) };
    Some(LastCommit { at, boot })
}
