//! What every store of leases must do.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::leases::{FencingToken, Holder, Lease, LeaseName};
use holdall::store::{AcquireOutcome, LeaseStore};

use super::fixture::Fixture;

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            one_of_many_concurrent_callers_gets_a_lease,
            the_same_holder_acquires_again_under_a_new_token,
            renewing_needs_the_current_token,
            releasing_needs_the_current_token,
            a_late_release_does_not_free_the_next_holders_lease,
            a_lease_expires_at_its_end_and_not_before,
            tokens_grow_over_all_leases_across_release_expiry_and_restart,
            a_restart_does_not_shorten_a_lease,
            leases_are_listed_by_name_in_pages,
        }
    };
}
pub(super) use cases;

const TTL: Duration = Duration::from_secs(30);

fn name(name: &str) -> LeaseName {
    LeaseName::parse(name).expect("valid")
}

async fn acquire(store: &Arc<dyn LeaseStore>, lease: &str, holder: &str) -> AcquireOutcome {
    let holder = Holder::parse(holder).expect("valid");
    store.acquire(&name(lease), &holder, TTL).await.expect("the store works")
}

async fn take(store: &Arc<dyn LeaseStore>, lease: &str, holder: &str) -> Lease {
    match acquire(store, lease, holder).await {
        AcquireOutcome::Acquired(lease) => lease,
        AcquireOutcome::Held(lease) => panic!("held by {}", lease.holder.as_str()),
    }
}

async fn get(store: &Arc<dyn LeaseStore>, lease: &str) -> Option<Lease> {
    store.get(&name(lease)).await.expect("the store works")
}

pub(super) async fn one_of_many_concurrent_callers_gets_a_lease(fixture: Fixture) {
    for round in 0..20 {
        let callers: Vec<_> = (0..50)
            .map(|caller| {
                let store = Arc::clone(&fixture.stores.leases);
                tokio::spawn(async move {
                    acquire(&store, &format!("{round}"), &format!("holder {caller}")).await
                })
            })
            .collect();
        let stands =
            async |fixture: &Fixture| get(&fixture.stores.leases, &format!("{round}")).await;
        let mut winners = 0;
        for caller in callers {
            match caller.await.expect("does not panic") {
                AcquireOutcome::Acquired(lease) => {
                    winners += 1;
                    assert_eq!(stands(&fixture).await, Some(lease));
                }
                AcquireOutcome::Held(lease) => assert_eq!(stands(&fixture).await, Some(lease)),
            }
        }
        assert_eq!(winners, 1);
    }
}

pub(super) async fn the_same_holder_acquires_again_under_a_new_token(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let first = take(store, "l", "me").await;
    let second = take(store, "l", "me").await;
    assert!(second.token > first.token);
    let renewed = store.renew(&name("l"), first.token, None).await.expect("the store works");
    assert_eq!(renewed, None, "the earlier incarnation is fenced off");
}

pub(super) async fn renewing_needs_the_current_token(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let lease = take(store, "l", "me").await;
    let other = FencingToken(lease.token.0 + 1);
    assert_eq!(store.renew(&name("l"), other, None).await.expect("the store works"), None);
    assert_eq!(store.renew(&name("x"), lease.token, None).await.expect("the store works"), None);
    fixture.pass(TTL / 2).await;
    let renewed = store.renew(&name("l"), lease.token, None).await.expect("the store works");
    let renewed = renewed.expect("is held");
    assert_eq!((renewed.token, renewed.ttl), (lease.token, TTL));
    assert!(renewed.expires_at >= fixture.clock.now().saturating_add(TTL));
    let longer = store.renew(&name("l"), lease.token, Some(3 * TTL)).await;
    let longer = longer.expect("the store works").expect("is held");
    assert_eq!(longer.ttl, 3 * TTL, "a ttl of its own is kept for the next renewal");
    assert_eq!(get(store, "l").await, Some(longer));
    fixture.pass(4 * TTL).await;
    let late = store.renew(&name("l"), lease.token, None).await.expect("the store works");
    assert_eq!(late, None, "what is over can't be renewed");
}

