//! What every store of locks must do.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;
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
            a_large_batch_claims_each_key_at_its_first_position,
            the_kinds_are_name_spaces_of_their_own,
            keys_may_contain_anything,
            locks_survive_a_restart,
            expired_locks_are_not_counted,
            only_the_token_of_a_lock_releases_it,
            a_batch_is_held_under_one_token_and_released_key_by_key,
            a_released_lock_goes_to_one_of_many_and_is_released_once,
            a_late_release_leaves_the_lock_of_the_next_caller,
            a_lock_can_be_released_whatever_its_token,
            releases_and_tokens_survive_a_restart,
            locks_are_listed_by_kind_in_pages_in_the_order_of_their_keys,
            expired_and_released_locks_are_never_listed,
            what_is_held_throughout_is_listed_once_while_others_come_and_go,
            a_hundred_thousand_locks_are_listed_in_pages,
            lists_survive_a_restart,
        }
    };
}
pub(super) use cases;

const TTL: Duration = Duration::from_secs(30);

fn job(key: &str) -> LockKey {
    LockKey::parse(LockKind::Job, key).expect("valid")
}

const MINE: ReleaseToken = ReleaseToken([0xa5; 16]);
const OTHER: ReleaseToken = ReleaseToken([0xa6; 16]);

async fn acquire(store: &Arc<dyn LockStore>, key: LockKey) -> LockOutcome {
    acquire_under(store, key, MINE).await
}

async fn acquire_under(
    store: &Arc<dyn LockStore>,
    key: LockKey,
    token: ReleaseToken,
) -> LockOutcome {
    let outcomes = store.acquire(vec![key], TTL, token).await.expect("the store works");
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

async fn release(store: &Arc<dyn LockStore>, key: LockKey, token: ReleaseToken) -> bool {
    store.release(&key, Some(token)).await.expect("the store works")
}

async fn is_held(store: &Arc<dyn LockStore>, key: LockKey) -> bool {
    store.get(&key).await.expect("the store works").is_some()
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
    let outcomes = store.acquire(keys, TTL, MINE).await.expect("the store works");
    let acquired: Vec<bool> = outcomes.iter().map(|outcome| outcome.acquired).collect();
    assert_eq!(acquired, [true, false, true, false]);
    assert!(store.acquire(Vec::new(), TTL, MINE).await.expect("the store works").is_empty());
}

pub(super) async fn a_large_batch_claims_each_key_at_its_first_position(fixture: Fixture) {
    const KEYS: usize = 10_000;
    let store = &fixture.stores.locks;
    let held = job(&(KEYS - 1).to_string());
    assert!(acquire(store, held).await.acquired);
    // All of them once, and then again.
    let keys: Vec<LockKey> = (0..2 * KEYS).map(|n| job(&(n % KEYS).to_string())).collect();
    let outcomes = store.acquire(keys, TTL, MINE).await.expect("the store works");
    assert_eq!(outcomes.len(), 2 * KEYS);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.acquired, n < KEYS - 1, "{n}");
        assert_eq!(outcome.expires_at, outcomes[n % KEYS].expires_at, "{n}");
    }
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

pub(super) async fn only_the_token_of_a_lock_releases_it(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert!(!release(store, job("a"), MINE).await, "it was never held");
    assert!(acquire_under(store, job("a"), MINE).await.acquired);
    // Somebody who asks for a held lock gets no right to release it.
    assert!(!acquire_under(store, job("a"), OTHER).await.acquired);
    assert!(!release(store, job("a"), OTHER).await);
    assert!(!release(store, job("b"), MINE).await);
    let dedup = LockKey::parse(LockKind::Dedup, "a").expect("valid");
    assert!(!release(store, dedup, MINE).await);
    assert!(is_held(store, job("a")).await);
    assert!(release(store, job("a"), MINE).await);
    assert!(!is_held(store, job("a")).await);
    let status = fixture.stores.operation.status().await.expect("the store works");
    assert_eq!(status.entries("locks"), 0);
    assert!(!release(store, job("a"), MINE).await, "it was released");
}

pub(super) async fn a_batch_is_held_under_one_token_and_released_key_by_key(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert!(acquire_under(store, job("b"), OTHER).await.acquired);
    let outcomes = store.acquire(["a", "b", "c", "a"].map(job).to_vec(), TTL, MINE).await;
    let acquired = outcomes.expect("the store works").iter().filter(|one| one.acquired).count();
    assert_eq!(acquired, 2);
    assert!(!release(store, job("b"), MINE).await, "the batch did not get it");
    assert!(release(store, job("a"), MINE).await);
    assert!(is_held(store, job("b")).await && is_held(store, job("c")).await);
    assert!(release(store, job("c"), MINE).await);
    assert!(release(store, job("b"), OTHER).await);
}

