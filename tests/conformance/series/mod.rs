//! What every store of series must do. The cases know the contract only: a plain map of
//! series is the model that they hold the store against.

mod clocks;
mod limits;
mod model;
mod reads;
mod roles;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::cursor::Cursor;
use holdall::model::series::{
    Metadata, MetricType, Point, PointLimits, SeriesId, SeriesKey, canonicalize,
};
use holdall::model::time::Timestamp;
use holdall::store::{
    Change, Delta, ErrorKind, Fenced, SeriesStore, SeriesWriter, Snapshot, UpsertCounts,
    UpsertOutcome,
};

pub(super) use self::clocks::{
    a_clock_that_is_set_back_freezes_no_series, a_sample_that_is_older_by_a_nanosecond_is_stale,
    a_sample_too_far_ahead_wins_against_nothing,
};
pub(super) use self::limits::{
    a_cursor_is_gone_exactly_below_the_low_watermark, racing_writers_never_exceed_the_bytes,
    the_bytes_of_series_are_counted_exactly, the_bytes_of_series_never_exceed_their_budget,
    the_parts_of_a_delta_have_each_series_once,
    writes_of_series_are_refused_under_a_lease_that_ended,
};
pub(super) use self::model::{
    any_order_of_steps_equals_a_plain_model,
    snapshot_and_deltas_equal_a_fresh_snapshot_under_any_concurrency,
};
pub(super) use self::reads::{
    a_cursor_is_honoured_until_a_deletion_behind_it_is_trimmed,
    a_dry_run_counts_deletions_and_deletes_nothing, a_snapshot_is_sorted_paged_and_selected,
    waiting_readers_are_woken_by_every_change,
};
pub(super) use self::roles::{
    a_series_has_the_role_of_its_newest_sample, a_writer_deletes_no_series_of_another_role,
    a_writer_overwrites_no_series_of_another_role, racing_roles_never_share_a_series,
    the_first_points_of_others_are_named_and_all_are_counted,
    the_roles_of_series_survive_a_restart,
};
use super::fixture::{Fixture, MAX_SERIES, RETENTION, Random, did_delete};

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            the_newest_sample_wins_and_keeps_its_retention,
            a_point_past_the_retention_is_stale_and_creates_nothing,
            a_point_without_a_time_is_not_older_than_one_of_the_same_millisecond,
            a_sample_too_far_ahead_wins_against_nothing,
            a_sample_that_is_older_by_a_nanosecond_is_stale,
            a_clock_that_is_set_back_freezes_no_series,
            an_expired_series_is_gone_from_every_read_and_is_a_deletion,
            expired_series_do_not_use_up_the_budget,
            a_batch_over_the_budget_changes_nothing,
            racing_writers_never_exceed_the_budget,
            values_and_metadata_are_kept_to_the_bit,
            a_snapshot_is_sorted_paged_and_selected,
            a_dry_run_counts_deletions_and_deletes_nothing,
            a_cursor_is_honoured_until_a_deletion_behind_it_is_trimmed,
            a_cursor_is_gone_exactly_below_the_low_watermark,
            the_parts_of_a_delta_have_each_series_once,
            waiting_readers_are_woken_by_every_change,
            writes_of_series_are_refused_under_a_lease_that_ended,
            the_bytes_of_series_are_counted_exactly,
            the_bytes_of_series_never_exceed_their_budget,
            racing_writers_never_exceed_the_bytes,
            a_writer_overwrites_no_series_of_another_role,
            a_writer_deletes_no_series_of_another_role,
            a_series_has_the_role_of_its_newest_sample,
            the_first_points_of_others_are_named_and_all_are_counted,
            the_roles_of_series_survive_a_restart,
            racing_roles_never_share_a_series,
            any_order_of_steps_equals_a_plain_model,
            snapshot_and_deltas_equal_a_fresh_snapshot_under_any_concurrency,
        }
    };
}
pub(super) use cases;

/// The state of all series, as a reader puts it together.
type View = BTreeMap<(String, String), Point>;

fn key_of(key: &SeriesKey) -> (String, String) {
    (key.name.to_string(), key.labels.to_string())
}