pub(super) async fn releasing_needs_the_current_token(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let lease = take(store, "l", "me").await;
    let other = FencingToken(lease.token.0 - 1);
    assert!(!store.release(&name("l"), other).await.expect("the store works"));
    assert!(store.release(&name("l"), lease.token).await.expect("the store works"));
    assert!(!store.release(&name("l"), lease.token).await.expect("the store works"));
    assert_eq!(get(store, "l").await, None);
}

pub(super) async fn a_late_release_does_not_free_the_next_holders_lease(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let late = take(store, "l", "late").await;
    fixture.pass(2 * TTL).await;
    let next = take(store, "l", "next").await;
    assert!(!store.release(&name("l"), late.token).await.expect("the store works"));
    assert_eq!(get(store, "l").await, Some(next));
}

pub(super) async fn a_lease_expires_at_its_end_and_not_before(fixture: Fixture) {
    // Not at a whole millisecond, so that rounding shows.
    fixture.pass(Duration::from_nanos(1)).await;
    let store = &fixture.stores.leases;
    let start = fixture.clock.now();
    let lease = take(store, "l", "me").await;
    assert!(lease.expires_at >= start.saturating_add(TTL), "it ends before what was promised");
    let duration = lease.expires_at.saturating_since(start);
    fixture.pass(duration - Duration::from_nanos(1)).await;
    let outcome = acquire(store, "l", "other").await;
    assert_eq!(outcome, AcquireOutcome::Held(lease.clone()));
    fixture.pass(Duration::from_nanos(1)).await;
    assert_eq!(get(store, "l").await, None);
    assert!(store.list(None, 10).await.expect("the store works").is_empty());
    assert!(take(store, "l", "other").await.token > lease.token);
}

pub(super) async fn tokens_grow_over_all_leases_across_release_expiry_and_restart(
    fixture: Fixture,
) {
    let mut fixture = fixture;
    let mut last = FencingToken(0);
    for round in 0..12 {
        let store = &fixture.stores.leases;
        let lease = take(store, &format!("lease {}", round % 2), &format!("holder {round}")).await;
        assert!(lease.token > last);
        last = lease.token;
        if round % 3 == 0 {
            let name = name(&format!("lease {}", round % 2));
            assert!(store.release(&name, lease.token).await.expect("the store works"));
        } else {
            fixture.pass(2 * TTL).await;
            fixture.stores.operation.collect_garbage().await.expect("the store works");
        }
        if round % 4 == 3 {
            let Some(restarted) = fixture.restart(Duration::ZERO).await else { return };
            fixture = restarted;
        }
    }
}

pub(super) async fn a_restart_does_not_shorten_a_lease(fixture: Fixture) {
    let lease = take(&fixture.stores.leases, "l", "me").await;
    let Some(fixture) = fixture.restart(TTL - Duration::from_millis(1)).await else { return };
    let store = &fixture.stores.leases;
    assert_eq!(acquire(store, "l", "other").await, AcquireOutcome::Held(lease.clone()));
    let renewed = store.renew(&name("l"), lease.token, None).await.expect("the store works");
    assert_eq!(renewed.expect("is held").token, lease.token);
}

pub(super) async fn leases_are_listed_by_name_in_pages(fixture: Fixture) {
    let store = &fixture.stores.leases;
    for lease in ["b", "d", "a", "c"] {
        take(store, lease, "me").await;
    }
    let mut after = None;
    let mut names = Vec::new();
    loop {
        let page = store.list(after.as_ref(), 3).await.expect("the store works");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        names.extend(page.into_iter().map(|(name, _)| name.as_str().to_owned()));
    }
    assert_eq!(names, ["a", "b", "c", "d"]);
}
