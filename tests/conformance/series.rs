//! What every store of series must do. The cases know the contract only: a plain map of
//! series is the model that they hold the store against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::cursor::Cursor;
use holdall::model::selector::Selector;
use holdall::model::series::{
    Metadata, MetricType, Point, PointLimits, SeriesId, SeriesKey, canonicalize,
};
use holdall::model::time::Timestamp;
use holdall::store::{Change, Delta, Fenced, SeriesStore, Snapshot, UpsertCounts, UpsertOutcome};

use super::fixture::{Fixture, MAX_SERIES, MAX_TOMBSTONES, RETENTION, Random};

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
    match store.upsert(batch, None).await.expect("the store works") {
        Fenced::Done(outcome) => outcome,
        Fenced::Refused => panic!("there was no fence"),
    }
}

async fn counts(store: &Arc<dyn SeriesStore>, batch: PointBatch) -> UpsertCounts {
    match upsert(store, batch).await {
        UpsertOutcome::Applied(counts) => counts,
        UpsertOutcome::OverBudget { new, room } => panic!("{new} new, room for {room}"),
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
        match store.delta(cursor, limit).await.expect("the store works") {
            Delta::Gone => return false,
            Delta::Changes { changes, next, more } => {
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

pub(super) async fn the_newest_sample_wins_and_keeps_its_life(fixture: Fixture) {
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
    assert_eq!(store.delete(id, None).await.expect("the store works"), Fenced::Done(false));
    let delta = store.delta(&before, 10).await.expect("the store works");
    let Delta::Changes { changes, more: false, .. } = delta else { panic!("{delta:?}") };
    assert!(matches!(&changes[..], [Change::Deleted(key)] if key.id() == id), "{changes:?}");
    let again = counts(store, one("m", &[("a", "1")], 5.0, None)).await;
    assert_eq!(again.created, 1, "what expired is created anew");
}

pub(super) async fn expired_series_do_not_use_up_the_budget(fixture: Fixture) {
    let store = &fixture.stores.series;
    let fill = |name: &'static str| {
        let mut batch = PointBatch::default();
        for i in 0..MAX_SERIES {
            add(&mut batch, name, &[("i", &i.to_string())], 1.0);
        }
        batch
    };
    assert_eq!(counts(store, fill("a")).await.created, MAX_SERIES);
    let over = upsert(store, one("b", &[], 1.0, None)).await;
    assert_eq!(over, UpsertOutcome::OverBudget { new: 1, room: 0 });
    assert_eq!(counts(store, fill("a")).await.updated, MAX_SERIES, "known series always may");
    fixture.pass(RETENTION).await;
    assert_eq!(counts(store, fill("b")).await.created, MAX_SERIES);
}

pub(super) async fn a_batch_over_the_budget_changes_nothing(fixture: Fixture) {
    let store = &fixture.stores.series;
    counts(store, one("held", &[], 1.0, None)).await;
    counts(store, one("dead", &[], 1.0, None)).await;
    let dead = SeriesId::of("dead", "");
    assert_eq!(store.delete(dead, None).await.expect("the store works"), Fenced::Done(true));
    let before = snapshot(store).await;
    let mut batch = one("held", &[], 2.0, None);
    add(&mut batch, "dead", &[], 2.0);
    for i in 0..MAX_SERIES {
        add(&mut batch, "new", &[("i", &i.to_string())], 1.0);
    }
    let outcome = upsert(store, batch).await;
    assert!(matches!(outcome, UpsertOutcome::OverBudget { .. }), "{outcome:?}");
    let after = snapshot(store).await;
    assert_eq!(view_of(before.points), view_of(after.points));
    assert_eq!(before.cursor, after.cursor);
    assert_eq!(counts(store, one("dead", &[], 3.0, None)).await.created, 1);
}

pub(super) async fn racing_writers_never_exceed_the_budget(fixture: Fixture) {
    let store = &fixture.stores.series;
    let writers = (0..8).map(|writer: usize| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut random = Random::from(writer as u64);
            let mut created = 0;
            for round in 0..40 {
                let mut batch = PointBatch::default();
                for i in 0..random.below(MAX_SERIES / 10) + 1 {
                    // Some are shared with the other writers, most are not.
                    let who = if i % 4 == 0 { 0 } else { writer };
                    add(&mut batch, "m", &[("w", &format!("{who}-{round}-{i}"))], 1.0);
                }
                if let UpsertOutcome::Applied(counts) = upsert(&store, batch).await {
                    created += counts.created;
                }
                let live = snapshot(&store).await.points.len();
                assert!(live <= MAX_SERIES, "{live} series");
            }
            created
        })
    });
    let mut created = 0;
    for writer in writers.collect::<Vec<_>>() {
        created += writer.await.expect("no writer panics");
    }
    assert_eq!(snapshot(store).await.points.len(), created, "each was created exactly once");
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

pub(super) async fn a_snapshot_is_sorted_paged_and_selected(fixture: Fixture) {
    let store = &fixture.stores.series;
    let mut batch = PointBatch::default();
    for i in (0..50).rev() {
        add(&mut batch, if i % 2 == 0 { "even" } else { "odd" }, &[("i", &format!("{i:02}"))], 1.0);
    }
    counts(store, batch).await;
    let all: Vec<_> = snapshot(store).await.points.into_iter().map(|p| p.key).collect();
    assert_eq!(all.len(), 50);
    assert!(all.is_sorted());
    let mut paged = Vec::new();
    loop {
        let page = store.snapshot(&[], paged.last(), 7).await.expect("the store works");
        paged.extend(page.points.into_iter().map(|point| point.key));
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, all);
    let selectors = ["{i=~\"0.\"}", "odd{i=\"49\"}"].map(|s| Selector::parse(s).expect("valid"));
    let some = store.snapshot(&selectors, None, 100).await.expect("the store works");
    assert_eq!(some.points.len(), 11);
    let exact = [Selector::parse("odd").expect("valid"), Selector::parse("odd").expect("valid")];
    let odd = store.snapshot(&exact, None, 100).await.expect("the store works");
    assert_eq!(odd.points.len(), 25, "a selector that stands twice selects nothing twice");
}

pub(super) async fn deletions_by_selector_can_be_tried_first(fixture: Fixture) {
    let store = &fixture.stores.series;
    let mut batch = PointBatch::default();
    for i in 0..10 {
        add(&mut batch, "m", &[("i", &i.to_string())], 1.0);
    }
    counts(store, batch).await;
    let selectors = [Selector::parse("m{i=~\"[0-3]\"}").expect("valid")];
    let tried = store.delete_matching(&selectors, true, None).await.expect("the store works");
    assert_eq!(tried, Fenced::Done(4));
    assert_eq!(snapshot(store).await.points.len(), 10);
    let done = store.delete_matching(&selectors, false, None).await.expect("the store works");
    assert_eq!(done, Fenced::Done(4));
    assert_eq!(snapshot(store).await.points.len(), 6);
}

pub(super) async fn a_cursor_is_honoured_until_a_deletion_behind_it_is_forgotten(fixture: Fixture) {
    let store = &fixture.stores.series;
    counts(store, one("kept", &[], 0.0, None)).await;
    let old = store.cursor().await.expect("the store works");
    for i in 0..MAX_TOMBSTONES {
        counts(store, one("m", &[("i", &i.to_string())], 1.0, None)).await;
    }
    let all = [Selector::parse("m").expect("valid")];
    store.delete_matching(&all, false, None).await.expect("the store works");
    for _ in 0..10 * MAX_TOMBSTONES {
        counts(store, one("kept", &[], 1.0, None)).await;
    }
    let mut view = View::new();
    assert!(follow(store, &mut view, &mut old.clone(), 10).await, "nothing was forgotten yet");
    // Each part remembers so many of its own: one deletion more than all can is forgotten by some part.
    let shards = fixture.stores.operation.capabilities().shards;
    for i in 0..=(shards - 1) * MAX_TOMBSTONES {
        let labels = i.to_string();
        counts(store, one("last", &[("i", &labels)], 1.0, None)).await;
        let straw = SeriesId::of("last", &format!("i=\"{labels}\""));
        assert_eq!(store.delete(straw, None).await.expect("the store works"), Fenced::Done(true));
    }
    assert_eq!(store.delta(&old, 10).await.expect("the store works"), Delta::Gone);
    let other = Cursor { epoch: old.epoch ^ 1, seqs: old.seqs.clone() };
    assert_eq!(store.delta(&other, 10).await.expect("the store works"), Delta::Gone);
    let ahead = store.cursor().await.expect("the store works");
    let ahead = Cursor { seqs: ahead.seqs.iter().map(|seq| seq + 1).collect(), ..ahead };
    assert_eq!(store.delta(&ahead, 10).await.expect("the store works"), Delta::Gone);
}

pub(super) async fn waiting_readers_are_woken_by_every_change(fixture: Fixture) {
    let store = &fixture.stores.series;
    let mut signal = store.changes();
    signal.mark_unchanged();
    counts(store, one("m", &[], 1.0, None)).await;
    assert!(signal.has_changed().expect("the store lives"));
    signal.mark_unchanged();
    fixture.pass(RETENTION).await;
    assert_eq!(store.expire().await.expect("the store works"), 1);
    assert!(signal.has_changed().expect("the store lives"));
}

/// One writer, many readers at their own pace, against the model, step by step.
pub(super) async fn any_order_of_steps_equals_a_plain_model(fixture: Fixture) {
    for seed in 0..20 {
        let mut steps = Steps::new(&fixture, seed).await;
        for _ in 0..150 {
            steps.step().await;
        }
        steps.everybody_agrees().await;
        steps.clean_up().await;
    }
}

/// The model, the store under test, and its readers.
struct Steps<'a> {
    fixture: &'a Fixture,
    random: Random,
    model: BTreeMap<(String, String), (u64, Timestamp)>,
    readers: Vec<(View, Cursor)>,
}

