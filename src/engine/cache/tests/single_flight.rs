//! Single flight: which caller makes a value, and which wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{
    Fixture, LONG, MAX_VALUE_BYTES, SHORT, address, bytes_of, claim_in, outcome, patient, seen,
    soon,
};
use crate::engine::EngineError;
use crate::engine::cache::{CacheLookup, FillClaim, FillRequest, Miss};
use crate::model::cache::MissReason;
use crate::store::{FillOutcome, PutOutcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_callers_makes_the_value_and_the_others_get_it() {
    const CALLERS: usize = 50;
    let fixture = Fixture::new();
    let mut lookups: Vec<_> = (0..CALLERS).map(|_| fixture.look_up()).collect();
    fixture.claims(CALLERS).await;
    let claimant = soon(async {
        loop {
            if let Some(done) = lookups.iter().position(JoinHandle::is_finished) {
                return done;
            }
            tokio::task::yield_now().await;
        }
    });
    let claimant = claimant.await;
    assert_eq!(lookups.iter().filter(|lookup| lookup.is_finished()).count(), 1);
    let miss = outcome(lookups.swap_remove(claimant)).await;
    let put = fixture.put(b"made", seen(&miss), claim_in(&miss));
    fixture.stored(put).await;
    for lookup in lookups {
        assert_eq!(bytes_of(&outcome(lookup).await), b"made");
    }
    // Each waiter reads before and after its wait, and the claimant before and after its claim.
    assert_eq!(fixture.store.gets.load(Ordering::SeqCst), 2 * CALLERS);
    assert_eq!(fixture.counted(), (CALLERS as u64 - 1, [1, 0, 0, 0]));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn a_claimant_that_dies_delays_the_others_until_its_claim_expires() {
    let fixture = Fixture::new();
    let (_, lost) = fixture.claim(SHORT).await;
    let next = outcome(fixture.look_up()).await;
    assert!(fixture.clock.now() >= lost.expires_at, "a claim is not taken away");
    let fill = claim_in(&next).expect("the next caller gets the claim");
    assert_ne!(fill.token, lost.token);
}

#[tokio::test]
async fn a_wait_that_ends_returns_the_miss() {
    let fixture = Fixture::new();
    fixture.claim(LONG).await;
    let start = tokio::time::Instant::now();
    let found = soon(fixture.get(Some(FillRequest { ttl: LONG, wait: SHORT }))).await;
    assert!(start.elapsed() >= SHORT);
    assert_eq!(found.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    let found = soon(fixture.get(Some(FillRequest { ttl: LONG, wait: Duration::ZERO }))).await;
    assert_eq!(found.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    let found = soon(fixture.get(None)).await;
    assert_eq!(found.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn a_waiter_that_disconnects_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let (miss, claim) = fixture.claim(LONG).await;
    let mut lookups: Vec<_> = (0..20).map(|_| fixture.look_up()).collect();
    fixture.claims(21).await;
    assert_eq!(fixture.engine.waiters.len(), 1);
    let patient = lookups.swap_remove(0);
    for lookup in &lookups {
        lookup.abort();
    }
    for gone in lookups {
        assert!(soon(gone).await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(fixture.engine.waiters.len(), 1, "one waiter is left");
    fixture.stored(fixture.put(b"v", seen(&miss), Some(claim))).await;
    assert_eq!(bytes_of(&outcome(patient).await), b"v");
    assert_eq!(fixture.engine.waiters.len(), 0);
}

/// Lets one caller have the claim and another wait for it, while `end` ends the claim.
async fn the_claim_passes_on(fixture: &Fixture, end: impl AsyncFnOnce(CacheLookup, FillClaim)) {
    let (miss, claim) = fixture.claim(LONG).await;
    let claims = *fixture.store.claims.borrow();
    let lookup = fixture.look_up();
    fixture.claims(claims + 1).await;
    end(miss, claim).await;
    let next = outcome(lookup).await;
    let next_claim = claim_in(&next).expect("the next caller gets the claim");
    assert_ne!(next_claim.token, claim.token);
    let put = fixture.put(b"next", seen(&next), Some(next_claim));
    fixture.stored(put).await;
    fixture.engine.delete(&address().key).await.expect("it is there");
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn a_put_that_is_refused_passes_the_claim_on() {
    let fixture = Fixture::new();
    the_claim_passes_on(&fixture, async |miss, claim| {
        fixture.bump().await;
        let now = fixture.refused_as_moved(fixture.put(b"old", seen(&miss), Some(claim))).await;
        assert_eq!(now.number, 1);
    })
    .await;
    the_claim_passes_on(&fixture, async |miss, claim| {
        let large = [0; MAX_VALUE_BYTES + 1];
        let put = fixture.put(&large, seen(&miss), Some(claim));
        let limit_bytes = match fixture.engine.put(put).await.expect("the store works") {
            PutOutcome::TooLarge { limit_bytes } => limit_bytes,
            outcome => panic!("{outcome:?}"),
        };
        assert_eq!(limit_bytes, MAX_VALUE_BYTES);
    })
    .await;
}

#[tokio::test]
async fn a_put_that_fails_passes_the_claim_on() {
    let fixture = Fixture::new();
    the_claim_passes_on(&fixture, async |miss, claim| {
        fixture.store.fails_to_put.store(true, Ordering::SeqCst);
        let failed = fixture.engine.put(fixture.put(b"v", seen(&miss), Some(claim))).await;
        assert!(matches!(failed, Err(EngineError::Store(_))), "{failed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_delete_passes_the_claim_on() {
    let fixture = Fixture::new();
    the_claim_passes_on(&fixture, async |_, _| {
        let absent = fixture.engine.delete(&address().key).await;
        assert!(matches!(absent, Err(EngineError::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_value_that_is_put_without_the_claim_reaches_the_waiters() {
    let fixture = Fixture::new();
    let (miss, _) = fixture.claim(LONG).await;
    let lookup = fixture.look_up();
    fixture.claims(2).await;
    fixture.stored(fixture.put(b"v", seen(&miss), None)).await;
    assert_eq!(bytes_of(&outcome(lookup).await), b"v");
}

#[tokio::test]
async fn a_value_that_is_put_between_the_read_and_the_claim_is_returned() {
    let fixture = Fixture::new();
    let miss = fixture.get(None).await;
    let (put, inner) = (fixture.put(b"v", seen(&miss), None), Arc::clone(&fixture.store.inner));
    *fixture.store.before_claim.lock() = Some(Box::new(move || {
        Box::pin(async move { drop(inner.put(put).await.expect("the store works")) })
    }));
    assert_eq!(bytes_of(&soon(fixture.get(patient(LONG))).await), b"v");
    // And the claim, which was not needed, has ended.
    let claimed = fixture.store.inner.claim_fill(&address().key, LONG).await;
    assert!(matches!(claimed, Ok(FillOutcome::Granted { .. })), "{claimed:?}");
}

#[tokio::test]
async fn a_value_that_is_put_just_before_the_wait_is_not_missed() {
    let fixture = Fixture::new();
    let (miss, claim) = fixture.claim(LONG).await;
    let put = fixture.put(b"v", seen(&miss), Some(claim));
    let engine = Arc::clone(&fixture.engine);
    *fixture.store.after_claim.lock() = Some(Box::new(move || {
        Box::pin(async move { drop(engine.put(put).await.expect("the store works")) })
    }));
    assert_eq!(bytes_of(&soon(fixture.get(patient(LONG))).await), b"v");
}

#[tokio::test]
async fn a_value_of_another_replica_is_found_without_a_wake_up() {
    let fixture = Fixture::with(true);
    let (miss, claim) = fixture.claim(LONG).await;
    let lookup = fixture.look_up();
    fixture.claims(2).await;
    let put = fixture.put(b"v", seen(&miss), Some(claim));
    fixture.store.inner.put(put).await.expect("the store works");
    assert_eq!(bytes_of(&outcome(lookup).await), b"v");
}