fn view_of(points: Vec<Point>) -> View {
    points.into_iter().map(|point| (key_of(&point.key), point)).collect()
}

fn apply(view: &mut View, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Upserted(point) => view.insert(key_of(&point.key), point),
            Change::Deleted(key) => view.remove(&key_of(&key)),
        };
    }
}

/// Adds a point to a batch.
pub(super) fn add(batch: &mut PointBatch, name: &str, labels: &[(&str, &str)], value: f64) {
    add_at(batch, name, labels, value, None);
}

fn add_at(
    batch: &mut PointBatch,
    name: &str,
    labels: &[(&str, &str)],
    value: f64,
    at: Option<Timestamp>,
) {
    batch
        .push_with(name, value, at, None, |out| {
            canonicalize(&mut labels.to_vec(), &PointLimits::default(), out)
        })
        .expect("valid labels");
}

fn one(name: &str, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) -> PointBatch {
    let mut batch = PointBatch::default();
    add_at(&mut batch, name, labels, value, at);
    batch
}

async fn upsert(store: &Arc<dyn SeriesStore>, batch: PointBatch) -> UpsertOutcome {
    match store.upsert(batch, SeriesWriter::anybody()).await.expect("the store works") {
        Fenced::Done(outcome) => outcome,
        Fenced::Refused => panic!("there was no fence"),
    }
}

async fn counts(store: &Arc<dyn SeriesStore>, batch: PointBatch) -> UpsertCounts {
    match upsert(store, batch).await {
        UpsertOutcome::Applied(counts) => counts,
        refused => panic!("{refused:?}"),
    }
}

async fn snapshot(store: &Arc<dyn SeriesStore>) -> Snapshot {
    store.snapshot(&[], None, usize::MAX >> 1).await.expect("the store works")
}

/// Follows `cursor` to its end; `false` when the store doesn't honour it any more.
async fn follow(
    store: &Arc<dyn SeriesStore>,
    view: &mut View,
    cursor: &mut Cursor,
    limit: usize,
) -> bool {
    loop {
        match store.delta(cursor, None, limit).await.expect("the store works") {
            Delta::Gone => return false,
            Delta::Changes { changes, next, more, .. } => {
                assert!(changes.len() <= limit);
                assert!(!more || changes.len() == limit, "more is promised, but there was room");
                let mut keys: Vec<_> = changes.iter().map(change_key).collect();
                keys.sort();
                keys.dedup();
                assert_eq!(keys.len(), changes.len(), "a series stands twice in one delta");
                apply(view, changes);
                *cursor = next;
                if !more {
                    return true;
                }
            }
        }
    }
}

fn change_key(change: &Change) -> (String, String) {
    match change {
        Change::Upserted(point) => key_of(&point.key),
        Change::Deleted(key) => key_of(key),
    }
}

pub(super) async fn the_newest_sample_wins_and_keeps_its_retention(fixture: Fixture) {
    let store = &fixture.stores.series;
    let now = fixture.clock.now();
    let newer = now.saturating_sub(Duration::from_secs(1));
    let older = now.saturating_sub(RETENTION / 2);
    let batch = one("m", &[], 1.0, Some(newer));
    assert_eq!(counts(store, batch).await, UpsertCounts { created: 1, updated: 0, stale: 0 });
    let batch = one("m", &[], 2.0, Some(older));
    assert_eq!(counts(store, batch).await, UpsertCounts { created: 0, updated: 0, stale: 1 });
    fixture.pass(RETENTION - Duration::from_secs(2)).await;
    let held = snapshot(store).await.points;
    assert_eq!(held.len(), 1, "the stale point must not shorten the life of the newer one");
    assert_eq!(held[0].sample.value.to_bits(), 1.0_f64.to_bits());
    assert_eq!(held[0].sample.updated_at, newer);
    let batch = one("m", &[], 3.0, Some(newer));
    assert_eq!(counts(store, batch).await.updated, 1, "equally old is not older");
}

