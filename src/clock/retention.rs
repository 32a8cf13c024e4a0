//! The time by which series expire: the system's, but not right after that was set forward.
//!
//! A sample's time is the system's, of this server or of a client, and a series expires when its newest sample is
//! older than the retention. When the system's clock is set forward by more than that, this would expire all series at
//! once, whether the clock was wrong before or is wrong now. So a step forward counts only after another retention:
//! by then each series that has not expired was updated, or has been held for the retention.
//! Invariant: a step of the system's clock expires no series that was updated less than a retention ago.

use std::time::Duration;

use parking_lot::Mutex;

use super::{Moment, SharedClock};
use crate::model::time::{SteadyTime, Timestamp};

/// A smaller change of the system's clock is no step: it is followed at once.
const STEP_NANOS: i64 = 1_000_000_000;

/// The time by which series expire.
pub struct RetentionClock {
    clock: SharedClock,
    retention: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How far the system's clock was ahead of the steady one, before a step that does not count yet.
    offset_nanos: i64,
    /// When the last step forward was seen.
    stepped_at: Option<(SteadyTime, i64)>,
}

impl RetentionClock {
    /// Starts at `before`: what both clocks showed earlier, where nothing but time has passed since on the steady one.
    pub fn start(clock: SharedClock, retention: Duration, before: Moment) -> Self {
        let state = State { offset_nanos: before.offset_nanos(), stepped_at: None };
        Self { clock, retention, state: Mutex::new(state) }
    }

    /// Returns the time by which series expire at `now`; never later than the system's.
    pub fn at(&self, now: Moment) -> Timestamp {
        let mut state = self.state.lock();
        state.follow(now, self.retention);
        let ahead = now.offset_nanos().saturating_sub(state.offset_nanos).max(0);
        now.system.saturating_sub(Duration::from_nanos(ahead.unsigned_abs()))
    }

    /// Returns the time by which series expire now.
    pub fn now(&self) -> Timestamp {
        self.at(self.clock.read())
    }
}

impl State {
    fn follow(&mut self, now: Moment, retention: Duration) {
        let offset = now.offset_nanos();
        if offset.saturating_sub(self.offset_nanos) < STEP_NANOS {
            // Set back, or hardly at all: no series expires early by that.
            *self = Self { offset_nanos: offset, stepped_at: None };
            return;
        }
        match self.stepped_at {
            // A second step on top counts later than the first, and the first not earlier.
            Some((at, to)) if offset.saturating_sub(to) < STEP_NANOS => {
                if now.steady.saturating_since(at) >= retention {
                    *self = Self { offset_nanos: offset, stepped_at: None };
                }
            }
            _ => self.stepped_at = Some((now.steady, offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> (Arc<ManualClock>, RetentionClock) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1 << 60)));
        let retention = RetentionClock::start(Arc::clone(&clock) as _, HOUR, clock.read());
        (clock, retention)
    }

    fn step(clock: &ManualClock, by: Duration) {
        clock.set_system(clock.now().saturating_add(by));
    }

    #[test]
    fn it_is_the_system_time_while_that_is_not_set_forward() {
        let (clock, retention) = start();
        for _ in 0..3 {
            clock.advance(HOUR);
            step(&clock, Duration::from_millis(999));
            assert_eq!(retention.now(), clock.now());
            clock.set_system(clock.now().saturating_sub(48 * HOUR));
            assert_eq!(retention.now(), clock.now());
        }
    }

    #[test]
    fn a_step_forward_counts_after_a_retention() {
        let (clock, retention) = start();
        let before = clock.now();
        step(&clock, 48 * HOUR);
        assert_eq!(retention.now(), before);
        clock.advance(HOUR - Duration::from_nanos(1));
        assert_eq!(retention.now(), before.saturating_add(HOUR - Duration::from_nanos(1)));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(retention.now(), clock.now());
    }

    #[test]
    fn a_second_step_waits_for_itself_and_a_step_that_is_undone_never_counts() {
        let (clock, retention) = start();
        let before = clock.now();
        step(&clock, 48 * HOUR);
        assert_eq!(retention.now(), before);
        clock.advance(HOUR / 2);
        step(&clock, 48 * HOUR);
        assert_eq!(retention.now(), before.saturating_add(HOUR / 2));
        clock.advance(HOUR / 2);
        assert_eq!(retention.now(), before.saturating_add(HOUR));
        clock.set_system(clock.now().saturating_sub(96 * HOUR));
        clock.advance(HOUR);
        assert_eq!(retention.now(), before.saturating_add(2 * HOUR));
        assert_eq!(retention.now(), clock.now());
    }
}
