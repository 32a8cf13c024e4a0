//! What every store of aggregates must do when it reads, lists and deletes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdall::model::aggregates::{Bucket, Update};
use holdall::model::pipelines::{Pipeline, Window};
use holdall::store::{AggregateStore, DeclarationChanged, Fenced};
use serde_json::json;

use super::{
    HOUR, add, entity, hourly, merge, merged, number, once, pipeline, store, sum, sum_in, sums,
};
use crate::conformance::fixture::Fixture;

/// Adds to the sum of an entity in each bucket as many as the bucket's distance from `newest`, plus one.
async fn fill(
    store: &Arc<dyn AggregateStore>,
    pipeline: &Arc<Pipeline>,
    name: &str,
    newest: Bucket,
    distances: &[i64],
) {
    let update = |distance: &i64| Update {
        bucket: Bucket(newest.0 - distance),
        ..add(pipeline, name, distance + 1)
    };
    let updates: Vec<_> = distances.iter().map(update).collect();
    let count = updates.len() as u64;
    assert_eq!(merge(store, pipeline, updates).await, merged(count, 0, 0));
}

/// Reads the windows of entities: the sum of each, and how many buckets it has.
async fn windows(
    store: &Arc<dyn AggregateStore>,
    pipeline: &Arc<Pipeline>,
    names: &[&str],
    newest: Bucket,
    buckets: u32,
) -> Vec<Option<(i64, u32)>> {
    let entities: Vec<_> = names.iter().map(|name| entity(*name)).collect();
    let found = store.window(pipeline, &entities, newest, buckets).await.expect("the store works");
    let window = |found: Result<Option<holdall::store::Combined>, _>| {
        found.expect("can be combined").map(|found| (number(pipeline, &found.state), found.found))
    };
    found.into_iter().map(window).collect()
}

/// Returns a pipeline of sums for each minute, which are kept for long.
fn minutely() -> Arc<Pipeline> {
    let window = Window { granularity: Duration::from_secs(60), retention: 24 * 30 * HOUR };
    Arc::new(Pipeline { window: Some(window), ..pipeline("minutely", &json!({"kind": "sum"})) })
}

fn newest(fixture: &Fixture, granularity: Duration) -> Bucket {
    Bucket::of(fixture.clock.now(), granularity)
}

pub(in crate::conformance) async fn get_many_keeps_the_order_of_its_keys(fixture: Fixture) {
    let (store, sums) = (store(&fixture), sums("sums"));
    let updates = (0..50).map(|n| add(&sums, &n.to_string(), n)).collect();
    merge(&store, &sums, updates).await;
    // Absent ones, and some twice.
    let asked: Vec<i64> = (0..120).map(|n| n * 37 % 60).collect();
    let keys: Vec<_> = asked.iter().map(|n| (entity(n.to_string()), Bucket::WHOLE)).collect();
    let found = store.get_many(&sums, &keys).await.expect("the store works");
    let found: Vec<_> =
        found.iter().map(|held| held.as_ref().map(|held| number(&sums, &held.state))).collect();
    let expected: Vec<_> = asked.iter().map(|n| (*n < 50).then_some(*n)).collect();
    assert_eq!(found, expected);
    assert_eq!(store.get_many(&sums, &[]).await.expect("the store works"), []);
}

pub(in crate::conformance) async fn a_window_combines_its_newest_buckets(fixture: Fixture) {
    let (store, minutely) = (store(&fixture), minutely());
    let newest = newest(&fixture, Duration::from_secs(60));
    fill(&store, &minutely, "e", newest, &[0, 1, 3, 7, 8, 300]).await;
    fill(&store, &minutely, "f", newest, &[2]).await;
    let read =
        async |names: &[&str], buckets| windows(&store, &minutely, names, newest, buckets).await;
    assert_eq!(read(&["e"], 1).await, [Some((1, 1))], "the current one is among them");
    assert_eq!(read(&["e"], 8).await, [Some((1 + 2 + 4 + 8, 4))]);
    let many = read(&["f", "none", "e", "e"], 9).await;
    assert_eq!(many, [Some((3, 1)), None, Some((24, 5)), Some((24, 5))]);
    let many = read(&["f", "none", "e"], 1_000).await;
    assert_eq!(many, [Some((3, 1)), None, Some((325, 6))]);
    assert_eq!(read(&["f"], 2).await, [None]);
    assert_eq!(read(&["e"], 0).await, [None]);
    assert_eq!(read(&[], 5).await, []);
    let later = windows(&store, &minutely, &["e"], Bucket(newest.0 + 1), 2).await;
    assert_eq!(later, [Some((1, 1))]);
}