pub(super) async fn a_point_without_a_time_is_not_older_than_one_of_the_same_millisecond(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let finer = fixture.clock.now().saturating_add(Duration::from_micros(456));
    counts(store, one("m", &[], 1.0, Some(finer))).await;
    let batch = one("m", &[], 2.0, None);
    assert_eq!(counts(store, batch).await, UpsertCounts { created: 0, updated: 1, stale: 0 });
    let held = &snapshot(store).await.points[0];
    assert_eq!((held.sample.value, held.sample.updated_at), (2.0, finer));
}

pub(super) async fn a_point_past_the_retention_is_stale_and_creates_nothing(fixture: Fixture) {
    let store = &fixture.stores.series;
    let old = fixture.clock.now().saturating_sub(RETENTION);
    assert_eq!(counts(store, one("m", &[], 1.0, Some(old))).await.stale, 1);
    assert!(snapshot(store).await.points.is_empty());
}

pub(super) async fn an_expired_series_is_gone_from_every_read_and_is_a_deletion(fixture: Fixture) {
    let store = &fixture.stores.series;
    counts(store, one("m", &[("a", "1")], 1.0, None)).await;
    let before = store.cursor().await.expect("the store works");
    let id = snapshot(store).await.points[0].key.id();
    fixture.pass(RETENTION).await;
    assert_eq!(store.get(id).await.expect("the store works"), None);
    assert!(snapshot(store).await.points.is_empty());
    assert_eq!(
        store.delete(id, SeriesWriter::anybody()).await.expect("the store works"),
        did_delete(0)
    );
    let delta = store.delta(&before, None, 10).await.expect("the store works");
    let Delta::Changes { changes, more: false, .. } = delta else { panic!("{delta:?}") };
    assert!(matches!(&changes[..], [Change::Deleted(key)] if key.id() == id), "{changes:?}");
    let again = counts(store, one("m", &[("a", "1")], 5.0, None)).await;
    assert_eq!(again.created, 1, "what expired is created anew");
}

/// So many series always fit: all that the budget allows where it is exact. Else shards have equal parts of
/// it, and half of it fits by far: of 50 series over 4 shards, about 12.5 lie in each, which has room
/// for 25. The ids of the series are fixed, so it fits in every run or in none.
fn sure_share(fixture: &Fixture) -> usize {
    let exact = fixture.stores.operation.capabilities().exact_budget;
    if exact { MAX_SERIES } else { MAX_SERIES / 2 }
}

/// Creates series one by one until none is accepted any more; returns how many were.
async fn fill_up(store: &Arc<dyn SeriesStore>, name: &str) -> usize {
    let mut created = 0;
    // So many that each shard gets more than it has room for.
    for i in 0..10 * MAX_SERIES {
        match upsert(store, one(name, &[("i", &i.to_string())], 1.0, None)).await {
            UpsertOutcome::Applied(counts) => created += counts.created,
            refused => assert_eq!(refused, UpsertOutcome::OverBudget { new: 1, room: 0 }),
        }
    }
    created
}

pub(super) async fn expired_series_do_not_use_up_the_budget(fixture: Fixture) {
    let store = &fixture.stores.series;
    let share = sure_share(&fixture);
    let fill = |name: &'static str| {
        let mut batch = PointBatch::default();
        for i in 0..share {
            add(&mut batch, name, &[("i", &i.to_string())], 1.0);
        }
        batch
    };
    assert_eq!(counts(store, fill("a")).await.created, share);
    assert_eq!(fill_up(store, "b").await, MAX_SERIES - share, "the whole budget can be used");
    assert_eq!(counts(store, fill("a")).await.updated, share, "known series always fit");
    fixture.pass(RETENTION).await;
    assert_eq!(counts(store, fill("c")).await.created, share);
}

pub(super) async fn a_batch_over_the_budget_changes_nothing(fixture: Fixture) {
    let store = &fixture.stores.series;
    counts(store, one("held", &[], 1.0, None)).await;
    counts(store, one("deleted", &[], 1.0, None)).await;
    let gone = SeriesId::of("deleted", "");
    assert_eq!(
        store.delete(gone, SeriesWriter::anybody()).await.expect("the store works"),
        did_delete(1)
    );
    let before = snapshot(store).await;
    let mut batch = one("held", &[], 2.0, None);
    add(&mut batch, "deleted", &[], 2.0);
    for i in 0..MAX_SERIES {
        add(&mut batch, "new", &[("i", &i.to_string())], 1.0);
    }
    let outcome = upsert(store, batch).await;
    assert!(matches!(outcome, UpsertOutcome::OverBudget { .. }), "{outcome:?}");
    let after = snapshot(store).await;
    assert_eq!(view_of(before.points), view_of(after.points));
    assert_eq!(before.cursor, after.cursor);
    assert_eq!(counts(store, one("deleted", &[], 3.0, None)).await.created, 1);
}

