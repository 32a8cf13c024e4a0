//! Tests of the stream of notes.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Api, api_of, code, send};
use crate::engine::EngineSettings;
use crate::engine::aggregates::PipelineSettings;
use crate::http::settings::for_tests;
use crate::store::StoreSettings;

const PIPELINES: &str = "[views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\n\
    dedup = \"1h\"\n[views.hook]\nstream = true\n[last]\nkind = \"last\"\n\
    [last.hook]\nstream = true\n[total]\nkind = \"sum\"\n";

fn hooked() -> Api {
    let pipelines = PipelineSettings::of_toml(PIPELINES);
    let rules = EngineSettings { pipelines, ..EngineSettings::default() };
    let mut store = StoreSettings::for_tests();
    store.aggregates.max_outbox_notes = 3;
    api_of(for_tests(), rules, &store)
}

/// Reads from a stream until there are so many events; returns the id and the notes of each.
async fn events(body: &mut Body, count: usize) -> Vec<(String, Vec<Value>)> {
    let mut text = String::new();
    while text.matches("event: notes").count() < count || !text.ends_with("\n\n") {
        let frame = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
        let frame = frame.expect("in time").expect("no end").expect("no error");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
    }
    let event = |text: &str| {
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        (id.to_owned(), data["notes"].as_array().expect("notes").clone())
    };
    text.split("\n\n").filter(|text| text.starts_with("event: notes")).map(event).collect()
}

async fn stream(api: &Api, path: &str, headers: &[(&str, &str)]) -> Body {
    let request = send("GET", path, headers, "");
    let response = api.router.clone().oneshot(request).await.expect("routers do not fail");
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

#[tokio::test]
async fn the_stream_has_a_note_for_each_update_that_was_merged() {
    let api = hooked();
    let path = "/v1/pipelines/views/stream";
    // Expired long ago.
    let seen = api.merge("views", json!([{"entity": "a", "delta": 1, "bucket": 5}])).await;
    assert_eq!(seen.json["expired"], 1);
    let now = json!([{"entity": "b", "delta": 3, "event_id": "e-3"}]);
    for _ in 0..2 {
        assert_eq!(api.merge("views", now.clone()).await.status, 200);
    }
    let mut body = stream(&api, path, &[]).await;
    let found = events(&mut body, 1).await;
    let [(id, notes)] = &found[..] else { panic!("{found:?}") };
    let note = notes.last().expect("a note");
    assert_eq!(
        (&note["entity"], &note["delta"], &note["event_id"]),
        (&json!("b"), &json!(3), &json!("e-3"))
    );
    assert!(
        note["sequence"].is_u64() && note["bucket"].is_i64() && note["at"].is_string(),
        "{note}"
    );
    assert_eq!(notes.iter().filter(|of| of["event_id"] == "e-3").count(), 1, "{notes:?}");
    // The next note comes while the reader waits, and only that one to a reader that connects again.
    let more = json!([{"entity": "c", "delta": 1}]);
    api.merge("views", more).await;
    let (next, notes) = events(&mut body, 1).await.remove(0);
    assert_eq!((notes.len(), &notes[0]["entity"]), (1, &json!("c")));
    let again = format!("{path}?cursor=made-up");
    let mut again = stream(&api, &again, &[("last-event-id", id)]).await;
    assert_eq!(events(&mut again, 1).await, [(next, notes)]);
    api.stop.cancel();
    let end = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
    end.expect("ends in time").expect("no error");
}

#[tokio::test]
async fn a_note_has_the_delta_and_the_time_that_the_update_had() {
    let api = hooked();
    let delta = json!({"b": [1.5, "é\n"], "a": null});
    let at = "2026-01-31T12:00:00.000000001Z";
    api.merge("last", json!([{"entity": "a\"b", "delta": delta, "at": at}])).await;
    let mut body = stream(&api, "/v1/pipelines/last/stream", &[]).await;
    let (_, notes) = events(&mut body, 1).await.remove(0);
    let mut note = notes[0].clone();
    assert!(note.as_object_mut().expect("an object").remove("sequence").is_some());
    assert_eq!(note, json!({"entity": "a\"b", "delta": delta, "at": at}));
}

#[tokio::test]
async fn a_stream_that_can_not_be_told_whole_is_refused() {
    let api = hooked();
    for path in ["total/stream", "none/stream"] {
        assert_eq!(code(&api.get(&format!("/v1/pipelines/{path}")).await), (404, "not_found"));
    }
    let add = |n: i64| json!([{"entity": "a", "delta": n}]);
    api.merge("views", add(1)).await;
    let mut body = stream(&api, "/v1/pipelines/views/stream?limit=1", &[]).await;
    let (first, _) = events(&mut body, 1).await.remove(0);
    let path = format!("/v1/pipelines/views/stream?cursor={first}");
    for n in 2..5 {
        api.merge("views", add(n)).await;
    }
    let mut still_there = stream(&api, &path, &[]).await;
    assert_eq!(events(&mut still_there, 1).await[0].1.len(), 3);
    api.merge("views", add(5)).await;
    assert_eq!(code(&api.get(&path).await), (410, "cursor_gone"));
    // A reader that is too slow is told so, too.
    let text = body.collect().await.expect("an end").to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("event: error") && text.contains("\"cursor_gone\""), "{text}");
    let bad = api.get("/v1/pipelines/views/stream?cursor=1").await;
    assert_eq!(code(&bad), (400, "invalid_request"));
}