impl<'a> Steps<'a> {
    async fn new(fixture: &'a Fixture, seed: u64) -> Self {
        let mut readers = Vec::new();
        for _ in 0..3 {
            let start = snapshot(&fixture.stores.series).await;
            readers.push((view_of(start.points), start.cursor));
        }
        Self { fixture, random: Random::from(seed), model: BTreeMap::new(), readers }
    }

    async fn step(&mut self) {
        match self.random.below(10) {
            0..5 => self.push().await,
            5 => self.delete_one().await,
            6 => self.delete_some().await,
            7 => {
                let part = u32::try_from(self.random.below(4)).expect("small") + 1;
                self.fixture.pass(RETENTION / 10 * part).await;
                self.expire();
            }
            _ => {
                let reader = self.random.below(self.readers.len());
                self.read(reader).await;
            }
        }
    }

    fn expire(&mut self) {
        let oldest = self.fixture.clock.now().saturating_sub(RETENTION);
        self.model.retain(|_, (_, at)| *at > oldest);
    }

    async fn push(&mut self) {
        let now = self.fixture.clock.now();
        let mut batch = PointBatch::default();
        let mut expected = UpsertCounts::default();
        let mut model = self.model.clone();
        for _ in 0..self.random.below(30) {
            let labels = format!("i=\"{}\"", self.random.below(40));
            let name = ["a", "b", "c"][self.random.below(3)];
            let value = f64::from(u32::try_from(self.random.below(1000)).expect("small"));
            let age = RETENTION / 8 * u32::try_from(self.random.below(10)).expect("small");
            let at = now.saturating_sub(age);
            batch.push(name, &labels, value, Some(at), None);
            if at <= now.saturating_sub(RETENTION) {
                expected.stale += 1;
                continue;
            }
            let key = (name.to_owned(), labels);
            match model.get(&key) {
                Some((_, held)) if *held > at => {
                    expected.stale += 1;
                    continue;
                }
                Some(_) => expected.updated += 1,
                None => expected.created += 1,
            }
            model.insert(key, (value.to_bits(), at));
        }
        let outcome = upsert(&self.fixture.stores.series, batch).await;
        if model.len() <= MAX_SERIES {
            assert_eq!(outcome, UpsertOutcome::Applied(expected));
            self.model = model;
        } else {
            assert!(matches!(outcome, UpsertOutcome::OverBudget { .. }));
        }
    }