pub(super) async fn racing_writers_never_exceed_the_budget(fixture: Fixture) {
    let store = &fixture.stores.series;
    let atomic = fixture.stores.operation.capabilities().atomic_batches;
    let writers = (0..8).map(|writer: usize| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut random = Random::from(writer as u64);
            let (mut created, mut partial) = (0, 0);
            for round in 0..40 {
                let mut batch = PointBatch::default();
                for i in 0..random.below(MAX_SERIES / 10) + 1 {
                    // Some are shared with the other writers, most are not.
                    let who = if i % 4 == 0 { 0 } else { writer };
                    add(&mut batch, "m", &[("w", &format!("{who}-{round}-{i}"))], 1.0);
                }
                let points = batch.len();
                match store.upsert(batch, SeriesWriter::anybody()).await {
                    Ok(Fenced::Done(UpsertOutcome::Applied(counts))) => created += counts.created,
                    Ok(Fenced::Done(UpsertOutcome::OverBudget { new, room })) => {
                        assert!(new > room, "{new} new, room for {room}");
                    }
                    // Another writer used up the room while the batch was applied: the error says that
                    // a part of it was applied.
                    Err(error) if !atomic => {
                        let ErrorKind::PartlyApplied { applied } = error.kind else {
                            panic!("{error}")
                        };
                        assert!(applied > 0 && applied < points as u64, "{applied} of {points}");
                        partial += points - 1;
                    }
                    other => panic!("{other:?}"),
                }
                let live = snapshot(&store).await.points.len();
                assert!(live <= MAX_SERIES, "{live} series");
            }
            (created, partial)
        })
    });
    let (mut created, mut partial) = (0, 0);
    for writer in writers.collect::<Vec<_>>() {
        let (more_created, more_partial) = writer.await.expect("no writer panics");
        created += more_created;
        partial += more_partial;
    }
    let live = snapshot(store).await.points.len();
    // Without partial batches these are equal: each series was created exactly once.
    assert!(created <= live && live <= created + partial, "{created} {live} {partial}");
    assert!(live >= MAX_SERIES / 2, "most of the budget is used: {live}");
}

pub(super) async fn values_and_metadata_are_kept_to_the_bit(fixture: Fixture) {
    let store = &fixture.stores.series;
    let values = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        f64::MIN_POSITIVE / 2.0,
        f64::MAX,
        0.1 + 0.2,
        9_007_199_254_740_993.0,
    ];
    let metadata = Metadata {
        metric_type: MetricType::Gauge,
        help: "with \"quotes\"\nand lines".into(),
        unit: "bytes".into(),
    };
    let at = fixture.clock.now().saturating_sub(Duration::from_nanos(1));
    let mut batch = PointBatch::default();
    let index = batch.add_metadata(metadata.clone());
    for (i, value) in values.iter().enumerate() {
        batch.push("m", &format!("i=\"{i}\""), *value, Some(at), Some(index));
    }
    counts(store, batch).await;
    for (i, value) in values.iter().enumerate() {
        let id = SeriesId::of("m", &format!("i=\"{i}\""));
        let point = store.get(id).await.expect("the store works").expect("it is there");
        assert_eq!(point.sample.value.to_bits(), value.to_bits());
        assert_eq!(point.sample.updated_at, at);
        assert_eq!(point.metadata.as_deref(), Some(&metadata));
    }
    counts(store, one("m", &[("i", "0")], 5.0, None)).await;
    let id = SeriesId::of("m", "i=\"0\"");
    let point = store.get(id).await.expect("the store works").expect("it is there");
    assert_eq!(point.metadata.as_deref(), Some(&metadata), "silence leaves it as it was");
}
