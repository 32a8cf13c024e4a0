//! Tests of the rules, over a store in memory.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;

const PIPELINES: &str = "[views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\n\
    dedup = \"1h\"\n[total]\nkind = \"sum\"\n";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

fn engine() -> AggregateEngine {
    let clock = Arc::new(ManualClock::at(at("2026-01-01T12:30:00Z")));
    let pipelines = PipelineSettings::of_toml(PIPELINES);
    let (rules, events) = (AggregateRules::default(), EventRules::default());
    AggregateEngine::new((None, None), &pipelines, rules, events, clock, false)
}

fn update(delta: Value, when: When, event_id: Option<&str>) -> NewUpdate<'static> {
    let event_id = event_id.map(|id| Cow::Owned(id.to_owned()));
    NewUpdate { entity: "page".into(), delta, when, event_id, ttl: None }
}

fn read(pipeline: &str, new: NewUpdate<'_>) -> Result<Update, UpdateError> {
    let engine = engine();
    let declared = engine.pipeline(pipeline).expect("declared");
    engine.reader(declared).read(new)
}

fn bucket(pipeline: &str, when: When) -> Result<i64, &'static str> {
    match read(pipeline, update(json!(1), when, None)) {
        Ok(update) => Ok(update.bucket.0),
        Err(UpdateError::Invalid { field, .. }) => Err(field),
        Err(UpdateError::NoDeduplication) => Err("dedup"),
    }
}

#[test]
fn an_update_belongs_to_the_bucket_of_its_time() {
    let noon = 490_908;
    assert_eq!(bucket("views", When::Now), Ok(noon));
    assert_eq!(bucket("views", When::At(at("2026-01-01T12:00:00Z"))), Ok(noon));
    assert_eq!(bucket("views", When::At(at("2026-01-01T11:59:59.999999999Z"))), Ok(noon - 1));
    assert_eq!(bucket("views", When::At(at("1969-12-31T23:59:59Z"))), Ok(-1));
    assert_eq!(bucket("views", When::Bucket(-7)), Ok(-7));
    assert_eq!(bucket("total", When::Now), Ok(0));
    assert_eq!(bucket("total", When::At(at("2026-01-01T12:00:00Z"))), Ok(0));
    assert_eq!(bucket("total", When::Bucket(1)), Err("bucket"));
}

#[test]
fn an_update_too_far_in_the_future_is_refused() {
    assert_eq!(bucket("total", When::At(at("2026-01-01T12:40:00Z"))), Ok(0));
    assert_eq!(bucket("total", When::At(at("2026-01-01T12:40:00.000000001Z"))), Err("at"));
    let next = 490_909;
    assert_eq!(bucket("views", When::Bucket(next)), Err("bucket"));
    assert_eq!(bucket("views", When::Bucket(i64::MAX)), Err("bucket"));
    assert_eq!(bucket("views", When::Bucket(i64::MIN)), Ok(i64::MIN));
}

#[test]
fn only_a_pipeline_with_dedup_takes_event_ids_and_producers() {
    let event = |pipeline, id| read(pipeline, update(json!(1), When::Now, Some(id)));
    assert!(event("views", "e-1").is_ok_and(|update| update.event.is_some()));
    assert_eq!(event("total", "e-1"), Err(UpdateError::NoDeduplication));
    let engine = engine();
    let sequence = |pipeline, producer, seq| {
        engine.reader(engine.pipeline(pipeline).expect("declared")).sequence(producer, seq)
    };
    assert!(sequence("views", "worker", 0).is_ok());
    assert_eq!(sequence("total", "worker", 0), Err(UpdateError::NoDeduplication));
    assert!(sequence("views", "", 0).is_err() && sequence("views", "worker", -1).is_err());
}

#[test]
fn an_event_is_known_by_its_id_and_its_pipeline_and_its_content_is_kept() {
    let event = |delta, id| {
        let read = read("views", update(delta, When::Now, Some(id)));
        read.expect("valid").event.expect("an event")
    };
    let first = event(json!(1), "a");
    assert_eq!(event(json!(1.0), "a"), first);
    assert_eq!(event(json!(2), "a").id, first.id);
    assert_ne!(event(json!(2), "a").content, first.content);
    assert_ne!(event(json!(1), "b").id, first.id);
    let seen = engine().seen_ids(&["a".to_owned()]).expect("valid");
    assert_ne!(seen[0], first.id);
}

#[test]
fn an_update_that_is_not_valid_names_its_field() {
    let field = |new| match read("views", new) {
        Err(UpdateError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(update(json!("x"), When::Now, None)), "delta");
    assert_eq!(field(update(json!(1), When::Now, Some(""))), "event_id");
    let entity = Cow::Borrowed("");
    assert_eq!(field(NewUpdate { entity, ..update(json!(1), When::Now, None) }), "entity");
}

#[tokio::test]
async fn without_a_store_of_aggregates_no_pipeline_can_be_declared() {
    let error = engine().declare().await.expect_err("there is no store");
    assert!(error.to_string().contains("keeps no aggregates"), "{error}");
    let none = AggregateEngine::new(
        (None, None),
        &PipelineSettings::default(),
        AggregateRules::default(),
        EventRules::default(),
        Arc::new(ManualClock::at(at("2026-01-01T12:30:00Z"))),
        false,
    );
    none.declare().await.expect("there is nothing to keep");
    assert!(matches!(none.mark_seen(&[]).await, Err(EngineError::Store(_))));
}
