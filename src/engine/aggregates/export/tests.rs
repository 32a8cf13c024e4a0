//! Exports over a store in memory: what they report adds up to what the store has.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::json;

use super::*;
use crate::clock::{Clock, ManualClock, SharedClock};
use crate::engine::aggregates::{
    AggregateEngine, AggregateRules, DeclaredPipeline, EventRules, NewUpdate, PipelineSettings,
    When,
};
use crate::model::series::SeriesKey;
use crate::model::time::Timestamp;
use crate::store::embedded::{EmbeddedSettings, open_with};
use crate::store::{StoreSettings, Stores};

const PIPELINES: &str = "[hits]\nkind = \"count\"\n\
    [hits.export]\nname = \"hits_total\"\nlabel = \"page\"\nmax_entities = 4\n\
    [codes]\nkind = \"sum\"\nexport = { name = \"codes\", type = \"counter\" }\n\
    [sizes]\nkind = \"quantiles\"\nquantiles = [0.5]\nexport = { name = \"sizes\", label = \"le\" }\n\
    [state]\nkind = \"last\"\nexport = { name = \"state\", label = \"job\" }\n\
    [heat]\nkind = \"decayed_sum\"\nhalf_life = \"1h\"\nexport = { name = \"heat\", label = \"at\" }\n";

struct Setup {
    clock: Arc<ManualClock>,
    engine: AggregateEngine,
    shown: BTreeMap<String, f64>,
}

impl Setup {
    fn new(shared: bool) -> Self {
        let clock =
            Arc::new(ManualClock::at(Timestamp::parse("2026-01-31T12:00:00Z").expect("a time")));
        let of_store: SharedClock = Arc::clone(&clock) as _;
        let (stores, _) =
            open_with(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests(), |_| of_store)
                .expect("opens");
        let Stores { aggregates, outbox, .. } = stores;
        let engine = AggregateEngine::new(
            (aggregates, outbox),
            &PipelineSettings::of_toml(PIPELINES),
            AggregateRules::default(),
            EventRules::default(),
            Arc::clone(&clock) as _,
            shared,
        );
        Self { clock, engine, shown: BTreeMap::new() }
    }

    fn declared(&self, pipeline: &str) -> Arc<DeclaredPipeline> {
        Arc::clone(self.engine.pipeline(pipeline).expect("declared"))
    }

    async fn merge(
        &self,
        pipeline: &str,
        entity: &str,
        delta: serde_json::Value,
        ttl: Option<u64>,
    ) {
        let declared = self.declared(pipeline);
        let ttl = ttl.map(Duration::from_secs);
        let new = NewUpdate { entity: entity.into(), delta, when: When::Now, event_id: None, ttl };
        let update = self.engine.reader(&declared).read(new).expect("a valid update");
        self.engine.merge(&declared, vec![update], None, None).await.expect("merged");
    }

    /// Merges 1 as another server would, of which this engine knows nothing.
    async fn merge_elsewhere(&self, pipeline: &str, entity: &str) {
        let declared = self.declared(pipeline);
        let new = NewUpdate {
            entity: entity.into(),
            delta: json!(1),
            when: When::Now,
            event_id: None,
            ttl: None,
        };
        let updates = vec![self.engine.reader(&declared).read(new).expect("a valid update")];
        let pipeline = Arc::clone(declared.pipeline());
        let merge = crate::store::Merge { pipeline, updates, sequence: None, fence: None };
        self.engine.shared_store().expect("a store").merge(merge).await.expect("merged");
    }

    async fn delete(&self, pipeline: &str, entity: &str) {
        let entity = Entity::parse(entity).expect("an entity");
        let _ = self.engine.delete(&self.declared(pipeline), &entity, None, None).await;
    }

    /// Brings what is shown up to date; returns how many changes there were.
    async fn refresh(&mut self, pipeline: &str) -> usize {
        let store = self.engine.shared_store().expect("memory has aggregates");
        let declared = self.declared(pipeline);
        let export = declared.export().expect("exported");
        let changes = export.changes(store.as_ref(), false).await.expect("the store works");
        let count = changes.len();
        for change in changes {
            match change {
                Change::Upserted(point) => {
                    self.shown.insert(point.key.to_string(), point.sample.value)
                }
                Change::Deleted(key) => self.shown.remove(&key.to_string()),
            };
        }
        count
    }

    /// Returns what a new mirror would show.
    async fn whole(&self, pipeline: &str) -> BTreeMap<String, f64> {
        let store = self.engine.shared_store().expect("memory has aggregates");
        let declared = self.declared(pipeline);
        let export = declared.export().expect("exported");
        let whole = export.changes(store.as_ref(), true).await.expect("the store works");
        let series = whole.into_iter().map(|change| match change {
            Change::Upserted(point) => (point.key.to_string(), point.sample.value),
            Change::Deleted(key) => panic!("{key} is deleted from a new mirror"),
        });
        series.collect()
    }

