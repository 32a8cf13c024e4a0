//! What every store of aggregates must do about the ends of values, and the limits on them.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::aggregates::{Bucket, Update};
use holdall::model::pipelines::Pipeline;
use holdall::model::time::Timestamp;
use holdall::store::{ErrorKind, Limited, MergeOutcome, StoreResult, StoreSettings};

use super::{
    DEDUP, FORGOTTEN, HOUR, RETENTION, add, batch, entity, hourly, merge, merged, numbered, once,
    store, sum, sum_in, sums, try_merge,
};
use crate::conformance::fixture::Fixture;

const LIMIT: usize = 12;
const SECOND: Duration = Duration::from_secs(1);

/// Returns an update of the bucket that contains `at`.
fn add_at(pipeline: &Pipeline, name: &str, delta: i64, at: Timestamp) -> Update {
    Update { bucket: Bucket::of(at, HOUR), ..add(pipeline, name, delta) }
}

fn with_ttl(pipeline: &Pipeline, delta: i64, ttl: Duration) -> Vec<Update> {
    vec![Update { ttl: Some(ttl), ..add(pipeline, "e", delta) }]
}

/// Returns when the value of an entity in a bucket expires.
async fn end(fixture: &Fixture, of: &Arc<Pipeline>, bucket: Bucket) -> Option<Timestamp> {
    let found = store(fixture).get_many(of, &[(entity("e"), bucket)]).await;
    found.expect("the store works").remove(0).expect("is there").expires_at
}

pub(in crate::conformance) async fn a_replay_does_not_prolong_a_windowed_value(fixture: Fixture) {
    let (store, hourly) = (store(&fixture), hourly("hourly"));
    let now = fixture.clock.now();
    let bucket = Bucket::of(now, HOUR);
    let event = || Update { bucket, ..once(&hourly, "e", 1, "event") };
    merge(&store, &hourly, vec![event(), add_at(&hourly, "e", 2, now)]).await;
    let expected = bucket.end(HOUR).saturating_add(RETENTION);
    assert_eq!(end(&fixture, &hourly, bucket).await, Some(expected));
    let left = expected.saturating_since(now);
    fixture.pass(left - 2 * SECOND).await;
    merge(&store, &hourly, vec![event(), add_at(&hourly, "e", 2, now)]).await;
    assert_eq!(end(&fixture, &hourly, bucket).await, Some(expected));
    assert!(sum_in(&store, &hourly, "e", bucket).await.is_some());
    fixture.pass(3 * SECOND).await;
    assert_eq!(sum_in(&store, &hourly, "e", bucket).await, None);
}

/// Setting the clock back between two writes does not let the value live longer, where the store has a steady clock; a
/// store that is shared has the time of the servers behind it.
pub(in crate::conformance) async fn the_end_of_a_window_follows_the_system_clock_of_the_first_write(
    fixture: Fixture,
) {
    let (store, hourly) = (store(&fixture), hourly("hourly"));
    let now = fixture.clock.now();
    let bucket = Bucket::of(now, HOUR);
    merge(&store, &hourly, vec![add_at(&hourly, "e", 1, now)]).await;
    let left = bucket.end(HOUR).saturating_add(RETENTION).saturating_since(now);
    fixture.clock.set_back(HOUR);
    merge(&store, &hourly, vec![add_at(&hourly, "e", 1, now)]).await;
    let is_shared = fixture.stores.operation.capabilities().shared;
    let longer = if is_shared { HOUR } else { Duration::ZERO };
    fixture.pass(left + longer - SECOND).await;
    assert_eq!(sum_in(&store, &hourly, "e", bucket).await, Some(2));
    fixture.pass(2 * SECOND).await;
    assert_eq!(sum_in(&store, &hourly, "e", bucket).await, None);
}

pub(in crate::conformance) async fn an_update_of_an_expired_bucket_is_dropped_and_counted(
    fixture: Fixture,
) {
    let (store, hourly) = (store(&fixture), hourly("hourly"));
    let now = fixture.clock.now();
    let old = now.saturating_sub(HOUR + RETENTION);
    let updates = || {
        let bucket = Bucket::of(old, HOUR);
        let event = Update { bucket, ..once(&hourly, "e", 1, "event") };
        let kept = Update { ttl: Some(HOUR), ..add_at(&hourly, "e", 1, old) };
        vec![event, add_at(&hourly, "e", 1, now), kept]
    };
    assert_eq!(merge(&store, &hourly, updates()).await, merged(1, 0, 2));
    assert_eq!(sum_in(&store, &hourly, "e", Bucket::of(old, HOUR)).await, None);
    assert_eq!(sum_in(&store, &hourly, "e", Bucket::of(now, HOUR)).await, Some(1));
    // Sent again it has expired again: it was not remembered.
    assert_eq!(merge(&store, &hourly, updates()).await, merged(1, 0, 2));
    // Before 1970 as well, and at the ends of all time.
    let ancient = [Bucket(-1), Bucket(i64::MIN)];
    let updates = ancient.map(|bucket| Update { bucket, ..add(&hourly, "e", 1) });
    assert_eq!(merge(&store, &hourly, updates.to_vec()).await, merged(0, 0, 2));
}