    async fn delete_one(&mut self) {
        let name = ["a", "b", "c"][self.random.below(3)];
        let labels = format!("i=\"{}\"", self.random.below(40));
        let id = SeriesId::of(name, &labels);
        let was_there = self.model.remove(&(name.to_owned(), labels)).is_some();
        let deleted = self.fixture.stores.series.delete(id, None).await.expect("the store works");
        assert_eq!(deleted, Fenced::Done(was_there));
    }

    async fn delete_some(&mut self) {
        let digit = self.random.below(4).to_string();
        let selector = Selector::parse(&format!("{{i=~\"{digit}.?\"}}")).expect("valid");
        let matches = |labels: &str| labels.starts_with(&format!("i=\"{digit}"));
        let expected = self.model.keys().filter(|(_, labels)| matches(labels)).count();
        self.model.retain(|(_, labels), _| !matches(labels));
        let store = &self.fixture.stores.series;
        let deleted = store.delete_matching(&[selector], false, None).await;
        assert_eq!(deleted.expect("the store works"), Fenced::Done(expected));
    }

    /// Brings one reader up to date and compares it with the model.
    async fn read(&mut self, reader: usize) {
        let store = &self.fixture.stores.series;
        let limit = self.random.below(20) + 1;
        let (view, cursor) = &mut self.readers[reader];
        if !follow(store, view, cursor, limit).await {
            let start = snapshot(store).await;
            (*view, *cursor) = (view_of(start.points), start.cursor);
        }
        let seen: BTreeMap<_, _> = view
            .iter()
            .map(|(key, point)| {
                (key.clone(), (point.sample.value.to_bits(), point.sample.updated_at))
            })
            .collect();
        assert_eq!(seen, self.model);
    }