    /// Returns how many entities the store has.
    async fn held(&self, pipeline: &str) -> BTreeMap<String, f64> {
        let declared = self.declared(pipeline);
        let page =
            self.engine.list(declared.pipeline(), None, 1000).await.expect("the store works");
        let number =
            |state| declared.pipeline().kind.value(state, self.clock.now()).expect("its kind");
        let rows = page.values.iter().map(|(entity, _, value)| {
            let key = SeriesKey {
                name: "hits_total".into(),
                labels: format!("page=\"{entity}\"").into(),
            };
            (key.to_string(), number(&value.state).as_f64().expect("a number"))
        });
        rows.collect()
    }
}

#[tokio::test]
async fn only_what_was_merged_into_is_read_again() {
    let mut s = Setup::new(false);
    for page in ["a", "b", "c"] {
        s.merge("hits", page, json!(1), None).await;
    }
    assert_eq!(s.refresh("hits").await, 3);
    s.merge("hits", "b", json!(4), None).await;
    assert_eq!(s.refresh("hits").await, 1);
    assert_eq!(s.refresh("hits").await, 0);
    assert_eq!(s.shown, s.held("hits").await);
    // A change that was not marked is not seen: nothing else is read.
    s.merge_elsewhere("hits", "c").await;
    s.merge("hits", "b", json!(1), None).await;
    assert_eq!(s.refresh("hits").await, 1);
    s.merge("hits", "c", json!(1), None).await;
    assert_eq!(s.refresh("hits").await, 1);
    assert_eq!(s.shown, s.held("hits").await);
    s.delete("hits", "a").await;
    assert_eq!(s.refresh("hits").await, 1);
    assert_eq!(
        s.shown.keys().collect::<Vec<_>>(),
        ["hits_total{page=\"b\"}", "hits_total{page=\"c\"}"]
    );
}

#[tokio::test]
async fn a_value_leaves_when_it_ends() {
    let mut s = Setup::new(false);
    s.merge("hits", "short", json!(1), Some(60)).await;
    s.merge("hits", "long", json!(2), Some(90)).await;
    assert_eq!(s.refresh("hits").await, 2);
    s.clock.advance(Duration::from_secs(30));
    s.merge("hits", "long", json!(1), Some(3600)).await;
    s.clock.advance(Duration::from_secs(31));
    s.refresh("hits").await;
    assert_eq!(s.shown, BTreeMap::from([("hits_total{page=\"long\"}".to_owned(), 3.0)]));
    s.clock.advance(Duration::from_secs(3600));
    s.refresh("hits").await;
    assert!(s.shown.is_empty());
}

#[tokio::test]
async fn no_more_entities_are_exported_than_may_be_and_one_that_goes_gives_its_place() {
    let mut s = Setup::new(false);
    for page in ["a", "b", "c", "d"] {
        s.merge("hits", page, json!(1), None).await;
    }
    s.refresh("hits").await;
    let declared = s.declared("hits");
    let export = declared.export().expect("exported");
    assert!(!export.is_truncated());
    s.merge("hits", "0", json!(1), None).await;
    s.refresh("hits").await;
    assert_eq!((export.entities(), export.is_truncated()), (4, true));
    assert!(!s.shown.contains_key("hits_total{page=\"0\"}"), "{:?}", s.shown);
    s.delete("hits", "c").await;
    s.refresh("hits").await;
    s.refresh("hits").await;
    assert_eq!((export.entities(), export.is_truncated()), (4, false));
    assert_eq!(s.shown, s.held("hits").await);
}

#[tokio::test]
async fn entities_can_be_labels_and_what_is_none_is_counted() {
    let mut s = Setup::new(false);
    for entity in ["code=\"200\",method=\"GET\"", "method=\"GET\",code=\"200\"", "plain", "a=\"\""]
    {
        s.merge("codes", entity, json!(7), None).await;
    }
    s.refresh("codes").await;
    let shown = ("codes{code=\"200\",method=\"GET\"}".to_owned(), 7.0);
    assert_eq!(s.shown, BTreeMap::from([shown]));
    let declared = s.declared("codes");
    let export = declared.export().expect("exported");
    assert_eq!((export.entities(), export.unreadable()), (4, 3));
    assert_eq!(export.settings().metadata.metric_type.as_str(), "counter");
}

