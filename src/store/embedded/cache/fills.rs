//! Whose turn it is to make a value that others wait for.
//!
//! Invariant: at most one turn for a key at a time, and none is longer than its time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::model::cache::{CacheKey, FillToken};
use crate::model::time::Timestamp;
use crate::store::FillOutcome;

/// So many turns are remembered; who asks beyond that gets a turn that nobody else knows of.
const TURNS: usize = 100_000;

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
    turns: HashMap<CacheKey, Turn, RandomState>,
}

impl Fills {
    /// Starts a life at `now`. Its tokens begin there, in nanoseconds, so that one of an earlier life
    /// does not end a turn of this one: turns are given more slowly than that.
    pub(super) fn start_life(now: Timestamp) -> Self {
        let last = u64::try_from(now.as_nanos()).unwrap_or(0);
        Self(Mutex::new(State { last, turns: HashMap::default() }))
    }

    /// Takes the turn until `expires_at`, unless somebody has it at `now`.
    pub(super) fn claim(
        &self,
        key: &CacheKey,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> FillOutcome {
        let mut state = self.0.lock();
        if state.turns.len() >= TURNS {
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