    async fn everybody_agrees(&mut self) {
        for reader in 0..self.readers.len() {
            self.read(reader).await;
        }
        let fresh = snapshot(&self.fixture.stores.series).await;
        for (view, _) in &self.readers {
            assert_eq!(*view, view_of(fresh.points.clone()));
        }
    }

    async fn clean_up(&mut self) {
        let all = [Selector::parse("{i=~\".+\"}").expect("valid")];
        let store = &self.fixture.stores.series;
        store.delete_matching(&all, false, None).await.expect("the store works");
    }
}

/// Writers and readers at the same time: whatever a reader missed would stay different.
pub(super) async fn snapshot_and_deltas_equal_a_fresh_snapshot_under_any_concurrency(
    fixture: Fixture,
) {
    let done = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..4)
        .map(|seed| {
            let store = Arc::clone(&fixture.stores.series);
            let clock = fixture.clock.clone();
            tokio::spawn(async move {
                let mut random = Random::from(seed);
                for _ in 0..400 {
                    write_anything(&store, &mut random).await;
                    if random.below(20) == 0 {
                        clock.pass(RETENTION / 20).await;
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|seed| {
            let store = Arc::clone(&fixture.stores.series);
            let done = done.clone();
            tokio::spawn(async move {
                let mut random = Random::from(100 + seed);
                let start = snapshot(&store).await;
                let (mut view, mut cursor) = (view_of(start.points), start.cursor);
                let mut restarts = 0;
                loop {
                    let last = done.is_cancelled();
                    if !follow(&store, &mut view, &mut cursor, random.below(50) + 1).await {
                        restarts += 1;
                        let start = snapshot(&store).await;
                        (view, cursor) = (view_of(start.points), start.cursor);
                    }
                    if last {
                        return (view, restarts);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    done.cancel();
    let mut views = Vec::new();
    for reader in readers {
        views.push(reader.await.expect("no reader panics").0);
    }
    let fresh = view_of(snapshot(&fixture.stores.series).await.points);
    for view in views {
        assert_eq!(view, fresh);
    }
}

async fn write_anything(store: &Arc<dyn SeriesStore>, random: &mut Random) {
    match random.below(8) {
        0 => {
            let id = SeriesId::of("m", &format!("i=\"{}\"", random.below(60)));
            store.delete(id, None).await.expect("the store works");
        }
        1 => {
            let digit = random.below(6);
            let selector = Selector::parse(&format!("m{{i=~\"{digit}.\"}}")).expect("valid");
            store.delete_matching(&[selector], false, None).await.expect("the store works");
        }
        _ => {
            let mut batch = PointBatch::default();
            for _ in 0..random.below(20) {
                let value = f64::from(u32::try_from(random.below(1 << 20)).expect("small"));
                batch.push("m", &format!("i=\"{}\"", random.below(60)), value, None, None);
            }
            upsert(store, batch).await;
        }
    }
}
