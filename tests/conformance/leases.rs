//! What every store of leases must do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::leases::{Claimant, Fence, FencingToken, Holder, Lease, LeaseName};
use holdall::model::series::SeriesId;
use holdall::store::{AcquireOutcome, Fenced, LeaseStore, SeriesWriter};

use super::fixture::Fixture;

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            one_of_many_concurrent_callers_gets_a_lease,
            a_held_lease_is_refused_to_everybody,
            a_takeover_is_for_the_same_holder_under_the_same_access_token,
            a_takeover_fences_the_earlier_incarnation_off,
            a_takeover_is_exact_under_racing_fenced_pushes,
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
    store.acquire(&name(lease), &Claimant::anonymous(holder), TTL).await.expect("the store works")
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

pub(super) async fn a_held_lease_is_refused_to_everybody(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let lease = take(store, "l", "me").await;
    for holder in ["me", "other"] {
        assert_eq!(acquire(store, "l", holder).await, AcquireOutcome::Held(lease.clone()));
    }
    assert_eq!(get(store, "l").await, Some(lease));
}

async fn take_over(store: &Arc<dyn LeaseStore>, holder: &str, access: &str) -> Option<Lease> {
    let holder = Holder::parse(holder).expect("valid");
    let claimant = Claimant { holder, access: access.to_owned() };
    store.take_over(&name("l"), &claimant, 2 * TTL).await.expect("the store works")
}

pub(super) async fn a_takeover_is_for_the_same_holder_under_the_same_access_token(
    fixture: Fixture,
) {
    let store = &fixture.stores.leases;
    assert_eq!(take_over(store, "me", "").await, None, "it is free");
    let holder = Holder::parse("me").expect("valid");
    // As odd as names of tokens may be.
    for access in ["", "a token", "-", "\u{e4} 1"] {
        let claimant = Claimant { holder: holder.clone(), access: access.to_owned() };
        let first = store.acquire(&name("l"), &claimant, TTL).await.expect("the store works");
        let AcquireOutcome::Acquired(first) = first else { panic!("it is free") };
        for (holder, other) in [("other", access), ("me", "another token"), ("me x", access)] {
            assert_eq!(take_over(store, holder, other).await, None, "{holder}, {other}");
        }
        assert_eq!(get(store, "l").await, Some(first.clone()));
        // A renewal keeps whose it is.
        let renewed = store.renew(&name("l"), first.token, None).await.expect("the store works");
        assert!(renewed.is_some());
        let taken = take_over(store, "me", access).await.expect("it is its own");
        assert_eq!((taken.holder.as_str(), taken.ttl), ("me", 2 * TTL));
        assert!(taken.token > first.token);
        assert!(store.release(&name("l"), taken.token).await.expect("the store works"));
    }
}

pub(super) async fn a_takeover_fences_the_earlier_incarnation_off(fixture: Fixture) {
    let store = &fixture.stores.leases;
    let first = take(store, "l", "me").await;
    let second = take_over(store, "me", "").await.expect("it is its own");
    assert!(second.token > first.token);
    let renewed = store.renew(&name("l"), first.token, None).await.expect("the store works");
    assert_eq!(renewed, None);
    assert!(!store.release(&name("l"), first.token).await.expect("the store works"));
    fixture.pass(TTL).await;
    assert!(get(store, "l").await.is_some(), "it lasts for the ttl of the takeover");
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    let third = take_over(&fixture.stores.leases, "me", "").await.expect("it is still its own");
    assert!(third.token > second.token);
    fixture.pass(3 * TTL).await;
    assert_eq!(take_over(&fixture.stores.leases, "me", "").await, None, "it is over");
}

pub(super) async fn a_takeover_is_exact_under_racing_fenced_pushes(fixture: Fixture) {
    let stores = &fixture.stores;
    let mut lease = take(&stores.leases, "l", "me").await;
    let value = Arc::new(AtomicU64::new(1));
    for _ in 0..20 {
        let pushes: Vec<_> = (0..4)
            .map(|_| {
                let (series, value) = (Arc::clone(&stores.series), Arc::clone(&value));
                let fence = Fence { lease: name("l"), token: lease.token };
                tokio::spawn(async move {
                    let mut pushed = 0;
                    loop {
                        let mut batch = PointBatch::default();
                        #[expect(clippy::cast_precision_loss, reason = "it is small")]
                        let next = value.fetch_add(1, Ordering::SeqCst) as f64;
                        batch.push("m", "", next, None, None);
                        match series.upsert(batch, SeriesWriter::fenced(fence.clone())).await {
                            Ok(Fenced::Done(_)) => pushed += 1,
                            Ok(Fenced::Refused) => return pushed,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let before = value.load(Ordering::SeqCst);
        while value.load(Ordering::SeqCst) < before + 20 {
            tokio::task::yield_now().await;
        }
        lease = take_over(&stores.leases, "me", "").await.expect("it is its own");
        // From the acknowledgement on, no push of the earlier incarnation is applied.
        let id = SeriesId::of("m", "");
        let held = stores.series.get(id).await.expect("the store works");
        let mut pushed = 0;
        for push in pushes {
            pushed += push.await.expect("does not panic");
        }
        assert!(pushed > 0);
        assert_eq!(stores.series.get(id).await.expect("the store works"), held);
    }
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
