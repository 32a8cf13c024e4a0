//! What every store of aggregates must do. `merges` has the cases about merging, `once` those that hold that each event
//! counts once, `ends` those about expiry and limits, `reads` those about reading and deleting, `outbox` those about notes.

mod ends;
mod merges;
mod once;
pub(super) mod outbox;
mod reads;

use std::sync::Arc;
use std::time::Duration;

use holdall::model::aggregates::{
    Bucket, Entity, Event, EventId, Producer, ProducerSequence, Update,
};
use holdall::model::merge::{Kind, KindSettings, State};
use holdall::model::pipelines::{Pipeline, PipelineName, Window};
use holdall::model::time::Timestamp;
use holdall::store::{AggregateStore, Fenced, Merge, MergeOutcome, StoreResult};
use serde_json::{Value, json};

pub(super) use self::ends::{
    a_limit_counts_what_is_live_only, a_merge_into_an_expired_value_starts_afresh,
    a_replay_does_not_prolong_a_windowed_value, a_ttl_sets_and_extends_the_end_of_a_value,
    an_update_of_an_expired_bucket_is_dropped_and_counted, event_ids_never_exceed_their_limit,
    producers_never_exceed_their_limit,
    the_end_of_a_window_follows_the_system_clock_of_the_first_write,
    values_never_exceed_their_limit,
};
pub(super) use self::merges::{
    a_batch_is_merged_in_its_order, a_fence_that_does_not_hold_refuses_the_merge,
    a_refused_delta_leaves_nothing_of_its_batch, a_value_is_kept_for_each_key,
    concurrent_merges_into_one_key_all_count, racing_batches_are_merged_whole,
    values_survive_a_restart,
};
pub(super) use self::once::{
    a_batch_of_a_producer_counts_once, a_cancelled_merge_counts_once_when_it_is_sent_again,
    a_conflict_leaves_nothing_of_its_batch, an_event_counts_once,
    an_event_is_forgotten_after_its_period, an_event_of_two_pipelines_counts_in_both,
    an_event_twice_in_a_batch_counts_once, events_survive_a_restart,
    of_racing_claims_of_an_event_one_counts, only_the_first_to_see_an_event_is_told_so,
    producers_are_forgotten_after_their_period,
};
pub(super) use self::reads::{
    a_change_of_what_stored_values_mean_is_named, a_deleted_value_is_gone_and_its_events_are_not,
    a_list_has_each_value_of_its_pipeline_once, a_range_has_the_values_of_its_buckets,
    a_window_combines_its_newest_buckets, a_window_of_a_week_counts_the_buckets_that_it_found,
    all_buckets_of_an_entity_are_deleted_at_once, get_many_keeps_the_order_of_its_keys,
};

/// Passes the cases of this folder to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            a_value_is_kept_for_each_key,
            a_batch_is_merged_in_its_order,
            concurrent_merges_into_one_key_all_count,
            racing_batches_are_merged_whole,
            a_refused_delta_leaves_nothing_of_its_batch,
            a_fence_that_does_not_hold_refuses_the_merge,
            values_survive_a_restart,
            an_event_counts_once,
            an_event_twice_in_a_batch_counts_once,
            a_conflict_leaves_nothing_of_its_batch,
            of_racing_claims_of_an_event_one_counts,
            an_event_of_two_pipelines_counts_in_both,
            an_event_is_forgotten_after_its_period,
            events_survive_a_restart,
            a_cancelled_merge_counts_once_when_it_is_sent_again,
            a_batch_of_a_producer_counts_once,
            producers_are_forgotten_after_their_period,
            only_the_first_to_see_an_event_is_told_so,
            a_replay_does_not_prolong_a_windowed_value,
            the_end_of_a_window_follows_the_system_clock_of_the_first_write,
            an_update_of_an_expired_bucket_is_dropped_and_counted,
            a_merge_into_an_expired_value_starts_afresh,
            a_ttl_sets_and_extends_the_end_of_a_value,
            values_never_exceed_their_limit,
            event_ids_never_exceed_their_limit,
            producers_never_exceed_their_limit,
            a_limit_counts_what_is_live_only,
            get_many_keeps_the_order_of_its_keys,
            a_window_combines_its_newest_buckets,
            a_window_of_a_week_counts_the_buckets_that_it_found,
            a_range_has_the_values_of_its_buckets,
            a_list_has_each_value_of_its_pipeline_once,
            a_deleted_value_is_gone_and_its_events_are_not,
            all_buckets_of_an_entity_are_deleted_at_once,
            a_change_of_what_stored_values_mean_is_named,
        }
    };
}
pub(super) use cases;

use super::fixture::Fixture;

