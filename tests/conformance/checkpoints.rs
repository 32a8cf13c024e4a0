//! What every store of checkpoints must do.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::checkpoints::{Checkpoint, CheckpointKey};
use holdall::model::leases::{Claimant, Fence, Holder, LeaseName};
use holdall::model::time::Timestamp;
use holdall::store::{AcquireOutcome, CheckpointOutcome, CheckpointStore, Fenced};

use super::fixture::{CHECKPOINT_RETENTION, Fixture};

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            a_checkpoint_is_read_back_to_the_nanosecond,
            if_later_refuses_to_move_back,
            org_and_repo_are_never_joined,
            checkpoints_expire_with_the_retention_counted_from_the_write,
            a_deleted_checkpoint_is_gone,
            checkpoints_are_listed_by_org_in_pages,
            a_fence_that_does_not_hold_refuses_the_write,
            a_takeover_is_never_overwritten_by_the_former_holder,
            checkpoints_survive_a_restart,
            racing_writers_with_if_later_leave_the_latest,
        }
    };
}
pub(super) use cases;

fn key(org: &str, repo: &str) -> CheckpointKey {
    CheckpointKey::parse(org, repo).expect("valid")
}

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

async fn set(
    store: &Arc<dyn CheckpointStore>,
    key: CheckpointKey,
    to: Timestamp,
    if_later: bool,
) -> CheckpointOutcome {
    match store.set(key, to, if_later, None).await.expect("the store works") {
        Fenced::Done(outcome) => outcome,
        Fenced::Refused => panic!("there was no fence"),
    }
}

async fn get(store: &Arc<dyn CheckpointStore>, key: &CheckpointKey) -> Option<Checkpoint> {
    store.get(key).await.expect("the store works")
}

async fn lead(fixture: &Fixture, holder: &str) -> Fence {
    let lease = LeaseName::parse("leader").expect("valid");
    let claimant = Claimant::anonymous(Holder::parse(holder).expect("valid"));
    let (store, ttl) = (&fixture.stores.leases, Duration::from_secs(30));
    let taken = store.take_over(&lease, &claimant, ttl).await.expect("the store works");
    if let Some(taken) = taken {
        return Fence { lease, token: taken.token };
    }
    match store.acquire(&lease, &claimant, ttl).await.expect("the store works") {
        AcquireOutcome::Acquired(held) => Fence { lease, token: held.token },
        AcquireOutcome::Held(held) => panic!("held by {}", held.holder.as_str()),
    }
}

pub(super) async fn a_checkpoint_is_read_back_to_the_nanosecond(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    for to in [at(1_234_567_891), at(-1), Timestamp::parse("1700-01-01T00:00:00Z").expect("valid")]
    {
        let outcome = set(store, key("o", "r"), to, false).await;
        let stands = get(store, &key("o", "r")).await.expect("was set");
        assert_eq!(outcome, CheckpointOutcome::Stored(stands));
        assert_eq!(stands.checkpoint, to);
        assert_eq!(stands.written_at, fixture.clock.now().floor_to_millis());
    }
    assert_eq!(get(store, &key("o", "other")).await, None);
}

pub(super) async fn if_later_refuses_to_move_back(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    let k = || key("o", "r");
    assert!(matches!(set(store, k(), at(5), true).await, CheckpointOutcome::Stored(_)));
    let held = get(store, &k()).await.expect("was set");
    fixture.pass(Duration::from_secs(1)).await;
    assert_eq!(set(store, k(), at(4), true).await, CheckpointOutcome::NotLater(held));
    assert_eq!(get(store, &k()).await, Some(held));
    assert!(matches!(set(store, k(), at(5), true).await, CheckpointOutcome::Stored(_)));
    assert!(matches!(set(store, k(), at(4), false).await, CheckpointOutcome::Stored(_)));
    assert_eq!(get(store, &k()).await.expect("was set").checkpoint, at(4));
}

pub(super) async fn org_and_repo_are_never_joined(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    let keys = [key("a/b", "c"), key("a", "b/c"), key("a\0b", "c"), key("a", "b\0c")];
    for (n, key) in keys.iter().enumerate() {
        set(store, key.clone(), at(n as i64), false).await;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(get(store, key).await.expect("was set").checkpoint, at(n as i64));
    }
}

pub(super) async fn checkpoints_expire_with_the_retention_counted_from_the_write(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    set(store, key("o", "r"), at(1), false).await;
    fixture.pass(CHECKPOINT_RETENTION - Duration::from_secs(1)).await;
    set(store, key("o", "r"), at(2), false).await;
    fixture.pass(CHECKPOINT_RETENTION - Duration::from_secs(1)).await;
    assert!(get(store, &key("o", "r")).await.is_some());
    fixture.pass(Duration::from_secs(1)).await;
    assert_eq!(get(store, &key("o", "r")).await, None);
    assert!(store.list(None, None, 10).await.expect("the store works").is_empty());
    let deleted = store.delete(key("o", "r"), None).await.expect("the store works");
    assert_eq!(deleted, Fenced::Done(false));
    let outcome = set(store, key("o", "r"), at(0), true).await;
    assert!(
        matches!(outcome, CheckpointOutcome::Stored(_)),
        "an expired checkpoint does not refuse a write"
    );
}