pub(super) async fn a_released_lock_goes_to_one_of_many_and_is_released_once(fixture: Fixture) {
    for round in 0..20 {
        let key = move || job(&format!("job {round}"));
        assert!(acquire(&fixture.stores.locks, key()).await.acquired);
        let releases: Vec<_> = (0..10)
            .map(|_| {
                let store = Arc::clone(&fixture.stores.locks);
                tokio::spawn(async move { release(&store, key(), MINE).await })
            })
            .collect();
        let mut released = 0;
        for one in releases {
            released += usize::from(one.await.expect("does not panic"));
        }
        assert_eq!(released, 1);
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let store = Arc::clone(&fixture.stores.locks);
                tokio::spawn(async move { acquire_under(&store, key(), OTHER).await.acquired })
            })
            .collect();
        let mut winners = 0;
        for caller in callers {
            winners += usize::from(caller.await.expect("does not panic"));
        }
        assert_eq!(winners, 1);
    }
}

pub(super) async fn a_late_release_leaves_the_lock_of_the_next_caller(fixture: Fixture) {
    let store = &fixture.stores.locks;
    acquire_under(store, job("a"), MINE).await;
    fixture.pass(2 * TTL).await;
    assert!(!release(store, job("a"), MINE).await, "it has expired");
    assert!(acquire_under(store, job("a"), OTHER).await.acquired);
    assert!(!release(store, job("a"), MINE).await, "it is another caller's by now");
    assert!(is_held(store, job("a")).await);
    assert!(release(store, job("a"), OTHER).await);
}

pub(super) async fn a_lock_can_be_released_whatever_its_token(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert!(!store.release(&job("a"), None).await.expect("the store works"));
    acquire(store, job("a")).await;
    assert!(store.release(&job("a"), None).await.expect("the store works"));
    assert!(!is_held(store, job("a")).await);
    acquire(store, job("a")).await;
    fixture.pass(2 * TTL).await;
    assert!(!store.release(&job("a"), None).await.expect("the store works"), "it has expired");
}

pub(super) async fn releases_and_tokens_survive_a_restart(fixture: Fixture) {
    acquire(&fixture.stores.locks, job("released")).await;
    acquire(&fixture.stores.locks, job("held")).await;
    assert!(release(&fixture.stores.locks, job("released"), MINE).await);
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    let store = &fixture.stores.locks;
    assert!(!is_held(store, job("released")).await);
    assert!(!release(store, job("held"), OTHER).await);
    assert!(release(store, job("held"), MINE).await);
}