pub(in crate::conformance) async fn a_merge_into_an_expired_value_starts_afresh(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    for purged in [false, true] {
        merge(&store, &sums, with_ttl(&sums, 5, 10 * SECOND)).await;
        fixture.pass(11 * SECOND).await;
        if purged {
            fixture.stores.operation.collect_garbage().await.expect("the store works");
        }
        assert_eq!(sum(&store, &sums, "e").await, None);
        assert_eq!(merge(&store, &sums, vec![add(&sums, "e", 2)]).await, merged(1, 0, 0));
        assert_eq!(sum(&store, &sums, "e").await, Some(2));
        // The end is gone with the value.
        assert_eq!(end(&fixture, &sums, Bucket::WHOLE).await, None);
        store.delete(&sums, &entity("e"), None, None).await.expect("the store works");
    }
}

pub(in crate::conformance) async fn a_ttl_sets_and_extends_the_end_of_a_value(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let in_seconds = |seconds: u32| Some(fixture.clock.now().saturating_add(seconds * SECOND));
    merge(&store, &sums, vec![add(&sums, "e", 1)]).await;
    assert_eq!(end(&fixture, &sums, Bucket::WHOLE).await, None);
    merge(&store, &sums, with_ttl(&sums, 1, 100 * SECOND)).await;
    assert_eq!(end(&fixture, &sums, Bucket::WHOLE).await, in_seconds(100));
    merge(&store, &sums, with_ttl(&sums, 1, 50 * SECOND)).await;
    merge(&store, &sums, vec![add(&sums, "e", 1)]).await;
    assert_eq!(end(&fixture, &sums, Bucket::WHOLE).await, in_seconds(100), "never earlier");
    fixture.pass(90 * SECOND).await;
    merge(&store, &sums, with_ttl(&sums, 1, 50 * SECOND)).await;
    assert_eq!(end(&fixture, &sums, Bucket::WHOLE).await, in_seconds(50));
    fixture.pass(49 * SECOND).await;
    assert_eq!(sum(&store, &sums, "e").await, Some(5));
    fixture.pass(2 * SECOND).await;
    assert_eq!(sum(&store, &sums, "e").await, None);
    // In a window, the later of both ends counts.
    let hourly = hourly("hourly");
    let bucket = Bucket::of(fixture.clock.now(), HOUR);
    let longer = 2 * HOUR + RETENTION;
    let update = |ttl| Update { bucket, ttl: Some(ttl), ..add(&hourly, "e", 1) };
    merge(&store, &hourly, vec![update(SECOND)]).await;
    let of_window = bucket.end(HOUR).saturating_add(RETENTION);
    assert_eq!(end(&fixture, &hourly, bucket).await, Some(of_window));
    merge(&store, &hourly, vec![update(longer)]).await;
    let expected = fixture.clock.now().saturating_add(longer);
    assert_eq!(end(&fixture, &hourly, bucket).await, Some(expected));
}

fn limit(settings: &mut StoreSettings) {
    settings.aggregates.max_values = LIMIT;
    settings.aggregates.max_event_ids = LIMIT;
    settings.aggregates.max_producers = LIMIT;
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n}")).collect()
}

/// Returns whether the store is one whose shards have a part of each limit. Then it checks, with writes of other names,
/// that the limit holds, also after all that was written has expired.
async fn holds_in_parts(
    fixture: &Fixture,
    of: Limited,
    write: impl AsyncFn(&str) -> StoreResult<MergeOutcome>,
) -> bool {
    let operation = &fixture.stores.operation;
    if operation.capabilities().exact_budget {
        return false;
    }
    let mut made_before = None;
    for _ in 0..2 {
        let mut made = Vec::new();
        for name in names(5 * LIMIT) {
            match write(&name).await {
                Ok(outcome) => {
                    assert_eq!(outcome, merged(1, 0, 0));
                    made.push(name);
                }
                Err(error) => assert_eq!(error.kind, ErrorKind::LimitReached(of), "{error}"),
            }
        }
        assert!(made.len() > LIMIT / 2 && made.len() <= LIMIT, "{}", made.len());
        let status = operation.status().await.expect("the store works");
        assert_eq!(status.entries(of.as_str()), made.len() as u64);
        assert!(made_before.is_none_or(|before| before == made));
        made_before = Some(made);
        fixture.pass(FORGOTTEN).await;
        let status = operation.status().await.expect("the store works");
        assert_eq!(status.entries(of.as_str()), 0);
    }
    true
}

