//! The server's two clocks, as one value that is passed in, and that tests replace.
//!
//! The *system's clock* is for stamps, for the check of how far ahead a point is, and for retention. It may be set at
//! any time, by hours or years. The *steady clock* is for everything that ends after a promised duration: leases,
//! locks, ttls. Nobody can set it, it includes the time while the machine was suspended, and it goes on across
//! restarts of the server, see [`SystemClock`].
//! Invariant: what ends is compared with the steady time only; the system's time of an end is computed for each
//! response, and never stored.

mod retention;
mod system;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::retention::RetentionClock;
pub use self::system::SystemClock;
use crate::model::time::{SteadyTime, Timestamp};

/// Both clocks.
pub trait Clock: Send + Sync {
    /// Returns the system's time. It may be earlier than one that was returned before.
    fn now(&self) -> Timestamp;

    /// Returns the steady time; never earlier than one that was returned before.
    fn steady(&self) -> SteadyTime;

    /// Returns how the steady time is related to the machine's present boot.
    fn boot(&self) -> Boot {
        Boot::UNKNOWN
    }

    /// Reads both clocks.
    fn read(&self) -> Moment {
        Moment { steady: self.steady(), system: self.now() }
    }
}

/// Clocks that are shared by the layers.
pub type SharedClock = Arc<dyn Clock>;

/// What both clocks showed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The steady time.
    pub steady: SteadyTime,
    /// The system's time.
    pub system: Timestamp,
}

impl Moment {
    /// Returns when something ends that begins now and lasts for `ttl`: at the first moment after the ttl that is a
    /// whole millisecond of the system's time. Responses show ends in milliseconds, and none may cut a promise short.
    pub fn end_of(self, ttl: Duration) -> SteadyTime {
        const ALMOST_A_MILLI: Duration = Duration::from_nanos(999_999);
        let end = self.system.saturating_add(ttl);
        let whole = end.saturating_add(ALMOST_A_MILLI).floor_to_millis();
        self.steady.saturating_add(ttl).saturating_add(whole.saturating_since(end))
    }

    /// Returns the system's time at which `end` comes, as responses show it: to the nearest millisecond, since the two
    /// clocks are read one after the other.
    pub fn shown(self, end: SteadyTime) -> Timestamp {
        const HALF_A_MILLI: Duration = Duration::from_micros(500);
        let left = end.saturating_since(self.steady);
        let over = self.steady.saturating_since(end);
        let end = self.system.saturating_add(left).saturating_sub(over);
        end.saturating_add(HALF_A_MILLI).floor_to_millis()
    }

    /// Returns how far the system's clock is ahead of the steady one, in nanoseconds.
    pub fn offset_nanos(self) -> i64 {
        self.system.as_nanos().saturating_sub(self.steady.as_nanos())
    }
}

/// How a run of the server counted its steady time on one boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Identifies the boot; 0 where it is not known.
    pub id: i64,
    /// How far the steady time was ahead of the time since the boot, in nanoseconds.
    pub offset_nanos: i64,
}

impl Boot {
    /// A boot that no later run can recognise.
    pub const UNKNOWN: Self = Self { id: 0, offset_nanos: 0 };
}

/// What the last durable write of an earlier run recorded about the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCommit {
    /// The time of the write.
    pub at: Moment,
    /// The boot that the run was on.
    pub boot: Boot,
}

/// Clocks that stand still until they are moved: for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Moment>);

impl ManualClock {
    /// Makes clocks whose system's time is `now`. The steady one shows the same number, as in a new store.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(Moment { steady: SteadyTime::starting_at(now), system: now }))
    }

    /// Lets time pass: moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        let mut moment = self.0.lock();
        moment.steady = moment.steady.saturating_add(duration);
        moment.system = moment.system.saturating_add(duration);
    }

    /// Sets the system's clock, as an administrator or NTP does; no time passes.
    pub fn set_system(&self, now: Timestamp) {
        self.0.lock().system = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.lock().system
    }

    fn steady(&self) -> SteadyTime {
        self.0.lock().steady
    }

    fn read(&self) -> Moment {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(nanos: i64) -> Moment {
        let system = Timestamp::from_nanos(nanos);
        Moment { steady: SteadyTime::starting_at(Timestamp::from_nanos(7)), system }
    }

    #[test]
    fn an_end_is_a_whole_millisecond_of_the_system_and_no_earlier_than_promised() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001] {
            let now = at(nanos);
            let end = now.end_of(HOUR);
            let more = end.saturating_since(now.steady) - HOUR;
            assert!(more < Duration::from_millis(1), "{nanos}: {more:?}");
            let shown = now.shown(end);
            assert_eq!(shown.saturating_since(now.system), HOUR + more);
            assert_eq!(shown, shown.floor_to_millis());
        }
    }

    #[test]
    fn an_end_is_shown_by_the_system_clock_of_the_response() {
        let clock = ManualClock::at(Timestamp::from_nanos(0));
        let end = clock.read().end_of(HOUR);
        clock.advance(HOUR / 2);
        clock.set_system(clock.now().saturating_add(24 * HOUR));
        let shown = clock.read().shown(end);
        assert_eq!(shown.saturating_since(clock.now()), HOUR / 2);
        clock.advance(HOUR);
        assert_eq!(clock.now().saturating_since(clock.read().shown(end)), HOUR / 2);
        // Read a moment apart, the clocks still show the same millisecond.
        let late = Moment {
            steady: clock.steady().saturating_add(Duration::from_micros(9)),
            ..clock.read()
        };
        assert_eq!(late.shown(end), clock.read().shown(end));
    }
}