/// Reads the list of a kind, page by page.
async fn list(
    store: &Arc<dyn LockStore>,
    kind: LockKind,
    limit: usize,
) -> Vec<(LockKey, Timestamp)> {
    let mut found: Vec<(LockKey, Timestamp)> = Vec::new();
    loop {
        let after = found.last().map(|(key, _)| key.key.as_str());
        let page = store.list(kind, after, limit).await.expect("the store works");
        let is_last = page.len() < limit;
        assert!(page.len() <= limit);
        // So no list goes on for ever.
        let (last, first) = (found.last(), page.first());
        assert!(last.is_none_or(|(last, _)| first.is_none_or(|(first, _)| last < first)));
        assert!(page.iter().all(|(key, _)| key.kind == kind));
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

async fn listed(store: &Arc<dyn LockStore>, kind: LockKind) -> Vec<String> {
    list(store, kind, 10).await.into_iter().map(|(key, _)| key.key).collect()
}

pub(super) async fn locks_are_listed_by_kind_in_pages_in_the_order_of_their_keys(fixture: Fixture) {
    let store = &fixture.stores.locks;
    assert!(list(store, LockKind::Job, 3).await.is_empty());
    let long = ["k".repeat(1024), format!("{}l", "k".repeat(1023))];
    let mut keys = vec!["b", "a/b", "a", "a\0", ":", ";", "\"a\"", " a", "ä", "A", "job:a", "{a}"];
    keys.extend(long.iter().map(String::as_str));
    let mut ends = Vec::new();
    for key in &keys {
        fixture.pass(Duration::from_secs(1)).await;
        ends.push((job(key), acquire(store, job(key)).await.expires_at));
        let other = LockKey::parse(LockKind::Dedup, format!("other {key}"));
        acquire(store, other.unwrap_or_else(|_| job(key))).await;
    }
    ends.sort();
    for limit in [1, 3, 100] {
        assert_eq!(list(store, LockKind::Job, limit).await, ends, "in pages of {limit}");
    }
    let dedup = list(store, LockKind::Dedup, 3).await;
    assert_eq!(dedup.len(), keys.iter().filter(|key| key.len() < 1000).count());
    assert!(dedup.iter().all(|(key, _)| key.kind == LockKind::Dedup));
    assert!(store.list(LockKind::Job, None, 0).await.expect("the store works").is_empty());
    // A page may begin after a key that is no lock any more.
    let after = store.list(LockKind::Job, Some("A0"), 1).await.expect("the store works");
    assert_eq!(after[0].0, job("a"));
}

pub(super) async fn expired_and_released_locks_are_never_listed(fixture: Fixture) {
    let store = &fixture.stores.locks;
    for key in ["a", "b", "c"] {
        acquire(store, job(key)).await;
    }
    assert!(release(store, job("b"), MINE).await);
    assert_eq!(listed(store, LockKind::Job).await, ["a", "c"]);
    fixture.pass(TTL / 2).await;
    acquire(store, job("d")).await;
    fixture.pass(TTL / 2 + Duration::from_millis(1)).await;
    // The others are still there, since nothing has purged them.
    assert_eq!(listed(store, LockKind::Job).await, ["d"]);
    let again = acquire(store, job("c")).await;
    assert_eq!(list(store, LockKind::Job, 1).await[0], (job("c"), again.expires_at));
    fixture.stores.operation.collect_garbage().await.expect("the store works");
    assert_eq!(listed(store, LockKind::Job).await, ["c", "d"]);
    fixture.pass(2 * TTL).await;
    fixture.stores.operation.collect_garbage().await.expect("the store works");
    assert!(listed(store, LockKind::Job).await.is_empty());
}

pub(super) async fn what_is_held_throughout_is_listed_once_while_others_come_and_go(
    fixture: Fixture,
) {
    const KEYS: usize = 200;
    let store = &fixture.stores.locks;
    let held: Vec<LockKey> = (0..KEYS).map(|n| job(&format!("{n:04} held"))).collect();
    let come = |n: usize| job(&format!("{n:04} comes"));
    store.acquire(held.clone(), TTL, MINE).await.expect("the store works");
    let gone: Vec<LockKey> = (0..KEYS).map(|n| job(&format!("{n:04} gone"))).collect();
    store.acquire(gone.clone(), TTL, OTHER).await.expect("the store works");
    for key in gone {
        assert!(release(store, key, OTHER).await);
    }
    let churn = Arc::clone(store);
    let churn = tokio::spawn(async move {
        for n in (0..KEYS).cycle().map(come) {
            acquire_under(&churn, n.clone(), OTHER).await;
            release(&churn, n, OTHER).await;
        }
    });
    for limit in [1, 7, KEYS] {
        let found = list(store, LockKind::Job, limit).await;
        assert!(found.is_sorted_by(|a, b| a.0 < b.0), "each at most once, in their order");
        let stayed = found.iter().map(|(key, _)| key).filter(|key| key.key.ends_with("held"));
        assert!(stayed.eq(&held), "in pages of {limit}");
        assert!(!found.iter().any(|(key, _)| key.key.ends_with("gone")));
    }
    churn.abort();
    assert!(churn.await.expect_err("it never ends by itself").is_cancelled());
}

pub(super) async fn a_hundred_thousand_locks_are_listed_in_pages(fixture: Fixture) {
    const KEYS: usize = 100_000;
    const BATCH: usize = 10_000;
    let store = &fixture.stores.locks;
    let key = |n: usize| job(&format!("{n:06}"));
    for from in (0..KEYS).step_by(BATCH) {
        let keys = (from..from + BATCH).map(key).collect();
        store.acquire(keys, TTL, MINE).await.expect("the store works");
    }
    let found = list(store, LockKind::Job, 5_000).await;
    assert_eq!(found.len(), KEYS);
    assert!(found.iter().enumerate().all(|(n, (found, _))| *found == key(n)));
    fixture.pass(2 * TTL).await;
    assert!(acquire(store, key(KEYS)).await.acquired);
    let found = list(store, LockKind::Job, 5_000).await;
    assert_eq!(found.len(), 1, "all others have expired, and none was purged");
}

pub(super) async fn lists_survive_a_restart(fixture: Fixture) {
    acquire(&fixture.stores.locks, job("released")).await;
    let ends = acquire(&fixture.stores.locks, job("held")).await.expires_at;
    assert!(release(&fixture.stores.locks, job("released"), MINE).await);
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    assert_eq!(list(&fixture.stores.locks, LockKind::Job, 9).await, [(job("held"), ends)]);
}
