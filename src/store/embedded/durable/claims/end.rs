//! When claims end. Many end at the same moment, so that they can leave together.
//!
//! Invariant: a claim lasts for its period at least, and at most for a sixty-fourth of it, and five seconds, longer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::time::SteadyTime;

/// The shortest distance between two ends. So that all times have a number of 32 bits.
const STEP_NANOS: i128 = 5_000_000_000;
/// A period is divided into so many parts; what begins in the same one ends together.
const SLICES: u32 = 64;

/// The end of a claim, in steps since the earliest time there is. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ClaimEnd(pub(super) u32);

impl ClaimEnd {
    /// Returns the end of what begins now and lasts for `period`.
    pub(super) fn after(now: SteadyTime, period: Duration) -> Self {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        let steps = |nanos: i128| u32::try_from(nanos / STEP_NANOS).unwrap_or(u32::MAX);
        let end = nanos_since_the_earliest(now).saturating_add(nanos(period));
        let end = steps(end.saturating_add(STEP_NANOS - 1));
        let slice = (steps(nanos(period)) / SLICES).max(1);
        Self(end.checked_next_multiple_of(slice).unwrap_or(u32::MAX).max(1))
    }

    /// Returns the latest end that has come at `now`.
    pub(super) fn passed(now: SteadyTime) -> Self {
        Self(u32::try_from(nanos_since_the_earliest(now) / STEP_NANOS).unwrap_or(u32::MAX))
    }

    /// Returns the moment of the end in nanoseconds of the steady time.
    pub(super) fn as_nanos(self) -> i64 {
        let nanos = i128::from(i64::MIN) + i128::from(self.0) * STEP_NANOS;
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }
}

fn nanos_since_the_earliest(time: SteadyTime) -> i128 {
    i128::from(time.as_nanos()) - i128::from(i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_claim_lasts_for_its_period_and_little_longer() {
        let start = 1_795_000_000_000_000_000;
        for offset in [0, 1, 4_999_999_999, 5_000_000_000, 77_777_777_777] {
            for period in [Duration::from_nanos(1), Duration::from_secs(7), DAY, 30 * DAY] {
                let now = SteadyTime::from_nanos(start + offset);
                let end = ClaimEnd::after(now, period);
                let lasts = SteadyTime::from_nanos(end.as_nanos()).saturating_since(now);
                assert!(lasts >= period, "{period:?}");
                assert!(lasts < period + period / SLICES + Duration::from_secs(5), "{period:?}");
                assert!(ClaimEnd::passed(SteadyTime::from_nanos(end.as_nanos() - 1)) < end);
                assert_eq!(ClaimEnd::passed(SteadyTime::from_nanos(end.as_nanos())), end);
            }
        }
    }

    #[test]
    fn the_claims_of_a_period_have_few_ends() {
        let end = |second: i64| {
            let now = SteadyTime::from_nanos(1_795_000_000_000_000_000 + second * 1_000_000_000);
            ClaimEnd::after(now, DAY)
        };
        let ends: std::collections::BTreeSet<_> = (0..24 * 3600).map(end).collect();
        assert!(ends.len() <= 66, "{}", ends.len());
    }

    #[test]
    fn the_earliest_and_the_latest_times_have_ends() {
        for nanos in [i64::MIN, 0, i64::MAX] {
            let end = ClaimEnd::after(SteadyTime::from_nanos(nanos), DAY);
            assert!(end.0 > 0 && end > ClaimEnd::passed(SteadyTime::from_nanos(nanos)), "{nanos}");
        }
    }
}
