//! What every cache must do with turns at filling.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::cache::FillToken;
use holdall::model::generations::Seen;
use holdall::store::{CacheAddress, CachePut, CacheStore, FillOutcome, PutOutcome};

use super::cache::{a_put, address, fill, seen};
use super::fixture::{CACHE_BYTES, Fixture};
use super::generations::bump;

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            one_of_many_callers_gets_the_fill_claim,
            a_fill_claim_ends_by_its_put_its_token_a_delete_or_its_end,
            a_refused_put_ends_its_own_fill_claim_only,
            an_expired_token_does_not_end_the_next_fill_claim,
            a_token_of_an_earlier_start_ends_nothing,
        }
    };
}
pub(super) use cases;

const TTL: Duration = Duration::from_millis(800);

async fn claim(store: &Arc<dyn CacheStore>, address: &CacheAddress, ttl: Duration) -> FillOutcome {
    store.claim_fill(&address.key, ttl).await.expect("the store works")
}

async fn granted(store: &Arc<dyn CacheStore>, address: &CacheAddress) -> FillToken {
    match claim(store, address, TTL).await {
        FillOutcome::Granted { token, .. } => token,
        FillOutcome::Held { .. } => panic!("another caller has the claim"),
    }
}

async fn is_held(store: &Arc<dyn CacheStore>, address: &CacheAddress) -> bool {
    matches!(claim(store, address, TTL).await, FillOutcome::Held { .. })
}

async fn end(store: &Arc<dyn CacheStore>, address: &CacheAddress, token: FillToken) -> bool {
    store.end_fill(&address.key, token).await.expect("the store works")
}

pub(super) async fn one_of_many_callers_gets_the_fill_claim(fixture: Fixture) {
    for round in 0..20 {
        let callers: Vec<_> = (0..30)
            .map(|_| {
                let store = Arc::clone(&fixture.stores.cache);
                let address = address("n", &format!("{round}"));
                tokio::spawn(async move { claim(&store, &address, TTL).await })
            })
            .collect();
        let mut ends = Vec::new();
        let mut granted = Vec::new();
        for caller in callers {
            match caller.await.expect("does not panic") {
                FillOutcome::Granted { expires_at, .. } => granted.push(expires_at),
                FillOutcome::Held { expires_at } => ends.push(expires_at),
            }
        }
        assert_eq!(granted.len(), 1);
        assert!(ends.iter().all(|end| *end == granted[0]));
    }
    assert!(!is_held(&fixture.stores.cache, &address("m", "0")).await, "it is another key");
}

pub(super) async fn a_fill_claim_ends_by_its_put_its_token_a_delete_or_its_end(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");

    let token = granted(store, &address).await;
    let put =
        CachePut { fill: Some(token), ..a_put(&address, seen(&fixture, &address).await, "v") };
    store.put(put).await.expect("the store works");
    assert!(!end(store, &address, token).await);

    // A value that was put without a claim is found as well.
    let token = granted(store, &address).await;
    fill(&fixture, &address, "w").await;
    assert!(!end(store, &address, token).await);

    let token = granted(store, &address).await;
    assert!(end(store, &address, token).await);
    assert!(!end(store, &address, token).await);

    let token = granted(store, &address).await;
    assert!(store.delete(&address.key).await.expect("the store works"));
    assert!(!end(store, &address, token).await);

    granted(store, &address).await;
    fixture.pass(TTL / 2).await;
    assert!(is_held(store, &address).await);
    fixture.pass(TTL / 2).await;
    granted(store, &address).await;
}

pub(super) async fn a_refused_put_ends_its_own_fill_claim_only(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    let refused = async |token: Option<FillToken>, bytes: usize, seen: Seen| {
        let put = CachePut { fill: token, ..a_put(&address, seen, vec![0; bytes]) };
        let outcome = store.put(put).await.expect("the store works");
        assert!(!matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
    };
    let old = seen(&fixture, &address).await;
    bump(&fixture.stores.generations, "k").await;
    let now = seen(&fixture, &address).await;
    let token = granted(store, &address).await;
    refused(None, 1, old).await;
    refused(Some(FillToken(token.0 ^ 1)), 1, old).await;
    assert!(is_held(store, &address).await, "another one's put ended it");
    refused(Some(token), 1, old).await;
    let next = granted(store, &address).await;
    assert_ne!(next, token);
    // The late token of the former claim does not end this one.
    refused(Some(token), 1, old).await;
    assert!(!end(store, &address, token).await);
    assert!(is_held(store, &address).await);
    refused(Some(next), 2 * CACHE_BYTES, now).await;
    assert!(!is_held(store, &address).await);
}

pub(super) async fn an_expired_token_does_not_end_the_next_fill_claim(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    let late = granted(store, &address).await;
    fixture.pass(TTL).await;
    let next = granted(store, &address).await;
    assert!(!end(store, &address, late).await);
    assert!(is_held(store, &address).await);
    assert!(end(store, &address, next).await);
}

pub(super) async fn a_token_of_an_earlier_start_ends_nothing(fixture: Fixture) {
    let address = address("n", "k");
    let late = granted(&fixture.stores.cache, &address).await;
    let Some(fixture) = fixture.restart(TTL).await else { return };
    granted(&fixture.stores.cache, &address).await;
    assert!(!end(&fixture.stores.cache, &address, late).await);
    assert!(is_held(&fixture.stores.cache, &address).await);
}