pub(in crate::conformance) async fn values_never_exceed_their_limit(fixture: Fixture) {
    let fixture = fixture.wipe_with(limit).await;
    let (store, sums) = (store(&fixture), sums("sums"));
    let write = async |name: &str| {
        let update = Update { ttl: Some(SECOND), ..add(&sums, name, 1) };
        try_merge(&store, batch(&sums, vec![update])).await
    };
    if holds_in_parts(&fixture, Limited::Aggregates, write).await {
        return;
    }
    let all: Vec<_> = names(LIMIT + 1).iter().map(|name| add(&sums, name, 1)).collect();
    let error = try_merge(&store, batch(&sums, all.clone())).await.expect_err("has no room");
    assert_eq!(error.kind, ErrorKind::LimitReached(Limited::Aggregates));
    assert_eq!(sum(&store, &sums, "0").await, None, "nothing was changed");
    // What is there twice takes room once.
    let fits = all[..LIMIT].iter().chain(&all[..LIMIT]).cloned().collect();
    merge(&store, &sums, fits).await;
    assert_eq!(merge(&store, &sums, all[..LIMIT].to_vec()).await, merged(LIMIT as u64, 0, 0));
    try_merge(&store, batch(&sums, vec![add(&sums, "x", 1)])).await.expect_err("has no room");
    store.delete(&sums, &entity("3"), None, None).await.expect("the store works");
    assert_eq!(merge(&store, &sums, vec![add(&sums, "x", 1)]).await, merged(1, 0, 0));
}

pub(in crate::conformance) async fn event_ids_never_exceed_their_limit(fixture: Fixture) {
    let fixture = fixture.wipe_with(limit).await;
    let (store, sums) = (store(&fixture), sums("sums"));
    let write =
        async |id: &str| try_merge(&store, batch(&sums, vec![once(&sums, "e", 1, id)])).await;
    if holds_in_parts(&fixture, Limited::EventIds, write).await {
        return;
    }
    let all: Vec<_> = names(LIMIT + 1).iter().map(|id| once(&sums, "e", 1, id)).collect();
    let error = try_merge(&store, batch(&sums, all.clone())).await.expect_err("has no room");
    assert_eq!(error.kind, ErrorKind::LimitReached(Limited::EventIds));
    assert_eq!(sum(&store, &sums, "e").await, None, "nothing was changed");
    let fits = all[..LIMIT].to_vec();
    assert_eq!(merge(&store, &sums, fits.clone()).await, merged(LIMIT as u64, 0, 0));
    assert_eq!(merge(&store, &sums, fits).await, merged(0, LIMIT as u64, 0));
    // What it can't remember it does not count either.
    try_merge(&store, batch(&sums, all[LIMIT..].to_vec())).await.expect_err("has no room");
    assert_eq!(sum(&store, &sums, "e").await, Some(LIMIT as i64));
    fixture.pass(FORGOTTEN).await;
    assert_eq!(merge(&store, &sums, all[1..].to_vec()).await, merged(LIMIT as u64, 0, 0));
}

pub(in crate::conformance) async fn producers_never_exceed_their_limit(fixture: Fixture) {
    let fixture = fixture.wipe_with(limit).await;
    let (store, sums) = (store(&fixture), sums("sums"));
    let write = async |name: &str| try_merge(&store, numbered(&sums, name, 1, 1)).await;
    if holds_in_parts(&fixture, Limited::Producers, write).await {
        return;
    }
    for name in names(LIMIT) {
        let outcome = try_merge(&store, numbered(&sums, &name, 1, 1)).await;
        assert_eq!(outcome.expect("there is room"), merged(1, 0, 0));
    }
    let error = try_merge(&store, numbered(&sums, "x", 1, 1)).await.expect_err("has no room");
    assert_eq!(error.kind, ErrorKind::LimitReached(Limited::Producers));
    assert_eq!(sum(&store, &sums, "e").await, Some(LIMIT as i64));
    let outcome = try_merge(&store, numbered(&sums, "0", 2, 1)).await;
    assert_eq!(outcome.expect("it is known"), merged(1, 0, 0));
    fixture.pass(DEDUP + SECOND).await;
    let outcome = try_merge(&store, numbered(&sums, "x", 1, 1)).await;
    assert_eq!(outcome.expect("the others were forgotten"), merged(1, 0, 0));
}

pub(in crate::conformance) async fn a_limit_counts_what_is_live_only(fixture: Fixture) {
    let fixture = fixture.wipe_with(limit).await;
    if !fixture.stores.operation.capabilities().exact_budget {
        // The other cases have this for limits that are divided.
        return;
    }
    let (store, sums) = (store(&fixture), sums("sums"));
    let updates = |ttl: Option<Duration>| -> Vec<_> {
        names(LIMIT).iter().map(|name| Update { ttl, ..add(&sums, name, 1) }).collect()
    };
    merge(&store, &sums, updates(Some(10 * SECOND))).await;
    fixture.pass(11 * SECOND).await;
    // The last of them was there before and expired; the others are new.
    let others =
        names(LIMIT - 1).iter().map(|name| add(&sums, &format!("new {name}"), 1)).collect();
    assert_eq!(merge(&store, &sums, others).await, merged(LIMIT as u64 - 1, 0, 0));
    assert_eq!(merge(&store, &sums, vec![add(&sums, "0", 3)]).await, merged(1, 0, 0));
    assert_eq!(sum(&store, &sums, "0").await, Some(3));
    try_merge(&store, batch(&sums, vec![add(&sums, "1", 1)])).await.expect_err("has no room");
}
