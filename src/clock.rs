//! The server's clock: one value that is passed in, and that tests replace.
//!
//! Invariant: no clock ever goes back, and the system clock's steps reach it only slowly,
//! so that a lease that was promised for a while is not over at once because an
//! administrator, or NTP, set the time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::model::time::Timestamp;

/// Tells the time. See the module's invariant.
pub trait Clock: Send + Sync {
    /// Gives the time now; never earlier than what it gave before.
    fn now(&self) -> Timestamp;
}

/// A clock as it is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// How much of the time that has passed may be used to approach the system clock: 500 ppm,
/// the rate at which `adjtime` slews.
const SLEW_DIVISOR: i64 = 2000;

/// Follows the system clock by the monotonic clock: set once at start, then corrected by at
/// most 500 ppm.
#[derive(Debug)]
pub struct SystemClock {
    state: Mutex<Slew>,
}

#[derive(Debug)]
struct Slew {
    at: Instant,
    shown_nanos: i64,
}

impl SystemClock {
    /// Starts the clock at the system's time, but not before `floor`: the latest time that an
    /// earlier run of the server is known to have shown.
    pub fn start(floor: Timestamp) -> Self {
        let shown_nanos = system_nanos().max(floor.as_nanos());
        Self { state: Mutex::new(Slew { at: Instant::now(), shown_nanos }) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        let at = Instant::now();
        let passed = nanos(at.duration_since(state.at));
        let shown = state.shown_nanos.saturating_add(passed);
        let off = system_nanos().saturating_sub(shown);
        let most = passed / SLEW_DIVISOR;
        state.at = at;
        state.shown_nanos = shown.saturating_add(off.clamp(-most, most));
        Timestamp::from_nanos(state.shown_nanos)
    }
}

fn system_nanos() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos)
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
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
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back_and_starts_at_its_floor() {
        let floor = Timestamp::from_nanos(system_nanos()).saturating_add(Duration::from_secs(60));
        let clock = SystemClock::start(floor);
        let mut last = floor;
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
