//! Random steps on a store of series, held against a plain map: by one writer step by step, and by many at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdall::model::batch::PointBatch;
use holdall::model::cursor::Cursor;
use holdall::model::selector::Selector;
use holdall::model::series::SeriesId;
use holdall::model::time::Timestamp;
use holdall::store::{
    DeleteOutcome, Fenced, SeriesStore, SeriesWriter, UpsertCounts, UpsertOutcome,
};

use super::roles::{bound, unbound};
use super::{View, follow, snapshot, sure_share, upsert, view_of};
use crate::conformance::fixture::{Fixture, MAX_SERIES, RETENTION, Random, did_delete};

/// One writer, many readers at their own pace, against the model, step by step.
pub(in crate::conformance) async fn any_order_of_steps_equals_a_plain_model(fixture: Fixture) {
    for seed in 0..20 {
        let mut steps = Steps::new(&fixture, seed).await;
        for _ in 0..150 {
            steps.step().await;
        }
        steps.everybody_agrees().await;
        steps.clean_up().await;
    }
}

/// What the model holds of a series.
#[derive(Debug, Clone, Copy)]
struct Held {
    bits: u64,
    at: Timestamp,
    role: &'static str,
}

/// A writer, its role, and the roles whose series it may change.
type Choice = (SeriesWriter, &'static str, &'static [&'static str]);

/// The model, the store under test, and its readers.
struct Steps<'a> {
    fixture: &'a Fixture,
    random: Random,
    model: BTreeMap<(String, String), Held>,
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
        self.model.retain(|_, held| held.at > oldest);
    }

    /// Picks who writes next: mostly somebody who may change every series.
    fn writer(&mut self) -> Choice {
        match self.random.below(6) {
            0 => (bound("leader", &[]), "leader", &["leader"]),
            1 => (bound("follower", &[]), "follower", &["follower"]),
            2 => (bound("leader", &["follower"]), "leader", &["leader", "follower"]),
            3 => (unbound("follower"), "follower", &["leader", "follower"]),
            _ => (unbound("leader"), "leader", &["leader", "follower"]),
        }
    }

    async fn push(&mut self) {
        let (writer, role, may_change) = self.writer();
        let mut others = Vec::new();
        let now = self.fixture.clock.now();
        let mut batch = PointBatch::default();
        let mut expected = UpsertCounts::default();
        let mut model = self.model.clone();
        for position in 0..self.random.below(30) {
            let labels = format!("i=\"{}\"", self.random.below(40));
            let name = ["a", "b", "c"][self.random.below(3)];
            let key = (name.to_owned(), labels.clone());
            // By the state before the batch, since none of it is applied then.
            if self.model.get(&key).is_some_and(|held| !may_change.contains(&held.role)) {
                others.push(position);
            }
            let value = f64::from(u32::try_from(self.random.below(1000)).expect("small"));
            let age = RETENTION / 8 * u32::try_from(self.random.below(10)).expect("small");
            let at = now.saturating_sub(age);
            batch.push(name, &labels, value, Some(at), None);
            if at <= now.saturating_sub(RETENTION) {
                expected.stale += 1;
                continue;
            }
            match model.get(&key) {
                Some(held) if held.at > at => {
                    expected.stale += 1;
                    continue;
                }
                Some(_) => expected.updated += 1,
                None => expected.created += 1,
            }
            model.insert(key, Held { bits: value.to_bits(), at, role });
        }
        let outcome = self.fixture.stores.series.upsert(batch, writer).await;
        let Ok(Fenced::Done(outcome)) = outcome else { panic!("{outcome:?}") };
        if let UpsertOutcome::OthersSeries(found) = &outcome {
            let found: Vec<usize> = found.first.iter().map(|(position, _)| *position).collect();
            assert_eq!(found, others);
        } else if let UpsertOutcome::OverBudget { new, room } = outcome {
            // Nothing was changed, which the readers find when they compare with the model.
            assert!(new > room, "{new} new, room for {room}");
            assert!(model.len() > sure_share(self.fixture), "{} series", model.len());
        } else {
            assert!(others.is_empty(), "points of others were applied: {others:?}");
            assert_eq!(outcome, UpsertOutcome::Applied(expected));
            assert!(model.len() <= MAX_SERIES, "{} series", model.len());
            self.model = model;
        }
    }

    async fn delete_one(&mut self) {
        let name = ["a", "b", "c"][self.random.below(3)];
        let labels = format!("i=\"{}\"", self.random.below(40));
        let id = SeriesId::of(name, &labels);
        let (writer, _, may_change) = self.writer();
        let key = (name.to_owned(), labels);
        let held = self.model.get(&key).map(|held| held.role);
        let is_others = held.is_some_and(|role| !may_change.contains(&role));
        let outcome = self.fixture.stores.series.delete(id, writer).await.expect("it works");
        if is_others {
            let refused = matches!(outcome, Fenced::Done(DeleteOutcome::OthersSeries(_)));
            assert!(refused, "{outcome:?}");
            return;
        }
        assert_eq!(outcome, did_delete(usize::from(held.is_some())));
        self.model.remove(&key);
    }

    async fn delete_some(&mut self) {
        let digit = self.random.below(4).to_string();
        let selector = Selector::parse(&format!("{{i=~\"{digit}.?\"}}")).expect("valid");
        let matches = |labels: &str| labels.starts_with(&format!("i=\"{digit}"));
        let (writer, _, may_change) = self.writer();
        let matching = || self.model.iter().filter(|((_, labels), _)| matches(labels));
        let expected = matching().count();
        let others = matching().filter(|(_, held)| !may_change.contains(&held.role)).count();
        let store = &self.fixture.stores.series;
        let outcome = store.delete_matching(&[selector], false, writer).await;
        match outcome.expect("the store works") {
            Fenced::Done(DeleteOutcome::OthersSeries(found)) => assert_eq!(found.total, others),
            outcome => {
                assert_eq!((outcome, others), (did_delete(expected), 0));
                self.model.retain(|(_, labels), _| !matches(labels));
            }
        }
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
        let held = self.model.iter().map(|(key, held)| (key.clone(), (held.bits, held.at)));
        assert_eq!(seen, held.collect());
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
        store.delete_matching(&all, false, SeriesWriter::anybody()).await.expect("the store works");
    }
}

/// Writers and readers at the same time: whatever a reader missed would stay different.
pub(in crate::conformance) async fn snapshot_and_deltas_equal_a_fresh_snapshot_under_any_concurrency(
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
            store.delete(id, SeriesWriter::anybody()).await.expect("the store works");
        }
        1 => {
            let digit = random.below(6);
            let selector = Selector::parse(&format!("m{{i=~\"{digit}.\"}}")).expect("valid");
            store
                .delete_matching(&[selector], false, SeriesWriter::anybody())
                .await
                .expect("the store works");
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