pub(super) async fn a_deleted_checkpoint_is_gone(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    set(store, key("o", "r"), at(1), false).await;
    for there in [true, false] {
        let deleted = store.delete(key("o", "r"), None).await.expect("the store works");
        assert_eq!(deleted, Fenced::Done(there));
    }
    assert_eq!(get(store, &key("o", "r")).await, None);
}

pub(super) async fn checkpoints_are_listed_by_org_in_pages(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    for (org, repo) in [("b", "2"), ("a", "1"), ("b", "1"), ("b", "3"), ("ba", "1"), ("c", "1")] {
        set(store, key(org, repo), at(1), false).await;
    }
    for (org, expected) in [
        (Some("b"), vec![key("b", "1"), key("b", "2"), key("b", "3")]),
        (Some("x"), vec![]),
        (
            None,
            vec![
                key("a", "1"),
                key("b", "1"),
                key("b", "2"),
                key("b", "3"),
                key("ba", "1"),
                key("c", "1"),
            ],
        ),
    ] {
        let mut after = None;
        let mut keys = Vec::new();
        loop {
            let page = store.list(org, after.as_ref(), 2).await.expect("the store works");
            assert!(page.len() <= 2);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            keys.extend(page.into_iter().map(|(key, _)| key));
        }
        assert_eq!(keys, expected);
    }
}

pub(super) async fn a_fence_that_does_not_hold_refuses_the_write(fixture: Fixture) {
    let store = &fixture.stores.checkpoints;
    let fence = lead(&fixture, "me").await;
    let try_set = |fence: &Fence| store.set(key("o", "r"), at(1), false, Some(fence.clone()));
    let unknown = Fence { lease: LeaseName::parse("unknown").expect("valid"), token: fence.token };
    assert_eq!(try_set(&unknown).await.expect("the store works"), Fenced::Refused);
    assert_eq!(get(store, &key("o", "r")).await, None);
    assert!(matches!(try_set(&fence).await.expect("the store works"), Fenced::Done(_)));
    fixture.pass(Duration::from_secs(60)).await;
    assert_eq!(try_set(&fence).await.expect("the store works"), Fenced::Refused);
    let deleted = store.delete(key("o", "r"), Some(fence)).await.expect("the store works");
    assert_eq!(deleted, Fenced::Refused);
    assert!(get(store, &key("o", "r")).await.is_some());
}

/// Ten leaders, one after the other; each writes until it is refused. In no order of the
/// steps may one of an earlier leader follow one of a later leader.
pub(super) async fn a_takeover_is_never_overwritten_by_the_former_holder(fixture: Fixture) {
    let mut leaders = Vec::new();
    for leader in 0..10 {
        // The same holder, so that the lease changes hands at once.
        let fence = lead(&fixture, "me").await;
        let store = Arc::clone(&fixture.stores.checkpoints);
        let first = store.set(key("o", "r"), at(leader), false, Some(fence.clone())).await;
        assert!(matches!(first.expect("the store works"), Fenced::Done(_)));
        leaders.push(tokio::spawn(async move {
            for _ in 0..200 {
                let fence = Some(fence.clone());
                match store.set(key("o", "r"), at(leader), false, fence).await {
                    Ok(Fenced::Done(_)) => tokio::task::yield_now().await,
                    Ok(Fenced::Refused) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }));
        let stands = get(&fixture.stores.checkpoints, &key("o", "r")).await.expect("was set");
        assert_eq!(stands.checkpoint, at(leader), "an earlier leader wrote after a later one");
    }
    for leader in leaders {
        leader.await.expect("does not panic");
    }
    let stands = get(&fixture.stores.checkpoints, &key("o", "r")).await.expect("was set");
    assert_eq!(stands.checkpoint, at(9));
}

pub(super) async fn checkpoints_survive_a_restart(fixture: Fixture) {
    set(&fixture.stores.checkpoints, key("o", "ä/\"b\"\0"), at(-5), false).await;
    set(&fixture.stores.checkpoints, key("o", "gone"), at(1), false).await;
    let gone = fixture.stores.checkpoints.delete(key("o", "gone"), None).await;
    assert_eq!(gone.expect("the store works"), Fenced::Done(true));
    let before = fixture.stores.checkpoints.list(None, None, 10).await.expect("the store works");
    assert_eq!(before.len(), 1);
    let Some(fixture) = fixture.restart(Duration::from_secs(1)).await else { return };
    let after = fixture.stores.checkpoints.list(None, None, 10).await.expect("the store works");
    assert_eq!(before, after);
}

pub(super) async fn racing_writers_with_if_later_leave_the_latest(fixture: Fixture) {
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&fixture.stores.checkpoints);
            tokio::spawn(async move {
                for n in 0..100 {
                    set(&store, key("o", "r"), at((n * 37 + writer * 11) % 500), true).await;
                }
            })
        })
        .collect();
    let mut latest = at(-1);
    for writer in writers {
        let seen = get(&fixture.stores.checkpoints, &key("o", "r")).await;
        let seen = seen.map_or(at(-1), |checkpoint| checkpoint.checkpoint);
        assert!(seen >= latest, "it moved back");
        latest = seen;
        writer.await.expect("does not panic");
    }
    let all = (0..8).flat_map(|writer| (0..100).map(move |n| (n * 37 + writer * 11) % 500));
    let stands = get(&fixture.stores.checkpoints, &key("o", "r")).await.expect("was set");
    assert_eq!(stands.checkpoint, at(all.max().expect("some")));
}
