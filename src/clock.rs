//! The server's clock: one value that is passed in, and that tests replace.
//!
//! Not a source of durations: those are measured with `Instant`.
//! Invariant: no clock ever goes back. When an administrator or NTP sets the system's clock, the server's
//! clock follows only slowly, so that no lease expires early because of it. Time during which the machine was
//! suspended counts as passed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::model::time::Timestamp;

/// A source of the present time. See the module's invariant.
pub trait Clock: Send + Sync {
    /// Returns the present time; never earlier than a time that it returned before.
    fn now(&self) -> Timestamp;

    /// Returns how far the system's clock is ahead of this one, in seconds; negative when it is behind.
    fn offset_seconds(&self) -> f64 {
        0.0
    }
}

/// A clock that is shared by the layers.
pub type SharedClock = Arc<dyn Clock>;

/// Counts time also while the machine is suspended: a lease does not last longer because its server was
/// suspended.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
/// Other systems have only the monotonic clock.
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// A recorded time further ahead of the system's clock than this comes from a run with a wrong clock.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

/// Follows the system's clock: set to it once at the start, then advanced by a steady clock and
/// corrected slowly, see `Slew`.
#[derive(Debug)]
pub struct SystemClock {
    state: Mutex<Slew>,
}

impl SystemClock {
    /// Starts the clock at the system's time, but not before `earliest`: the latest time that an earlier run
    /// of the server recorded.
    ///
    /// An `earliest` of more than an hour ahead is ignored, so that one run with a wrong clock does not
    /// affect all later ones. What that run promised then lasts longer, never shorter.
    pub fn start(earliest: Timestamp) -> Self {
        let system = system_nanos();
        let ahead = earliest.saturating_since(Timestamp::from_nanos(system));
        let plausible = ahead <= MAX_AHEAD;
        if !plausible {
            tracing::warn!(
                %earliest,
                ahead_seconds = ahead.as_secs(),
                "ignoring a recorded time that is far ahead of the system's clock"
            );
        }
        let shown = if plausible { system.max(earliest.as_nanos()) } else { system };
        Self { state: Mutex::new(Slew { at: steady_nanos(), shown, credit: 0 }) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        Timestamp::from_nanos(state.advance(steady_nanos(), system_nanos()))
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric needs microseconds at most")]
    fn offset_seconds(&self) -> f64 {
        let shown = self.now().as_nanos();
        system_nanos().saturating_sub(shown) as f64 / 1e9
    }
}

/// The time that the clock shows, and how it approaches the system's time.
///
/// Up to a second off, it gains or loses 500 ppm, the rate at which `adjtime` slews: this shortens no
/// lease noticeably. Further off, the system's clock was stepped, and 500 ppm would show a wrong time for
/// months. 5 % makes up for an hour in 20 hours, and shortens a lease of a minute by 3 seconds.
#[derive(Debug)]
struct Slew {
    /// The time of the steady clock when it was read last.
    at: i64,
    /// The time that was returned last.
    shown: i64,
    /// The correction that is allowed but below a nanosecond so far, in [`PARTS`] of one. Without it, a clock that
    /// is read many times in a microsecond would never be corrected.
    credit: i128,
}

/// Corrections are counted in this many parts of a nanosecond for each nanosecond that passes.
const PARTS: i128 = 2_000;
/// 500 ppm, and 5 %, in [`PARTS`].
const SLOW_PARTS: i128 = 1;
const FAST_PARTS: i128 = 100;
const FAST_BEYOND_NANOS: u64 = 1_000_000_000;

impl Slew {
    /// Advances to the moment at which the steady clock shows `at` and the system's clock `system`.
    fn advance(&mut self, at: i64, system: i64) -> i64 {
        let passed = at.saturating_sub(self.at).max(0);
        self.at = self.at.max(at);
        self.shown = self.shown.saturating_add(passed);
        let off = system.saturating_sub(self.shown);
        let fast = off.unsigned_abs() > FAST_BEYOND_NANOS;
        let credit = self.credit + i128::from(passed) * if fast { FAST_PARTS } else { SLOW_PARTS };
        self.credit = credit % PARTS;
        // At most what has passed, so that the clock does not go back.
        let most = i64::try_from(credit / PARTS).unwrap_or(i64::MAX).min(passed);
        self.shown = self.shown.saturating_add(off.clamp(-most, most));
        self.shown
    }
}

fn steady_nanos() -> i64 {
    let time = clock_gettime(STEADY);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

fn system_nanos() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A clock that stands still until it is advanced: for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Makes a clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let mut now = self.0.lock();
        *now = now.saturating_add(duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_oneof, proptest};

    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600 * SECOND;

    fn system_now() -> Timestamp {
        Timestamp::from_nanos(system_nanos())
    }

    #[test]
    fn the_system_clock_never_goes_back_and_starts_no_earlier_than_told() {
        let earliest = system_now().saturating_add(Duration::from_secs(60));
        let clock = SystemClock::start(earliest);
        let mut last = earliest;
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!((-60.1..-50.0).contains(&clock.offset_seconds()), "{}", clock.offset_seconds());
    }

    #[test]
    fn a_recorded_time_far_ahead_is_ignored() {
        let earliest = system_now().saturating_add(2 * MAX_AHEAD);
        let clock = SystemClock::start(earliest);
        assert!(earliest.saturating_since(clock.now()) > MAX_AHEAD);
    }

    /// Steps the system's clock by `off`, and reads the clock every `every` nanoseconds for `duration`; returns the
    /// difference that is left.
    fn left_after(off: i64, every: i64, duration: i64) -> i64 {
        let mut slew = Slew { at: 0, shown: 0, credit: 0 };
        let mut at = 0;
        while at < duration {
            at += every;
            slew.advance(at, at + off);
        }
        at + off - slew.shown
    }

    #[test]
    fn the_correction_does_not_depend_on_how_often_the_clock_is_read() {
        const MILLI: i64 = 1_000_000;
        for every in [7, 100, 1999, 10 * MILLI] {
            let left = left_after(SECOND / 2, every, 10 * MILLI);
            let gained = SECOND / 2 - left;
            assert!((4_990..=5_010).contains(&gained), "every {every} ns: {gained}");
        }
    }

    #[test]
    fn a_step_of_an_hour_is_corrected_in_a_day_and_a_small_one_slowly() {
        for off in [HOUR, -HOUR] {
            assert!(left_after(off, SECOND, 19 * HOUR).abs() > 0);
            assert_eq!(left_after(off, SECOND, 21 * HOUR), 0);
        }
        assert_eq!(left_after(SECOND, SECOND, 100 * SECOND), SECOND - SECOND / 20);
    }

    fn durations() -> impl Strategy<Value = i64> {
        prop_oneof![0..3_i64, 0..5_000_i64, 0..SECOND, 0..100 * HOUR]
    }

    proptest! {
        #[test]
        fn the_clock_runs_evenly_whatever_the_system_clock_does(
            steps in vec((durations(), -10 * HOUR..10 * HOUR), 1..50),
        ) {
            let mut slew = Slew { at: 0, shown: 100 * HOUR, credit: 0 };
            let mut at = 0;
            for (passed, system) in steps {
                let before = slew.shown;
                at += passed;
                let gained = slew.advance(at, 100 * HOUR + at + system) - before;
                assert!(gained >= 0);
                assert!((gained - passed).abs() <= passed / 20 + 1, "{gained} in {passed}");
            }
        }
    }
}
