//! What every store of aggregates must do so that an event counts once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdall::model::aggregates::EventId;
use holdall::store::MergeOutcome;

use super::{
    DEDUP, FORGOTTEN, add, batch, merge, merged, numbered, once, store, sum, sums, try_merge,
};
use crate::conformance::fixture::Fixture;

pub(in crate::conformance) async fn an_event_counts_once(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let event = || once(&sums, "e", 5, "event");
    assert_eq!(merge(&store, &sums, vec![event()]).await, merged(1, 0, 0));
    fixture.pass(DEDUP - Duration::from_secs(1)).await;
    let again = vec![event(), once(&sums, "e", 1, "other"), event()];
    assert_eq!(merge(&store, &sums, again).await, merged(1, 2, 0));
    assert_eq!(sum(&store, &sums, "e").await, Some(6));
    // Also where the first update of the event was about another key: the engine's hash of the content differs then.
    let elsewhere = merge(&store, &sums, vec![once(&sums, "f", 5, "event")]).await;
    assert_eq!(elsewhere, merged(0, 1, 0));
}

pub(in crate::conformance) async fn an_event_twice_in_a_batch_counts_once(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let twice = vec![once(&sums, "e", 5, "event"), once(&sums, "e", 5, "event")];
    assert_eq!(merge(&store, &sums, twice).await, merged(1, 1, 0));
    assert_eq!(sum(&store, &sums, "e").await, Some(5));
    let otherwise = vec![once(&sums, "e", 5, "another"), once(&sums, "e", 6, "another")];
    assert_eq!(merge(&store, &sums, otherwise).await, MergeOutcome::Conflict { index: 1 });
    assert_eq!(sum(&store, &sums, "e").await, Some(5));
}

pub(in crate::conformance) async fn a_conflict_leaves_nothing_of_its_batch(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    merge(&store, &sums, vec![once(&sums, "e", 5, "event")]).await;
    let updates = || {
        let conflict = once(&sums, "e", 6, "event");
        vec![once(&sums, "e", 1, "new"), add(&sums, "f", 1), conflict, add(&sums, "g", 1)]
    };
    for _ in 0..2 {
        let outcome = merge(&store, &sums, updates()).await;
        assert_eq!(outcome, MergeOutcome::Conflict { index: 2 });
    }
    assert_eq!(sum(&store, &sums, "e").await, Some(5));
    assert_eq!(sum(&store, &sums, "f").await, None);
    assert_eq!(merge(&store, &sums, vec![once(&sums, "e", 1, "new")]).await, merged(1, 0, 0));
}

pub(in crate::conformance) async fn of_racing_claims_of_an_event_one_counts(fixture: Fixture) {
    const CALLERS: usize = 16;
    let (store, sums) = (store(&fixture), sums("sums"));
    for round in 0..20 {
        let callers = (0..CALLERS).map(|_| {
            let (store, sums) = (Arc::clone(&store), Arc::clone(&sums));
            tokio::spawn(async move {
                let event = once(&sums, "e", 1, &format!("event {round}"));
                merge(&store, &sums, vec![event]).await
            })
        });
        let outcomes = join_all(callers).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(|ended| ended.expect("no panic")).collect();
        let count = |of: MergeOutcome| outcomes.iter().filter(|outcome| **outcome == of).count();
        assert_eq!((count(merged(1, 0, 0)), count(merged(0, 1, 0))), (1, CALLERS - 1));
        assert_eq!(sum(&store, &sums, "e").await, Some(round + 1));
    }
}

pub(in crate::conformance) async fn an_event_of_two_pipelines_counts_in_both(fixture: Fixture) {
    let (store, one, other) = (store(&fixture), sums("one"), sums("other"));
    assert_eq!(merge(&store, &one, vec![once(&one, "e", 1, "event")]).await, merged(1, 0, 0));
    assert_eq!(merge(&store, &other, vec![once(&other, "e", 1, "event")]).await, merged(1, 0, 0));
    let seen = [EventId::parse("events/seen", "event").expect("valid")];
    assert_eq!(store.mark_seen(&seen, DEDUP).await.expect("the store works"), [true]);
}

pub(in crate::conformance) async fn an_event_is_forgotten_after_its_period(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    for round in 1..=3 {
        let event = || vec![once(&sums, "e", 1, "event")];
        assert_eq!(merge(&store, &sums, event()).await, merged(1, 0, 0), "round {round}");
        // A repetition does not prolong it.
        fixture.pass(DEDUP / 2).await;
        assert_eq!(merge(&store, &sums, event()).await, merged(0, 1, 0), "round {round}");
        fixture.pass(FORGOTTEN - DEDUP / 2).await;
        if round == 2 {
            fixture.stores.operation.collect_garbage().await.expect("the store works");
        }
    }
    assert_eq!(sum(&store, &sums, "e").await, Some(3));
    let other_content = merge(&store, &sums, vec![once(&sums, "e", 7, "event")]).await;
    assert_eq!(other_content, merged(1, 0, 0));
}