pub(in crate::conformance) async fn a_window_of_a_week_counts_the_buckets_that_it_found(
    fixture: Fixture,
) {
    const WEEK: u32 = 7 * 24 * 60;
    let (store, minutely) = (store(&fixture), minutely());
    let newest = newest(&fixture, Duration::from_secs(60));
    // Eight buckets in the week, and two that are older.
    let week = i64::from(WEEK);
    let distances = [0, 5, 60, 600, 1_440, 5_000, 9_000, week - 1, week, week + 1];
    fill(&store, &minutely, "e", newest, &distances).await;
    let expected = distances[..8].iter().map(|distance| distance + 1).sum();
    let found = windows(&store, &minutely, &["e"], newest, WEEK).await;
    assert_eq!(found, [Some((expected, 8))]);
}

pub(in crate::conformance) async fn a_range_has_the_values_of_its_buckets(fixture: Fixture) {
    let (store, minutely) = (store(&fixture), minutely());
    let newest = newest(&fixture, Duration::from_secs(60));
    fill(&store, &minutely, "e", newest, &[0, 1, 3, 7]).await;
    fill(&store, &minutely, "d", newest, &[2]).await;
    fill(&store, &minutely, "f", newest, &[2]).await;
    let read = async |from: i64, to: i64, limit: usize| {
        let (from, to) = (Bucket(newest.0 - from), Bucket(newest.0 - to));
        let found = store.range(&minutely, &entity("e"), from, to, limit).await;
        let found = found.expect("the store works");
        found
            .into_iter()
            .map(|(bucket, held)| {
                let sum = number(&minutely, &held.state);
                assert_eq!(sum, newest.0 - bucket.0 + 1);
                newest.0 - bucket.0
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(read(100, -100, 10).await, [7, 3, 1, 0]);
    assert_eq!(read(3, 1, 10).await, [3, 1], "both ends are included");
    assert_eq!(read(100, 0, 2).await, [7, 3]);
    assert_eq!(read(2, 2, 10).await, [0_i64; 0]);
    assert_eq!(read(1, 3, 10).await, [0_i64; 0], "an empty range");
    assert_eq!(read(100, 0, 0).await, [0_i64; 0]);
}

pub(in crate::conformance) async fn a_list_has_each_value_of_its_pipeline_once(fixture: Fixture) {
    let (store, hourly) = (store(&fixture), hourly("b"));
    let newest = newest(&fixture, HOUR);
    for (before, after) in [("a", 1), ("c", 2)].map(|(name, n)| (sums(name), n)) {
        merge(&store, &before, vec![add(&before, "e", after)]).await;
    }
    let mut expected = BTreeMap::new();
    for n in 0..40 {
        let name = format!("entity {n}");
        fill(&store, &hourly, &name, newest, &[0, 1]).await;
        expected.insert((entity(&name), newest), 1);
        expected.insert((entity(&name), Bucket(newest.0 - 1)), 2);
    }
    for limit in [1, 7, 1_000] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.list(&hourly, after.as_ref(), limit).await.expect("the store works");
            assert!(page.values.len() <= limit);
            found.extend(
                page.values
                    .into_iter()
                    .map(|(entity, bucket, held)| ((entity, bucket), number(&hourly, &held.state))),
            );
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.is_sorted(), "limit {limit}");
        assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>(), "limit {limit}");
    }
    let nothing = store.list(&sums("bb"), None, 10).await.expect("the store works");
    assert_eq!(nothing.values, []);
}

