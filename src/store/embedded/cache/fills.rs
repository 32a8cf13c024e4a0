//! Fill claims: who makes a value that others are waiting for (single flight).
//!
//! Invariant: at most one claim for a key at a time, and none outlives its end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::clock::Moment;
use crate::model::cache::{CacheKey, FillToken};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::FillOutcome;

/// So many claims are remembered; beyond that a claim is granted and not remembered.
const CLAIMS: usize = 100_000;

/// How often expired claims are removed when there are so many: it takes a millisecond, and claims
/// may be long.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Claim {
    token: FillToken,
    expires_at: SteadyTime,
}

/// The claims.
#[derive(Debug)]
pub(super) struct Fills(Mutex<State>);

#[derive(Debug)]
struct State {
    last: u64,
    /// Never where `None`.
    swept_at: Option<SteadyTime>,
    claims: HashMap<CacheKey, Claim, RandomState>,
}

impl Fills {
    /// Begins an epoch at the system's time `now`. Its tokens start there, in nanoseconds, so that a token of an earlier
    /// epoch does not end a claim of this one: fewer than one claim is granted in a nanosecond.
    pub(super) fn begin_epoch(now: Timestamp) -> Self {
        let last = u64::try_from(now.as_nanos()).unwrap_or(0);
        Self(Mutex::new(State { last, swept_at: None, claims: HashMap::default() }))
    }

    /// Grants the claim until `expires_at`, unless it is held at `now`.
    pub(super) fn claim(&self, key: &CacheKey, now: Moment, expires_at: SteadyTime) -> FillOutcome {
        let mut state = self.0.lock();
        let is_due = |swept_at: SteadyTime| swept_at.saturating_add(SWEEP) <= now.steady;
        if state.claims.len() >= CLAIMS && state.swept_at.is_none_or(is_due) {
            state.swept_at = Some(now.steady);
            state.claims.retain(|_, claim| now.steady < claim.expires_at);
        }
        let full = state.claims.len() >= CLAIMS;
        state.last += 1;
        let claim = Claim { token: FillToken(state.last), expires_at };
        match state.claims.entry(key.clone()) {
            Entry::Occupied(held) if now.steady < held.get().expires_at => {
                return FillOutcome::Held { expires_at: now.shown(held.get().expires_at) };
            }
            Entry::Occupied(mut expired) => {
                expired.insert(claim);
            }
            Entry::Vacant(_) if full => {}
            Entry::Vacant(free) => {
                free.insert(claim);
            }
        }
        FillOutcome::Granted { token: claim.token, expires_at: now.shown(expires_at) }
    }

    /// Returns the last token that was granted; all later ones are greater.
    pub(super) fn last(&self) -> FillToken {
        FillToken(self.0.lock().last)
    }

    /// Ends the claim for a key, unless it was granted after that of `last`.
    pub(super) fn end_until(&self, key: &CacheKey, last: FillToken) {
        let mut state = self.0.lock();
        if state.claims.get(key).is_some_and(|claim| claim.token.0 <= last.0) {
            state.claims.remove(key);
        }
    }

    /// Ends the claim for a key, if it is that of `token` where one is given; returns whether there
    /// was one.
    pub(super) fn end(&self, key: &CacheKey, token: Option<FillToken>) -> bool {
        let mut state = self.0.lock();
        let is_named = |claim: &Claim| token.is_none_or(|token| claim.token == token);
        let ends = state.claims.get(key).is_some_and(is_named);
        if ends {
            state.claims.remove(key);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::Namespace;

    const SECOND: i64 = 1_000_000_000;

    /// Claims the n-th key until `end`, both in seconds; returns whether it was free.
    fn claim(fills: &Fills, n: usize, (now, end): (i64, i64)) -> bool {
        let namespace = Namespace::parse("n").expect("valid");
        let key = CacheKey::parse(namespace, n.to_string()).expect("valid");
        let at = |seconds| SteadyTime::from_nanos(seconds * SECOND);
        let now = Moment { steady: at(now), system: Timestamp::from_nanos(0) };
        matches!(fills.claim(&key, now, at(end)), FillOutcome::Granted { .. })
    }

    #[test]
    fn a_put_ends_the_claims_that_were_granted_before_it() {
        let fills = Fills::begin_epoch(Timestamp::from_nanos(0));
        let namespace = Namespace::parse("n").expect("valid");
        let key = CacheKey::parse(namespace, "1").expect("valid");
        assert!(claim(&fills, 1, (0, 100)));
        let put = fills.last();
        fills.end_until(&key, put);
        assert!(claim(&fills, 1, (0, 100)));
        fills.end_until(&key, put);
        assert!(!claim(&fills, 1, (0, 100)));
    }

    #[test]
    fn claims_are_bounded_and_expired_ones_make_room_once_a_second() {
        let fills = Fills::begin_epoch(Timestamp::from_nanos(0));
        for n in 0..CLAIMS {
            assert!(claim(&fills, n, (0, 100)));
        }
        // They are kept, and further ones are granted but not remembered.
        for n in [CLAIMS, CLAIMS, CLAIMS + 1] {
            assert!(claim(&fills, n, (99, 200)));
        }
        assert!(!claim(&fills, 0, (99, 200)));
        assert_eq!(fills.0.lock().claims.len(), CLAIMS);
        assert!(claim(&fills, CLAIMS, (100, 200)));
        assert_eq!(fills.0.lock().claims.len(), 1);
        for n in 0..CLAIMS {
            claim(&fills, n, (100, 100));
        }
        // All but one have expired, but it is too soon to remove them.
        assert!(claim(&fills, CLAIMS + 1, (100, 200)) && claim(&fills, CLAIMS + 1, (100, 200)));
        assert!(claim(&fills, CLAIMS + 1, (101, 200)) && !claim(&fills, CLAIMS + 1, (101, 200)));
        assert_eq!(fills.0.lock().claims.len(), 2);
    }
}
