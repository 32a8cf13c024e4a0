//! The server's clock: one value that is passed in, and that tests replace.
//!
//! Invariant: no clock ever goes back, and the system clock's steps reach it only slowly,
//! so that a lease that was promised for a while is not over at once because an
//! administrator, or NTP, set the time. Time that the machine slept through has passed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::model::time::Timestamp;

/// Returns the time. See the module's invariant.
pub trait Clock: Send + Sync {
    /// Returns the time now; never earlier than what it gave before.
    fn now(&self) -> Timestamp;

    /// Returns how far the system's clock is ahead of this one, in seconds; negative when behind.
    fn offset_seconds(&self) -> f64 {
        0.0
    }
}

/// A clock as it is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// Counts the time that passes, also while the machine is suspended: a lease does not live
/// longer because its server slept.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
/// Elsewhere the monotonic clock is what there is.
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// A floor so far ahead of the system's clock was shown by a run whose clock was wrong.
const MAX_FLOOR_AHEAD: Duration = Duration::from_secs(3600);

/// Follows the system's clock by a steady one: set once at start, then corrected slowly, as
/// `Slew` says.
#[derive(Debug)]
pub struct SystemClock {
    state: Mutex<Slew>,
}

impl SystemClock {
    /// Starts the clock at the system's time, but not before `floor`: the latest time that an
    /// earlier run of the server is known to have shown.
    ///
    /// A floor of more than an hour ahead is not honoured, so that one run with a wrong clock
    /// does not spoil all that follow. What that run promised then lasts longer, never shorter.
    pub fn start(floor: Timestamp) -> Self {
        let system = system_nanos();
        let ahead = floor.saturating_since(Timestamp::from_nanos(system));
        let honoured = ahead <= MAX_FLOOR_AHEAD;
        if !honoured {
            tracing::warn!(
                %floor,
                ahead_seconds = ahead.as_secs(),
                "an earlier run showed a time far ahead of the system's clock; it is not followed"
            );
        }
        let shown = if honoured { system.max(floor.as_nanos()) } else { system };
        Self { state: Mutex::new(Slew { at: steady_nanos(), shown, credit: 0 }) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        Timestamp::from_nanos(state.advance(steady_nanos(), system_nanos()))
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds are exact enough to look at")]
    fn offset_seconds(&self) -> f64 {
        let shown = self.now().as_nanos();
        system_nanos().saturating_sub(shown) as f64 / 1e9
    }
}

/// The time that is shown, and how it approaches the system's.
///
/// Up to a second off, it gains or loses 500 ppm, the rate at which `adjtime` slews: nobody's
/// lease is noticeably cut. Farther off, the system's clock was stepped, and 500 ppm would show a
/// wrong time for months; 5 % catches up with an hour in 20 hours, and takes 3 seconds of a
/// lease of a minute.
#[derive(Debug)]
struct Slew {
    /// The steady clock when it was read last.
    at: i64,
    shown: i64,
    /// What was too little to correct by yet, in parts of a nanosecond: a clock that is read many
    /// times in a microsecond must slew all the same.
    credit: i128,
}

const PARTS: i128 = 2_000;
/// 500 ppm, and 5 %.
const SLOW_PARTS: i128 = 1;
const FAST_PARTS: i128 = 100;
const FAST_BEYOND_NANOS: u64 = 1_000_000_000;

impl Slew {
    /// Goes on to the moment at which the steady clock shows `at` and the system's `system`.
    fn advance(&mut self, at: i64, system: i64) -> i64 {
        let passed = at.saturating_sub(self.at).max(0);
        self.at = self.at.max(at);
        self.shown = self.shown.saturating_add(passed);
        let off = system.saturating_sub(self.shown);
        let fast = off.unsigned_abs() > FAST_BEYOND_NANOS;
        let credit = self.credit + i128::from(passed) * if fast { FAST_PARTS } else { SLOW_PARTS };
        self.credit = credit % PARTS;
        // Less than what has passed, so that the clock does not go back.
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

/// A clock that stands still until it is told to move: for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Makes a clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let mut now = self.0.lock();
        *now = now.saturating_add(span);
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
    fn the_system_clock_never_goes_back_and_starts_at_its_floor() {
        let floor = system_now().saturating_add(Duration::from_secs(60));
        let clock = SystemClock::start(floor);
        let mut last = floor;
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!((-60.1..-50.0).contains(&clock.offset_seconds()), "{}", clock.offset_seconds());
    }

    #[test]
    fn a_floor_far_ahead_is_not_followed() {
        let floor = system_now().saturating_add(2 * MAX_FLOOR_AHEAD);
        let clock = SystemClock::start(floor);
        assert!(floor.saturating_since(clock.now()) > MAX_FLOOR_AHEAD);
    }

    /// Steps the system's clock by `off`, and reads every `every` nanoseconds for `span`; gives what
    /// is still missing.
    fn left_after(off: i64, every: i64, span: i64) -> i64 {
        let mut slew = Slew { at: 0, shown: 0, credit: 0 };
        let mut at = 0;
        while at < span {
            at += every;
            slew.advance(at, at + off);
        }
        at + off - slew.shown
    }

    #[test]
    fn a_clock_that_is_read_all_the_time_slews_as_much_as_one_that_is_not() {
        const MILLI: i64 = 1_000_000;
        for every in [7, 100, 1999, 10 * MILLI] {
            let left = left_after(SECOND / 2, every, 10 * MILLI);
            let gained = SECOND / 2 - left;
            assert!((4_990..=5_010).contains(&gained), "every {every} ns: {gained}");
        }
    }

    #[test]
    fn a_step_of_an_hour_is_made_good_in_a_day_and_a_small_one_slowly() {
        for off in [HOUR, -HOUR] {
            assert!(left_after(off, SECOND, 19 * HOUR).abs() > 0);
            assert_eq!(left_after(off, SECOND, 21 * HOUR), 0);
        }
        assert_eq!(left_after(SECOND, SECOND, 100 * SECOND), SECOND - SECOND / 20);
    }

    fn spans() -> impl Strategy<Value = i64> {
        prop_oneof![0..3_i64, 0..5_000_i64, 0..SECOND, 0..100 * HOUR]
    }

    proptest! {
        #[test]
        fn whatever_the_system_does_the_clock_goes_on_evenly(
            steps in vec((spans(), -10 * HOUR..10 * HOUR), 1..50),
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