pub(in crate::conformance) async fn events_survive_a_restart(fixture: Fixture) {
    let sums = sums("sums");
    let events = |count: i64| (0..count).map(|n| once(&sums, "e", 1, &n.to_string())).collect();
    let before = store(&fixture);
    assert_eq!(merge(&before, &sums, events(5_000)).await, merged(5_000, 0, 0));
    for seq in 1..=3 {
        let outcome = try_merge(&before, numbered(&sums, "producer", seq, 1)).await;
        assert_eq!(outcome.expect("the store works"), merged(1, 0, 0));
    }
    drop(before);
    let Some(fixture) = fixture.restart(Duration::from_secs(1)).await else { return };
    let after = store(&fixture);
    assert_eq!(merge(&after, &sums, events(5_001)).await, merged(1, 5_000, 0));
    let outcome = try_merge(&after, numbered(&sums, "producer", 3, 1)).await;
    assert_eq!(outcome.expect("the store works"), merged(0, 1, 0));
    assert_eq!(sum(&after, &sums, "e").await, Some(5_004));
    drop(after);
    let Some(fixture) = fixture.restart(FORGOTTEN).await else { return };
    let later = store(&fixture);
    assert_eq!(merge(&later, &sums, events(2)).await, merged(2, 0, 0));
}

/// The caller goes away at any moment: what it sends again counts once.
pub(in crate::conformance) async fn a_cancelled_merge_counts_once_when_it_is_sent_again(
    fixture: Fixture,
) {
    let (store, sums) = (store(&fixture), sums("sums"));
    for n in 0..100_u32 {
        let updates = || vec![once(&sums, "e", 1, &format!("event {n}"))];
        let cancelled = tokio::time::timeout(
            Duration::from_micros(u64::from(n * 10)),
            store.merge(batch(&sums, updates())),
        );
        drop(cancelled.await);
        let outcome = merge(&store, &sums, updates()).await;
        assert!([merged(1, 0, 0), merged(0, 1, 0)].contains(&outcome), "{outcome:?}");
        assert_eq!(sum(&store, &sums, "e").await, Some(i64::from(n) + 1));
    }
}

pub(in crate::conformance) async fn a_batch_of_a_producer_counts_once(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let send = async |producer: &str, seq: u64| {
        try_merge(&store, numbered(&sums, producer, seq, 1)).await.expect("the store works")
    };
    assert_eq!(send("a", 7).await, merged(1, 0, 0), "any number begins");
    assert_eq!(send("a", 7).await, merged(0, 1, 0));
    assert_eq!(send("a", 8).await, merged(1, 0, 0));
    assert_eq!(send("a", 7).await, merged(0, 1, 0), "an earlier one was merged as well");
    assert_eq!(send("a", 10).await, MergeOutcome::SequenceGap { expected: 9 });
    assert_eq!(send("b", 1).await, merged(1, 0, 0), "each producer has its own numbers");
    assert_eq!(send("a", 9).await, merged(1, 0, 0));
    assert_eq!(sum(&store, &sums, "e").await, Some(4));
    // What is refused leaves the number as it was.
    merge(&store, &sums, vec![add(&sums, "e", i64::MAX - 4)]).await;
    assert!(matches!(send("a", 10).await, MergeOutcome::Refused { index: 0, .. }));
    merge(&store, &sums, vec![add(&sums, "e", -1)]).await;
    assert_eq!(send("a", 10).await, merged(1, 0, 0));
    let other = super::sums("other");
    let outcome = try_merge(&store, numbered(&other, "a", 1, 1)).await;
    assert_eq!(outcome.expect("the store works"), merged(1, 0, 0), "of another pipeline");
}

pub(in crate::conformance) async fn producers_are_forgotten_after_their_period(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let send = async |seq: u64| {
        try_merge(&store, numbered(&sums, "p", seq, 1)).await.expect("the store works")
    };
    assert_eq!(send(1).await, merged(1, 0, 0));
    fixture.pass(DEDUP / 2).await;
    assert_eq!(send(2).await, merged(1, 0, 0));
    fixture.pass(DEDUP - Duration::from_secs(1)).await;
    assert_eq!(send(2).await, merged(0, 1, 0), "the period began with the last batch");
    fixture.pass(FORGOTTEN - DEDUP).await;
    assert_eq!(send(5).await, merged(1, 0, 0));
}

pub(in crate::conformance) async fn only_the_first_to_see_an_event_is_told_so(fixture: Fixture) {
    let store = store(&fixture);
    let ids = |names: &[&str]| -> Vec<EventId> {
        names.iter().map(|name| EventId::parse("events/seen", name).expect("valid")).collect()
    };
    let seen =
        async |names: &[&str]| store.mark_seen(&ids(names), DEDUP).await.expect("the store works");
    assert_eq!(seen(&["a", "b", "a"]).await, [true, true, false]);
    assert_eq!(seen(&["c", "b"]).await, [true, false]);
    assert_eq!(seen(&[]).await, [false; 0]);
    let callers = (0..16).map(|_| {
        let (store, ids) = (Arc::clone(&store), ids(&["raced"]));
        tokio::spawn(async move { store.mark_seen(&ids, DEDUP).await.expect("works")[0] })
    });
    let first = join_all(callers).await.into_iter().filter(|seen| matches!(seen, Ok(true)));
    assert_eq!(first.count(), 1);
    fixture.pass(DEDUP - Duration::from_secs(1)).await;
    assert_eq!(seen(&["a"]).await, [false]);
    fixture.pass(FORGOTTEN - DEDUP).await;
    assert_eq!(seen(&["a"]).await, [true]);
}