pub(in crate::conformance) async fn a_deleted_value_is_gone_and_its_events_are_not(
    fixture: Fixture,
) {
    let (store, sums) = (store(&fixture), sums("sums"));
    merge(&store, &sums, vec![once(&sums, "e", 5, "event"), add(&sums, "f", 1)]).await;
    let delete = async || store.delete(&sums, &entity("e"), Some(Bucket::WHOLE), None).await;
    assert_eq!(delete().await.expect("the store works"), Fenced::Done(1));
    assert_eq!(delete().await.expect("the store works"), Fenced::Done(0));
    assert_eq!(sum(&store, &sums, "e").await, None);
    assert_eq!(sum(&store, &sums, "f").await, Some(1));
    assert_eq!(merge(&store, &sums, vec![once(&sums, "e", 5, "event")]).await, merged(0, 1, 0));
    assert_eq!(merge(&store, &sums, vec![add(&sums, "e", 1)]).await, merged(1, 0, 0));
    assert_eq!(sum(&store, &sums, "e").await, Some(1));
}

pub(in crate::conformance) async fn all_buckets_of_an_entity_are_deleted_at_once(fixture: Fixture) {
    let (store, minutely) = (store(&fixture), minutely());
    let newest = newest(&fixture, Duration::from_secs(60));
    let distances: Vec<_> = (0..700).collect();
    for name in ["d", "e", "f"] {
        fill(&store, &minutely, name, newest, &distances).await;
    }
    let one = store.delete(&minutely, &entity("e"), Some(Bucket(newest.0 - 3)), None).await;
    assert_eq!(one.expect("the store works"), Fenced::Done(1));
    let rest = store.delete(&minutely, &entity("e"), None, None).await;
    assert_eq!(rest.expect("the store works"), Fenced::Done(699));
    let found = windows(&store, &minutely, &["d", "e", "f"], newest, 700).await;
    let all = Some((700 * 701 / 2, 700));
    assert_eq!(found, [all, None, all]);
    let again = store.delete(&minutely, &entity("e"), None, None).await;
    assert_eq!(again.expect("the store works"), Fenced::Done(0));
    fill(&store, &minutely, "e", newest, &[1]).await;
    assert_eq!(sum_in(&store, &minutely, "e", Bucket(newest.0 - 1)).await, Some(2));
}

pub(in crate::conformance) async fn a_change_of_what_stored_values_mean_is_named(fixture: Fixture) {
    let declare = async |fixture: &Fixture, pipelines: &[&Arc<Pipeline>]| {
        let pipelines: Vec<_> = pipelines.iter().map(|of| Arc::clone(of)).collect();
        store(fixture).declare(&pipelines).await.expect("the store works")
    };
    let (kept, changed, empty) = (sums("kept"), sums("changed"), sums("empty"));
    assert_eq!(declare(&fixture, &[&kept, &changed, &empty]).await, []);
    merge(&store(&fixture), &changed, vec![add(&changed, "e", 1)]).await;
    let other = |name| Arc::new(pipeline(name, &json!({"kind": "max"})));
    let expected = DeclarationChanged {
        pipeline: changed.name.clone(),
        stored: changed.signature(),
        declared: other("changed").signature(),
    };
    let found = declare(&fixture, &[&other("empty"), &other("changed"), &kept]).await;
    assert_eq!(found, std::slice::from_ref(&expected));
    let Some(fixture) = fixture.restart(Duration::from_secs(1)).await else { return };
    assert_eq!(declare(&fixture, &[&other("changed")]).await, [expected]);
    // Without values it may be declared anew.
    let deleted = store(&fixture).delete(&changed, &entity("e"), None, None).await;
    assert_eq!(deleted.expect("the store works"), Fenced::Done(1));
    assert_eq!(declare(&fixture, &[&other("changed"), &kept]).await, []);
    assert_eq!(declare(&fixture, &[&other("changed")]).await, []);
}
