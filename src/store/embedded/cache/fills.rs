//! Whose turn it is to make a value that others wait for.
//!
//! Invariant: at most one turn for a key at a time, and none is longer than its time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::model::cache::{CacheKey, FillToken};
use crate::model::time::Timestamp;
use crate::store::FillOutcome;

/// So many turns are remembered; who asks beyond that gets a turn that nobody else knows of.
const TURNS: usize = 100_000;

/// How often all turns are looked at for those that are over, when there are so many: it takes a
/// millisecond, and turns may be long.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Turn {
    token: FillToken,
    expires_at: Timestamp,
}

/// The turns.
#[derive(Debug)]
pub(super) struct Fills(Mutex<State>);

#[derive(Debug)]
struct State {
    last: u64,
    swept_at: Timestamp,
    turns: HashMap<CacheKey, Turn, RandomState>,
}

impl Fills {
    /// Starts a life at `now`. Its tokens begin there, in nanoseconds, so that one of an earlier life
    /// does not end a turn of this one: turns are given more slowly than that.
    pub(super) fn start_life(now: Timestamp) -> Self {
        let last = u64::try_from(now.as_nanos()).unwrap_or(0);
        Self(Mutex::new(State { last, swept_at: Timestamp::MIN, turns: HashMap::default() }))
    }

    /// Takes the turn until `expires_at`, unless somebody has it at `now`.
    pub(super) fn claim(
        &self,
        key: &CacheKey,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> FillOutcome {
        let mut state = self.0.lock();
        if state.turns.len() >= TURNS && state.swept_at.saturating_add(SWEEP) <= now {
            state.swept_at = now;
            state.turns.retain(|_, turn| now < turn.expires_at);
        }
        let full = state.turns.len() >= TURNS;
        state.last += 1;
        let turn = Turn { token: FillToken(state.last), expires_at };
        match state.turns.entry(key.clone()) {
            Entry::Occupied(held) if now < held.get().expires_at => {
                return FillOutcome::Held { expires_at: held.get().expires_at };
            }
            Entry::Occupied(mut over) => {
                over.insert(turn);
            }
            Entry::Vacant(_) if full => {}
            Entry::Vacant(free) => {
                free.insert(turn);
            }
        }
        FillOutcome::Granted { token: turn.token, expires_at }
    }

    /// Ends the turn at a key, that of `token` only where one is given; tells whether it was
    /// there.
    pub(super) fn end(&self, key: &CacheKey, token: Option<FillToken>) -> bool {
        let mut state = self.0.lock();
        let theirs = |turn: &Turn| token.is_none_or(|token| turn.token == token);
        let ends = state.turns.get(key).is_some_and(theirs);
        if ends {
            state.turns.remove(key);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::Namespace;

    const SECOND: i64 = 1_000_000_000;

    /// Takes the turn at the n-th key until `over`, both in seconds; tells whether it was free.
    fn claim(fills: &Fills, n: usize, (now, over): (i64, i64)) -> bool {
        let namespace = Namespace::parse("n").expect("valid");
        let key = CacheKey::parse(namespace, n.to_string()).expect("valid");
        let at = |seconds| Timestamp::from_nanos(seconds * SECOND);
        matches!(fills.claim(&key, at(now), at(over)), FillOutcome::Granted { .. })
    }

    #[test]
    fn turns_are_bounded_and_those_that_are_over_make_room_once_a_second() {
        let fills = Fills::start_life(Timestamp::from_nanos(0));
        for n in 0..TURNS {
            assert!(claim(&fills, n, (0, 100)));
        }
        // They are kept, and further ones are given but not remembered.
        for n in [TURNS, TURNS, TURNS + 1] {
            assert!(claim(&fills, n, (99, 200)));
        }
        assert!(!claim(&fills, 0, (99, 200)));
        assert_eq!(fills.0.lock().turns.len(), TURNS);
        assert!(claim(&fills, TURNS, (100, 200)));
        assert_eq!(fills.0.lock().turns.len(), 1);
        for n in 0..TURNS {
            claim(&fills, n, (100, 100));
        }
        // All but one are over, but it is too soon to look at all of them again.
        assert!(claim(&fills, TURNS + 1, (100, 200)) && claim(&fills, TURNS + 1, (100, 200)));
        assert!(claim(&fills, TURNS + 1, (101, 200)) && !claim(&fills, TURNS + 1, (101, 200)));
        assert_eq!(fills.0.lock().turns.len(), 2);
    }
}