#[tokio::test]
async fn quantiles_are_a_summary_and_texts_are_not_shown() {
    let mut s = Setup::new(false);
    s.merge("sizes", "x", json!([1, 2, 3]), None).await;
    s.refresh("sizes").await;
    let names: Vec<_> = s.shown.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["sizes_count{le=\"x\"}", "sizes_sum{le=\"x\"}", "sizes{le=\"x\",quantile=\"0.5\"}"]
    );
    assert_eq!(s.shown["sizes_sum{le=\"x\"}"], 6.0);

    let mut s = Setup::new(false);
    s.merge("state", "number", json!(4.5), None).await;
    s.merge("state", "text", json!("up"), None).await;
    s.refresh("state").await;
    assert_eq!(s.shown, BTreeMap::from([("state{job=\"number\"}".to_owned(), 4.5)]));
    s.clock.advance(Duration::from_secs(1));
    s.merge("state", "number", json!("down"), None).await;
    s.refresh("state").await;
    assert!(s.shown.is_empty(), "{:?}", s.shown);
}

#[tokio::test]
async fn a_value_that_decays_is_read_at_each_refresh() {
    let mut s = Setup::new(false);
    s.merge("heat", "x", json!(8), None).await;
    s.refresh("heat").await;
    s.clock.advance(Duration::from_secs(3600));
    assert_eq!(s.refresh("heat").await, 1);
    assert_eq!(s.shown["heat{at=\"x\"}"], 4.0);
}

#[tokio::test]
async fn what_other_replicas_merge_is_seen_where_the_store_is_shared() {
    let mut s = Setup::new(true);
    s.refresh("hits").await;
    s.merge_elsewhere("hits", "a").await;
    assert_eq!(s.refresh("hits").await, 1);
}

#[tokio::test]
async fn a_change_is_marked_when_it_is_done_also_when_its_caller_is_gone() {
    let mut s = Setup::new(false);
    s.merge("hits", "a", json!(1), None).await;
    s.refresh("hits").await;
    let declared = s.declared("hits");
    let export = Arc::clone(declared.export().expect("exported"));
    let (go, waits) = tokio::sync::oneshot::channel::<()>();
    let (is_done, done) = tokio::sync::oneshot::channel::<()>();
    let store = s.engine.shared_store().expect("a store");
    let pipeline = Arc::clone(declared.pipeline());
    let change = async move {
        let _ = waits.await;
        let entity = Entity::parse("a").expect("an entity");
        let deleted = store.delete(&pipeline, &entity, None, None).await.map(drop);
        // The mark follows at once: nothing else runs on this thread in between.
        let _ = is_done.send(());
        deleted
    };
    let mut caller = Box::pin(export.marking(vec![Entity::parse("a").expect("an entity")], change));
    assert!(futures_util::poll!(caller.as_mut()).is_pending());
    drop(caller);
    assert_eq!(s.refresh("hits").await, 0);
    go.send(()).expect("the change still waits");
    done.await.expect("the change is done");
    assert_eq!(s.refresh("hits").await, 1);
    assert!(s.shown.is_empty());
}

#[tokio::test]
async fn what_was_marked_stays_marked_when_the_read_is_given_up() {
    let marks = Marks::new(2);
    marks.take().used();
    let entity = |name: &str| Entity::parse(name).expect("an entity");
    marks.add([entity("a")]);
    let taken = marks.take();
    marks.add([entity("b")]);
    drop(taken);
    assert_eq!(marks.take().marked.entities.len(), 2);
    marks.add([entity("c")]);
    assert!(marks.take().marked.all, "three are more than two");
    marks.take().used();
    assert!(!marks.take().marked.all && marks.take().marked.entities.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Merge { page: u8, ttl: Option<u64> },
    Delete(u8),
    Pass(u64),
    Refresh,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = 0..6_u8;
    let step = prop_oneof![
        4 => (page.clone(), prop::option::of(1..50_u64)).prop_map(|(page, ttl)| Step::Merge { page, ttl }),
        2 => page.prop_map(Step::Delete),
        1 => (1..40_u64).prop_map(Step::Pass),
        3 => Just(Step::Refresh),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn what_is_reported_adds_up_to_what_the_store_has(steps in steps(), shared in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut s = Setup::new(shared);
            for step in steps {
                match step {
                    Step::Merge { page, ttl } => s.merge("hits", &format!("p{page}"), json!(1), ttl).await,
                    Step::Delete(page) => s.delete("hits", &format!("p{page}")).await,
                    Step::Pass(seconds) => s.clock.advance(Duration::from_secs(seconds)),
                    Step::Refresh => { s.refresh("hits").await; }
                }
            }
            // The second one fills places that became free in the first.
            s.refresh("hits").await;
            s.refresh("hits").await;
            assert_eq!(s.shown, s.whole("hits").await);
            let held = s.held("hits").await;
            assert_eq!(s.shown.len(), held.len().min(4));
            assert!(s.shown.iter().all(|(key, value)| held.get(key) == Some(value)), "{:?} of {held:?}", s.shown);
        });
    }
}
