//! What every store of locks must do.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::locks::{LockKey, LockKind};
use holdall::store::{LockOutcome, LockStore};

use super::fixture::Fixture;

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            exactly_one_of_many_concurrent_callers_gets_a_lock,
            acquiring_a_held_lock_returns_its_end,
            a_lock_expires_at_its_end_and_not_before,
            a_batch_claims_what_is_free_and_each_key_once,
            the_kinds_are_name_spaces_of_their_own,
            keys_may_contain_anything,
            locks_survive_a_restart,
            expired_locks_are_not_counted,
        }
    };
}
pub(super) use cases;

const TTL: Duration = Duration::from_secs(30);

fn job(key: &str) -> LockKey {
    LockKey::parse(LockKind::Job, key).expect("valid")
}

async fn acquire(store: &Arc<dyn LockStore>, key: LockKey) -> LockOutcome {
    let outcomes = store.acquire(vec![key], TTL).await.expect("the store works");
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

pub(super) async fn exactly_one_of_many_concurrent_callers_gets_a_lock(fixture: Fixture) {
    for round in 0..20 {
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let store = Arc::clone(&fixture.stores.locks);
                tokio::spawn(async move { acquire(&store, job(&format!("job {round}"))).await })
            })
            .collect();
        let mut winners = 0;
        for caller in callers {
            winners += usize::from(caller.await.expect("does not panic").acquired);
        }
        assert_eq!(winners, 1);
    }
}

pub(super) async fn acquiring_a_held_lock_returns_its_end(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert_eq!(store.get(&job("a")).await.expect("the store works"), None);
    let first = acquire(store, job("a")).await;
    assert!(first.acquired);
    fixture.pass(TTL / 2).await;
    let second = acquire(store, job("a")).await;
    assert_eq!(second, LockOutcome { acquired: false, expires_at: first.expires_at });
    assert_eq!(store.get(&job("a")).await.expect("the store works"), Some(first.expires_at));
}

pub(super) async fn a_lock_expires_at_its_end_and_not_before(fixture: Fixture) {
    // Not at a whole millisecond, so that rounding shows.
    fixture.pass(Duration::from_nanos(1)).await;
    let store = &fixture.stores.locks;
    let start = fixture.clock.now();
    let ends = acquire(store, job("a")).await.expires_at;
    assert!(ends >= start.saturating_add(TTL), "it ends before what was promised");
    fixture.pass(ends.saturating_since(start) - Duration::from_nanos(1)).await;
    assert!(!acquire(store, job("a")).await.acquired);
    fixture.pass(Duration::from_nanos(1)).await;
    assert_eq!(store.get(&job("a")).await.expect("the store works"), None);
    assert!(acquire(store, job("a")).await.acquired);
}

pub(super) async fn a_batch_claims_what_is_free_and_each_key_once(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert!(acquire(store, job("b")).await.acquired);
    let keys = ["a", "b", "c", "a"].map(job).to_vec();
    let outcomes = store.acquire(keys, TTL).await.expect("the store works");
    let acquired: Vec<bool> = outcomes.iter().map(|outcome| outcome.acquired).collect();
    assert_eq!(acquired, [true, false, true, false]);
    assert!(store.acquire(Vec::new(), TTL).await.expect("the store works").is_empty());
}

pub(super) async fn the_kinds_are_name_spaces_of_their_own(fixture: Fixture) {
    let store = &fixture.stores.locks;
    let dedup = LockKey::parse(LockKind::Dedup, "a").expect("valid");
    assert!(acquire(store, job("a")).await.acquired);
    assert!(acquire(store, dedup.clone()).await.acquired);
    assert!(!acquire(store, dedup).await.acquired);
}

pub(super) async fn keys_may_contain_anything(fixture: Fixture) {
    let store = &fixture.stores.locks;
    let long = "k".repeat(1024);
    let keys = ["a/b", "a", "a\0", "\"a\"", " a", "ä", "A", "job:a", "{a}", &long];
    for key in keys {
        assert!(acquire(store, job(key)).await.acquired, "{key:?}");
    }
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    for key in keys {
        assert!(!acquire(&fixture.stores.locks, job(key)).await.acquired, "{key:?}");
    }
}

pub(super) async fn locks_survive_a_restart(fixture: Fixture) {
    let ends = acquire(&fixture.stores.locks, job("a")).await.expires_at;
    let Some(fixture) = fixture.restart(TTL / 2).await else { return };
    let again = acquire(&fixture.stores.locks, job("a")).await;
    assert_eq!(again, LockOutcome { acquired: false, expires_at: ends });
    let fixture = fixture.restart(TTL).await.expect("survives again");
    assert!(acquire(&fixture.stores.locks, job("a")).await.acquired);
}

pub(super) async fn expired_locks_are_not_counted(fixture: Fixture) {
    let operation = &fixture.stores.operation;
    acquire(&fixture.stores.locks, job("a")).await;
    assert_eq!(operation.status().await.expect("the store works").entries("locks"), 1);
    fixture.pass(2 * TTL).await;
    assert_eq!(operation.status().await.expect("the store works").entries("locks"), 0);
    operation.collect_garbage().await.expect("the store works");
    assert_eq!(operation.status().await.expect("the store works").entries("locks"), 0);
}