/// For how long events are remembered.
pub(super) const DEDUP: Duration = Duration::from_secs(600);
/// Longer than events are remembered in any case, with the time that a store may add.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(620);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const RETENTION: Duration = Duration::from_secs(2 * 3600);

/// Returns a pipeline of a kind, without a window, that remembers events.
pub(super) fn pipeline(name: &str, kind: &Value) -> Pipeline {
    let settings: KindSettings = serde_json::from_value(kind.clone()).expect("a table");
    Pipeline {
        name: PipelineName::parse(name).expect("valid"),
        kind: Kind::parse(&settings).expect("valid"),
        window: None,
        dedup: Some(DEDUP),
        hook: None,
    }
}

/// Returns a pipeline of integer sums.
pub(super) fn sums(name: &str) -> Arc<Pipeline> {
    Arc::new(pipeline(name, &json!({"kind": "sum"})))
}

/// Returns a pipeline of integer sums for each hour.
pub(super) fn hourly(name: &str) -> Arc<Pipeline> {
    let window = Some(Window { granularity: HOUR, retention: RETENTION });
    Arc::new(Pipeline { window, ..pipeline(name, &json!({"kind": "sum"})) })
}

pub(super) fn store(fixture: &Fixture) -> Arc<dyn AggregateStore> {
    fixture.stores.aggregates.clone().expect("the backend has aggregates")
}

pub(super) fn entity(name: impl Into<String>) -> Entity {
    Entity::parse(name).expect("valid")
}

/// Returns an update of the whole time of an entity.
pub(super) fn add(pipeline: &Pipeline, name: &str, delta: i64) -> Update {
    let delta = pipeline.kind.delta(&json!(delta), Timestamp::from_nanos(0)).expect("valid");
    let entity = entity(name);
    Update { entity, bucket: Bucket::WHOLE, delta, event: None, ttl: None, note: None }
}

/// Returns an update that carries an event, whose content is its delta.
pub(super) fn once(pipeline: &Pipeline, name: &str, delta: i64, id: &str) -> Update {
    let id = EventId::parse(pipeline.name.as_str(), id).expect("valid");
    let event = Some(Event { id, content: delta.cast_unsigned() });
    Update { event, ..add(pipeline, name, delta) }
}

pub(super) fn batch(pipeline: &Arc<Pipeline>, updates: Vec<Update>) -> Merge {
    Merge { pipeline: Arc::clone(pipeline), updates, sequence: None, fence: None }
}

/// Returns a batch of one update with its producer's number.
pub(super) fn numbered(pipeline: &Arc<Pipeline>, producer: &str, seq: u64, delta: i64) -> Merge {
    let sequence = ProducerSequence { producer: Producer::parse(producer).expect("valid"), seq };
    Merge { sequence: Some(sequence), ..batch(pipeline, vec![add(pipeline, "e", delta)]) }
}

pub(super) async fn try_merge(
    store: &Arc<dyn AggregateStore>,
    merge: Merge,
) -> StoreResult<MergeOutcome> {
    match store.merge(merge).await? {
        Fenced::Done(outcome) => Ok(outcome),
        Fenced::Refused => panic!("there was no fence"),
    }
}

pub(super) async fn merge(
    store: &Arc<dyn AggregateStore>,
    pipeline: &Arc<Pipeline>,
    updates: Vec<Update>,
) -> MergeOutcome {
    try_merge(store, batch(pipeline, updates)).await.expect("the store works")
}

pub(super) fn merged(applied: u64, duplicates: u64, expired: u64) -> MergeOutcome {
    MergeOutcome::Merged { applied, duplicates, expired }
}

/// Returns the number that a state of a sum is.
pub(super) fn number(pipeline: &Pipeline, state: &State) -> i64 {
    let value = pipeline.kind.value(state, Timestamp::from_nanos(0)).expect("of this kind");
    value.as_i64().unwrap_or_else(|| panic!("{value} is no integer"))
}

/// Reads the sum of an entity in a bucket.
pub(super) async fn sum_in(
    store: &Arc<dyn AggregateStore>,
    pipeline: &Arc<Pipeline>,
    name: &str,
    bucket: Bucket,
) -> Option<i64> {
    let found = store.get_many(pipeline, &[(entity(name), bucket)]).await;
    let found = found.expect("the store works").remove(0);
    found.map(|held| number(pipeline, &held.state))
}

/// Reads the sum of an entity.
pub(super) async fn sum(
    store: &Arc<dyn AggregateStore>,
    pipeline: &Arc<Pipeline>,
    name: &str,
) -> Option<i64> {
    sum_in(store, pipeline, name, Bucket::WHOLE).await
}
