//! Aggregates: any sequence of merges, of which some fail, some lose their response and are sent again, with restarts and
//! kills in between, returns what a plain model returns. So each event counts once, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;
use serde_json::json;

use super::notes::{ModelOutbox, compare_outboxes, hook, note};
use super::{Fixture, MINUTE};
use crate::clock::Clock;
use crate::model::aggregates::{
    Bucket, Entity, Event, EventId, Producer, ProducerSequence, Update,
};
use crate::model::merge::{Kind, KindSettings};
use crate::model::pipelines::{Pipeline, PipelineName, Window};
use crate::model::time::Timestamp;
use crate::store::{AggregateStore, Fenced, Merge, MergeOutcome, OutboxStore};

const DEDUP: Duration = Duration::from_secs(90);
const RETENTION: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
struct Change {
    entity: u8,
    /// So many buckets before the present one.
    back: u8,
    delta: i64,
    event: Option<u8>,
    ttl_seconds: Option<u8>,
}

/// What happens to a merge.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Responds,
    /// Its commit fails.
    Fails,
    /// The caller goes away before the response.
    Cancelled,
}

#[derive(Debug, Clone)]
enum Step {
    Merge { windowed: bool, changes: Vec<Change>, sequence: Option<(u8, u64)>, fate: Fate },
    MarkSeen { ids: Vec<u8> },
    Delete { windowed: bool, entity: u8, all: bool },
    Deliver { windowed: bool, notes: u8 },
    Advance { seconds: u8 },
    Purge,
    Compaction { rows: u8 },
    Restart,
    Kill,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let delta = prop_oneof![8 => -5..100_i64, 1 => Just(i64::MAX - 50)];
    let change = (
        0..4_u8,
        0..5_u8,
        delta,
        prop::option::of(0..8_u8),
        prop::option::weighted(0.2, 1..200_u8),
    );
    let change = change.prop_map(|(entity, back, delta, event, ttl_seconds)| {
        // Mostly the same content for the same event.
        let delta = event.filter(|event| *event > 1).map_or(delta, i64::from);
        Change { entity, back, delta, event, ttl_seconds }
    });
    prop::collection::vec(change, 0..6)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate =
        prop_oneof![3 => Just(Fate::Responds), 1 => Just(Fate::Fails), 1 => Just(Fate::Cancelled)];
    let sequence = prop::option::weighted(0.3, (0..2_u8, 0..5_u64));
    let step = prop_oneof![
        10 => (any::<bool>(), changes(), sequence, fate).prop_map(|(windowed, changes, sequence, fate)| {
            Step::Merge { windowed, changes, sequence, fate }
        }),
        1 => prop::collection::vec(0..4_u8, 0..4).prop_map(|ids| Step::MarkSeen { ids }),
        1 => (any::<bool>(), 0..4_u8, any::<bool>())
            .prop_map(|(windowed, entity, all)| Step::Delete { windowed, entity, all }),
        2 => (any::<bool>(), 1..6_u8).prop_map(|(windowed, notes)| Step::Deliver { windowed, notes }),
        3 => (1..100_u8).prop_map(|seconds| Step::Advance { seconds }),
        1 => Just(Step::Purge),
        3 => (1..20_u8).prop_map(|rows| Step::Compaction { rows }),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is held, as simply as possible.
#[derive(Default)]
struct Model {
    values: BTreeMap<(bool, Entity, Bucket), (i64, Option<Timestamp>)>,
    events: BTreeMap<EventId, (u64, Timestamp)>,
    producers: BTreeMap<(bool, Producer), (u64, Timestamp)>,
    outboxes: BTreeMap<bool, ModelOutbox>,
}

/// Returns when an event is forgotten: at the next of the moments that are five seconds apart.
fn forgotten_at(now: Timestamp) -> Timestamp {
    let step = 5_000_000_000_i128;
    let since = i128::from(now.saturating_add(DEDUP).as_nanos()) - i128::from(i64::MIN);
    let end = (since + step - 1) / step * step + i128::from(i64::MIN);
    Timestamp::from_nanos(i64::try_from(end).expect("a time"))
}

impl Model {
    fn expire(&mut self, now: Timestamp) {
        self.values.retain(|_, (_, end)| end.is_none_or(|end| now < end));
        self.events.retain(|_, (_, end)| now < *end);
        self.producers.retain(|_, (_, end)| now < *end);
    }

    /// Does what a merge promises. Of a refusal, the reason is left out.
    fn merge(&mut self, merge: &Merge, now: Timestamp) -> Result<(u64, u64, u64), MergeOutcome> {
        let windowed = merge.pipeline.window.is_some();
        if let Some(ProducerSequence { producer, seq }) = &merge.sequence {
            match self.producers.get(&(windowed, producer.clone())) {
                Some((last, _)) if seq <= last => return Ok((0, merge.updates.len() as u64, 0)),
                Some((last, _)) if *seq > last + 1 => {
                    return Err(MergeOutcome::SequenceGap { expected: last + 1 });
                }
                _ => {}
            }
        }
        let conflict = |index| Err(MergeOutcome::Conflict { index });
        let (mut values, mut events) = (self.values.clone(), self.events.clone());
        let (mut counts, mut refused, mut applied) = ((0, 0, 0), None, Vec::new());
        for (index, update) in merge.updates.iter().enumerate() {
            let end = merge.pipeline.window.map(|window| {
                update.bucket.end(window.granularity).saturating_add(window.retention)
            });
            let is_expired = end.is_some_and(|end| end <= now);
            match update.event.map(|event| (event, events.get(&event.id))) {
                Some((event, Some((content, _)))) if *content == event.content => {
                    counts.1 += 1;
                    continue;
                }
                Some((_, Some(_))) => return conflict(index),
                Some((event, None)) if !is_expired => {
                    events.insert(event.id, (event.content, forgotten_at(now)));
                }
                _ => {}
            }
            if is_expired {
                counts.2 += 1;
                continue;
            }
            counts.0 += 1;
            applied.push(update);
            let delta = merge.pipeline.kind.value(&update.delta, now).expect("of this kind");
            let delta = delta.as_i64().expect("an integer");
            let key = (windowed, update.entity.clone(), update.bucket);
            let (sum, held_end) = values.entry(key).or_insert((0, end));
            match sum.checked_add(delta) {
                Some(added) => *sum = added,
                None => refused = refused.or(Some(index)),
            }
            *held_end =
                (*held_end).max(update.ttl.map(|ttl| whole_millis(now.saturating_add(ttl))));
        }
        if let Some(index) = refused {
            let why = crate::model::merge::MergeError::Overflow("");
            return Err(MergeOutcome::Refused { index, why });
        }
        (self.values, self.events) = (values, events);
        self.outboxes.entry(windowed).or_default().add(applied.into_iter());
        if let Some(ProducerSequence { producer, seq }) = &merge.sequence {
            let end = whole_millis(now.saturating_add(DEDUP));
            self.producers.insert((windowed, producer.clone()), (*seq, end));
        }
        Ok(counts)
    }
}

/// Rounds up, as all ends are.
fn whole_millis(at: Timestamp) -> Timestamp {
    at.saturating_add(Duration::from_nanos(999_999)).floor_to_millis()
}

pub(super) fn pipeline(windowed: bool) -> Arc<Pipeline> {
    let settings: KindSettings = serde_json::from_value(json!({"kind": "sum"})).expect("a table");
    let window = Window { granularity: MINUTE, retention: RETENTION };
    Arc::new(Pipeline {
        name: PipelineName::parse(if windowed { "a" } else { "b" }).expect("valid"),
        kind: Kind::parse(&settings).expect("valid"),
        window: windowed.then_some(window),
        dedup: Some(DEDUP),
        hook: Some(hook(!windowed)),
    })
}

fn entity(number: u8) -> Entity {
    Entity::parse(format!("entity {number}")).expect("valid")
}

fn a_merge(
    windowed: bool,
    changes: &[Change],
    sequence: Option<(u8, u64)>,
    now: Timestamp,
) -> Merge {
    let pipeline = pipeline(windowed);
    let present = Bucket::of(now, MINUTE);
    let update = |change: &Change| Update {
        entity: entity(change.entity),
        bucket: if windowed { present.back(change.back.into()) } else { Bucket::WHOLE },
        delta: pipeline.kind.delta(&json!(change.delta), now).expect("valid"),
        event: change.event.map(|id| Event {
            id: EventId::parse(pipeline.name.as_str(), &id.to_string()).expect("valid"),
            content: change.delta.cast_unsigned(),
        }),
        ttl: change.ttl_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        note: Some(note(change.entity, change.back.into(), change.delta)),
    };
    let sequence = sequence.map(|(producer, seq)| ProducerSequence {
        producer: Producer::parse(producer.to_string()).expect("valid"),
        seq,
    });
    let updates = changes.iter().map(update).collect();
    Merge { pipeline: Arc::clone(&pipeline), updates, sequence, fence: None }
}

fn assert_same(outcome: &Fenced<MergeOutcome>, expected: &Result<(u64, u64, u64), MergeOutcome>) {
    let Fenced::Done(outcome) = outcome else { panic!("there was no fence") };
    match (outcome, expected) {
        (MergeOutcome::Merged { applied, duplicates, expired }, Ok(expected)) => {
            assert_eq!((*applied, *duplicates, *expired), *expected);
        }
        (
            MergeOutcome::Refused { index, .. },
            Err(MergeOutcome::Refused { index: expected, .. }),
        ) => assert_eq!(index, expected),
        (outcome, expected) => assert_eq!(Err(outcome), expected.as_ref().map(|_| ())),
    }
}

async fn merge_step(fixture: &Fixture, model: &mut Model, merge: Merge, fate: Fate) {
    let store: &dyn AggregateStore = &*fixture.store;
    let now = fixture.clock.now();
    match fate {
        Fate::Responds => {}
        Fate::Fails => {
            fixture.before_next_commit(|file| {
                let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON journal BEGIN
                    SELECT RAISE(ABORT, 'as the test wants'); END";
                file.connection().execute_batch(trigger).expect("creates");
            });
            // What changes nothing needs no commit, and what is not committed has changed nothing.
            if let Ok(outcome) = store.merge(merge.clone()).await {
                assert_same(&outcome, &model.merge(&merge, now));
            }
            fixture.before_next_commit(|file| {
                file.connection().execute_batch("DROP TRIGGER IF EXISTS fail").expect("drops");
            });
        }
        Fate::Cancelled => {
            // The command is in the queue, and nobody waits for it.
            let response = store.merge(merge.clone()).now_or_never();
            let expected = model.merge(&merge, now);
            if let Some(outcome) = response {
                assert_same(&outcome.expect("responds"), &expected);
            }
        }
    }
    // It is sent again, as by everybody who has got no response.
    let outcome = store.merge(merge.clone()).await.expect("responds");
    assert_same(&outcome, &model.merge(&merge, now));
}

async fn compare(fixture: &Fixture, model: &Model) {
    let store: &dyn AggregateStore = &*fixture.store;
    let counts = ["event_ids", "producers"].map(|resource| fixture.entries(resource));
    assert_eq!(counts, [model.events.len() as u64, model.producers.len() as u64]);
    let mut found = BTreeMap::new();
    for windowed in [true, false] {
        let pipeline = pipeline(windowed);
        let page = store.list(&pipeline, None, 1_000).await.expect("responds");
        assert_eq!(page.next, None);
        for (entity, bucket, held) in page.values {
            let sum = pipeline.kind.value(&held.state, fixture.clock.now()).expect("of this kind");
            let sum = sum.as_i64().expect("an integer");
            found.insert((windowed, entity, bucket), (sum, held.expires_at));
        }
    }
    assert_eq!(found, model.values);
}

/// A read of all buckets as one window finds the same, though it is another way.
async fn compare_windows(fixture: &Fixture, model: &Model) {
    let pipeline = pipeline(true);
    let newest = Bucket::of(fixture.clock.now(), MINUTE);
    let entities: Vec<_> = (0..4).map(entity).collect();
    for buckets in [3, 100] {
        let found = fixture.store.window(&pipeline, &entities, newest, buckets).await;
        for (found, entity) in found.expect("responds").into_iter().zip(&entities) {
            let oldest = newest.back(buckets - 1);
            let within =
                model.values.range((true, entity.clone(), oldest)..=(true, entity.clone(), newest));
            let sums: Vec<i64> = within.map(|(_, (sum, _))| *sum).collect();
            match sums.iter().try_fold(0_i64, |all, sum| all.checked_add(*sum)) {
                None => assert!(found.is_err()),
                Some(sum) => {
                    let found = found.expect("can be combined").map(|found| {
                        let now = fixture.clock.now();
                        (pipeline.kind.value(&found.state, now).expect("of this kind"), found.found)
                    });
                    let count = u32::try_from(sums.len()).expect("few");
                    assert_eq!(found, (count > 0).then(|| (json!(sum), count)));
                }
            }
        }
    }
}

async fn mark_step(fixture: &Fixture, model: &mut Model, ids: &[u8]) {
    let ids: Vec<_> =
        ids.iter().map(|id| EventId::parse("seen", &id.to_string()).expect("valid")).collect();
    let first = fixture.store.mark_seen(&ids, DEDUP).await.expect("responds");
    let end = forgotten_at(fixture.clock.now());
    let expected: Vec<_> = ids.into_iter().map(|id| model.events.insert(id, (0, end))).collect();
    // What was there keeps its end.
    assert_eq!(first, expected.iter().map(Option::is_none).collect::<Vec<_>>());
}

async fn delete_step(fixture: &Fixture, model: &mut Model, windowed: bool, of: u8, all: bool) {
    let pipeline = pipeline(windowed);
    let present = Bucket::of(fixture.clock.now(), MINUTE);
    let one = (!all).then_some(if windowed { present } else { Bucket::WHOLE });
    let store: &dyn AggregateStore = &*fixture.store;
    let deleted = store.delete(&pipeline, &entity(of), one, None).await.expect("responds");
    let before = model.values.len();
    model.values.retain(|(of_window, name, bucket), _| {
        *of_window != windowed || *name != entity(of) || one.is_some_and(|one| one != *bucket)
    });
    assert_eq!(deleted, Fenced::Done((before - model.values.len()) as u64));
}

async fn run(steps: Vec<Step>) {
    let mut fixture = Fixture::new();
    let mut model = Model::default();
    let pipelines = [true, false].map(pipeline);
    fixture.store.open_outboxes(&pipelines).await.expect("opens");
    for step in steps {
        match step {
            Step::Merge { windowed, changes, sequence, fate } => {
                let merge = a_merge(windowed, &changes, sequence, fixture.clock.now());
                merge_step(&fixture, &mut model, merge, fate).await;
            }
            Step::MarkSeen { ids } => {
                let known: BTreeSet<_> = model.events.clone().into_iter().collect();
                mark_step(&fixture, &mut model, &ids).await;
                model.events.extend(known);
            }
            Step::Delete { windowed, entity, all } => {
                delete_step(&fixture, &mut model, windowed, entity, all).await;
            }
            Step::Deliver { windowed, notes } => {
                let outbox = model.outboxes.entry(windowed).or_default();
                outbox.deliver(&fixture, windowed, notes.into()).await;
            }
            Step::Advance { seconds } => {
                fixture.clock.advance(Duration::from_secs(seconds.into()));
            }
            Step::Purge => drop(fixture.store.purge().await.expect("purges")),
            Step::Compaction { rows } => {
                let rows = usize::from(rows);
                fixture.before_next_commit(move |file| file.compact(rows).expect("compacts"));
            }
            Step::Restart => fixture = fixture.restart().await,
            Step::Kill => fixture = fixture.kill(),
        }
        model.expire(fixture.clock.now());
        compare(&fixture, &model).await;
        compare_windows(&fixture, &model).await;
        compare_outboxes(&fixture, &mut model.outboxes).await;
    }
}

proptest! {
    #![proptest_config(Config::with_cases(64))]

    #[test]
    fn any_sequence_of_merges_counts_each_event_once(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(run(steps));
    }
}
