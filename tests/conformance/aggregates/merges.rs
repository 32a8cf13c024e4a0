//! What every store of aggregates must do when it merges.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdall::model::leases::{Claimant, Fence, FencingToken, Holder, LeaseName};
use holdall::store::{AcquireOutcome, Fenced, Merge, MergeOutcome};
use serde_json::json;

use super::{add, batch, merge, merged, once, pipeline, store, sum, sums};
use crate::conformance::fixture::Fixture;

pub(in crate::conformance) async fn a_value_is_kept_for_each_key(fixture: Fixture) {
    let (store, one, other) = (store(&fixture), sums("one"), sums("other"));
    // Keys that would be the same if their parts were joined, and characters that stand for others somewhere.
    let names = ["a", "ab", "a\"", "a#", "a\\", "é/\u{0}", "#", "##"];
    for (n, name) in (1..).zip(names) {
        assert_eq!(merge(&store, &one, vec![add(&one, name, n)]).await, merged(1, 0, 0));
        assert_eq!(merge(&store, &other, vec![add(&other, name, -n)]).await, merged(1, 0, 0));
    }
    for (n, name) in (1..).zip(names) {
        assert_eq!(sum(&store, &one, name).await, Some(n), "{name}");
        assert_eq!(sum(&store, &other, name).await, Some(-n), "{name}");
    }
    assert_eq!(sum(&store, &one, "b").await, None);
    assert_eq!(sum(&store, &sums("on"), "ea").await, None);
}

pub(in crate::conformance) async fn a_batch_is_merged_in_its_order(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    // In another order, this would be out of range.
    let updates = [i64::MAX, -1, 1, i64::MIN, 7].map(|delta| add(&sums, "e", delta));
    assert_eq!(merge(&store, &sums, updates.to_vec()).await, merged(5, 0, 0));
    assert_eq!(sum(&store, &sums, "e").await, Some(6));
    assert_eq!(merge(&store, &sums, Vec::new()).await, merged(0, 0, 0));
    // Min has no identity that is a number: the first value counts, also where it is greater than zero.
    let least = Arc::new(pipeline("least", &json!({"kind": "min"})));
    assert_eq!(merge(&store, &least, vec![add(&least, "e", 9)]).await, merged(1, 0, 0));
    assert_eq!(merge(&store, &least, vec![add(&least, "e", 11)]).await, merged(1, 0, 0));
    assert_eq!(sum(&store, &least, "e").await, Some(9));
}

pub(in crate::conformance) async fn concurrent_merges_into_one_key_all_count(fixture: Fixture) {
    const CALLERS: i64 = 16;
    const MERGES: i64 = 25;
    let (store, sums) = (store(&fixture), sums("sums"));
    let callers = (1..=CALLERS).map(|caller| {
        let (store, sums) = (Arc::clone(&store), Arc::clone(&sums));
        tokio::spawn(async move {
            for _ in 0..MERGES {
                let updates = vec![add(&sums, "hot", caller), add(&sums, "other", 1)];
                assert_eq!(merge(&store, &sums, updates).await, merged(2, 0, 0));
            }
        })
    });
    join_all(callers).await.into_iter().for_each(|ended| ended.expect("does not panic"));
    assert_eq!(sum(&store, &sums, "hot").await, Some(MERGES * CALLERS * (CALLERS + 1) / 2));
    assert_eq!(sum(&store, &sums, "other").await, Some(MERGES * CALLERS));
}

/// Two keys that every batch changes alike differ at no moment.
pub(in crate::conformance) async fn racing_batches_are_merged_whole(fixture: Fixture) {
    if !fixture.stores.operation.capabilities().atomic_batches {
        return;
    }
    let (store, sums) = (store(&fixture), sums("sums"));
    let writer = {
        let (store, sums) = (Arc::clone(&store), Arc::clone(&sums));
        tokio::spawn(async move {
            for _ in 0..200 {
                let both = ["left", "right"].map(|name| add(&sums, name, 1));
                assert_eq!(merge(&store, &sums, both.to_vec()).await, merged(2, 0, 0));
            }
        })
    };
    while !writer.is_finished() {
        let keys = ["left", "right"].map(|name| (super::entity(name), super::Bucket::WHOLE));
        let both = store.get_many(&sums, &keys).await.expect("the store works");
        assert_eq!(both[0], both[1]);
    }
    writer.await.expect("does not panic");
}

