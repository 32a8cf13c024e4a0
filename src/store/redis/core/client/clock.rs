//! What is known of the clocks of the servers, so that a command can carry the time at which its caller gives
//! up, in the server's own time.
//!
//! Not a clock: nothing expires by it. A reply that carries the server's time is a sample: that time lies
//! between sending and receiving. Invariant: a deadline is never later in the server's time than the caller's own
//! one, as far as the newest sample holds; where nothing is known it is 0, so that the server refuses, and its
//! refusal is a sample.

use std::time::Instant;

use parking_lot::Mutex;

/// How much a clock may run faster or slower than ours, as one part of so many.
const DRIFT: u128 = 1_000;

/// The time of a server at one moment of ours: between `earliest_us` and `width_us` more.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    earliest_us: i64,
    width_us: i64,
}

/// The clocks of the servers that a client talks to.
#[derive(Debug)]
pub(super) struct ServerClocks(Vec<Mutex<Option<Sample>>>);

impl ServerClocks {
    /// Makes `count` clocks of which nothing is known.
    pub(super) fn new(count: usize) -> Self {
        Self((0..count.max(1)).map(|_| Mutex::default()).collect())
    }

    fn slot(&self, index: usize) -> &Mutex<Option<Sample>> {
        &self.0[index % self.0.len()]
    }

    /// Returns `deadline` in microseconds of the server's time, or 0 where nothing is known of its clock.
    pub(super) fn deadline_us(&self, index: usize, deadline: Instant) -> i64 {
        let Some(sample) = *self.slot(index).lock() else { return 0 };
        sample.earliest_us.saturating_add(micros(deadline.saturating_duration_since(sample.at)))
    }

    /// Notes the time that a server told in a reply.
    pub(super) fn note(&self, index: usize, sent: Instant, received: Instant, server_us: i64) {
        let width_us = micros(received.saturating_duration_since(sent));
        let new = Sample { at: received, earliest_us: server_us, width_us };
        let mut known = self.slot(index).lock();
        if known.is_none_or(|old| replaces(new, old)) {
            *known = Some(new);
        }
    }

    /// Forgets all clocks: another server may be behind the same address.
    pub(super) fn forget(&self) {
        for slot in &self.0 {
            *slot.lock() = None;
        }
    }
}

/// Returns whether a new sample says more than an old one: it is as narrow, or the old one cannot be true any more
/// since a clock was set.
fn replaces(new: Sample, old: Sample) -> bool {
    let age = new.at.saturating_duration_since(old.at);
    let age_us = micros(age);
    let drift_us = i64::try_from(age.as_micros() / DRIFT).unwrap_or(i64::MAX);
    let earliest = old.earliest_us.saturating_add(age_us).saturating_sub(drift_us);
    let latest = old
        .earliest_us
        .saturating_add(old.width_us)
        .saturating_add(age_us)
        .saturating_add(drift_us);
    let contradicts = new.earliest_us > latest || new.earliest_us + new.width_us < earliest;
    contradicts || new.width_us <= old.width_us.saturating_add(drift_us)
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn an_unknown_clock_refuses_everything() {
        let clocks = ServerClocks::new(1);
        assert_eq!(clocks.deadline_us(0, Instant::now() + MS), 0);
        clocks.note(0, Instant::now(), Instant::now(), HOUR_US);
        assert!(clocks.deadline_us(0, Instant::now() + MS) >= HOUR_US);
        clocks.forget();
        assert_eq!(clocks.deadline_us(0, Instant::now() + MS), 0);
    }

    #[test]
    fn a_deadline_is_never_later_than_the_callers_own() {
        // The server's clock shows an hour when ours shows `start`; a sample was taken anywhere on its way.
        let start = Instant::now();
        for (sent, taken, received) in [(0, 0, 100), (0, 50, 100), (0, 100, 100)] {
            let clocks = ServerClocks::new(1);
            let at = |ms: u32| start + MS * ms;
            clocks.note(0, at(sent), at(received), HOUR_US + 1_000 * i64::from(taken));
            let deadline = clocks.deadline_us(0, at(5_000));
            let exact = HOUR_US + 5_000_000;
            assert!(deadline <= exact && deadline >= exact - 100_000, "{taken}: {deadline}");
        }
    }

    #[test]
    fn a_narrow_sample_stays_until_it_is_old_or_contradicted() {
        let start = Instant::now();
        let clocks = ServerClocks::new(1);
        clocks.note(0, start, start + MS, HOUR_US);
        let known = clocks.deadline_us(0, start + MS * 5_000);
        // A wide one that agrees: the reply was slow.
        clocks.note(0, start + MS, start + MS * 101, HOUR_US + 50_000);
        assert_eq!(clocks.deadline_us(0, start + MS * 5_000), known);
        // The server's clock was set back, and forward.
        for set_to in [HOUR_US / 2, 2 * HOUR_US] {
            clocks.note(0, start + MS * 200, start + MS * 400, set_to);
            assert_eq!(clocks.deadline_us(0, start + MS * 400), set_to);
        }
        // After a while, drift counts for more than a slow reply.
        let later = start + Duration::from_secs(600);
        clocks.note(0, later, later + MS * 300, 2 * HOUR_US + 600_000_000);
        assert_eq!(clocks.deadline_us(0, later + MS * 300), 2 * HOUR_US + 600_000_000);
    }
}