pub(in crate::conformance) async fn a_refused_delta_leaves_nothing_of_its_batch(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    merge(&store, &sums, vec![add(&sums, "full", i64::MAX - 1)]).await;
    let updates = vec![
        once(&sums, "new", 1, "event 1"),
        once(&sums, "full", 1, "event 2"),
        once(&sums, "full", 1, "event 3"),
    ];
    let refused = merge(&store, &sums, updates).await;
    assert!(matches!(refused, MergeOutcome::Refused { index: 2, .. }), "{refused:?}");
    assert_eq!(sum(&store, &sums, "new").await, None);
    assert_eq!(sum(&store, &sums, "full").await, Some(i64::MAX - 1));
    // Its events are not taken either.
    let updates = vec![once(&sums, "new", 1, "event 1"), once(&sums, "full", 1, "event 2")];
    assert_eq!(merge(&store, &sums, updates).await, merged(2, 0, 0));
}

pub(in crate::conformance) async fn a_fence_that_does_not_hold_refuses_the_merge(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let lease = LeaseName::parse("leader").expect("valid");
    let holder = Claimant::anonymous(Holder::parse("a").expect("valid"));
    let ttl = Duration::from_secs(30);
    let held = fixture.stores.leases.acquire(&lease, &holder, ttl).await.expect("the store works");
    let AcquireOutcome::Acquired(held) = held else { panic!("it is free") };
    let fenced = |token: FencingToken| Merge {
        fence: Some(Fence { lease: lease.clone(), token }),
        ..batch(&sums, vec![once(&sums, "e", 1, "event")])
    };
    let wrong = FencingToken(held.token.0 + 1);
    for _ in 0..2 {
        let refused = store.merge(fenced(wrong)).await.expect("the store works");
        assert_eq!(refused, Fenced::Refused);
        assert_eq!(sum(&store, &sums, "e").await, None);
    }
    let done = store.merge(fenced(held.token)).await.expect("the store works");
    assert_eq!(done, Fenced::Done(merged(1, 0, 0)));
    let bad = Some(Fence { lease: lease.clone(), token: wrong });
    let refused = store.delete(&sums, &super::entity("e"), None, bad).await;
    assert_eq!(refused.expect("the store works"), Fenced::Refused);
    fixture.pass(2 * ttl).await;
    let refused = store.merge(fenced(held.token)).await.expect("the store works");
    assert_eq!(refused, Fenced::Refused, "the lease has expired");
    assert_eq!(sum(&store, &sums, "e").await, Some(1));
}

pub(in crate::conformance) async fn values_survive_a_restart(fixture: Fixture) {
    let sums = sums("sums");
    let first = store(&fixture);
    let names: Vec<_> = (0..300).map(|n| format!("entity {n}")).collect();
    let updates = names.iter().map(|name| add(&sums, name, 1)).collect();
    merge(&first, &sums, updates).await;
    merge(&first, &sums, vec![add(&sums, "entity 7", 2)]).await;
    drop(first);
    let Some(fixture) = fixture.restart(Duration::from_secs(1)).await else { return };
    let store = store(&fixture);
    for name in &names {
        let expected = if name == "entity 7" { 3 } else { 1 };
        assert_eq!(sum(&store, &sums, name).await, Some(expected), "{name}");
    }
    assert_eq!(merge(&store, &sums, vec![add(&sums, "entity 7", 2)]).await, merged(1, 0, 0));
    assert_eq!(sum(&store, &sums, "entity 7").await, Some(5));
}
