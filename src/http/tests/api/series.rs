//! Tests of series.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{api, api_with, ask, code, get, send};
use crate::engine::series::SeriesRules;
use crate::http::settings::for_tests;
use crate::store::StoreSettings;

#[tokio::test]
async fn series_are_pushed_read_and_deleted() {
    let api = api();
    let seen = api
        .push(json!([
            {"name": "b", "labels": {"x": "1/2 \"é\"\n"}, "value": 1.5, "type": "gauge"},
            {"name": "a", "labels": {}, "value": null, "special": "-Inf"},
        ]))
        .await;
    assert_eq!(seen.json, json!({"created": 2, "updated": 0, "stale": 0}), "{}", seen.status);
    let all = api.get("/v1/series").await.json;
    assert_eq!(all["points"][0]["name"], "a");
    assert_eq!(all["points"][0]["special"], "-Inf");
    assert_eq!(all["points"][1]["labels"]["x"], "1/2 \"é\"\n");
    assert_eq!(all["points"][1]["type"], "gauge");
    assert!(all["cursor"].is_string() && all.get("next_page").is_none());
    let id = all["points"][1]["id"].as_str().expect("an id");
    let one = api.get(&format!("/v1/series/{id}")).await;
    assert_eq!(one.json, all["points"][1]);
    let dry = json!({"match": ["a"], "dry_run": true});
    let dry = api.send("POST", "/v1/series/delete", &dry).await;
    assert_eq!(dry.json, json!({"matched": 1, "deleted": 0}));
    let delete = api.send("POST", "/v1/series/delete", &json!({"match": ["a"]})).await;
    assert_eq!(delete.json, json!({"matched": 1, "deleted": 1}));
    let path = format!("/v1/series/{id}");
    assert_eq!(api.send("DELETE", &path, &Value::Null).await.status, 200);
    assert_eq!(code(&api.send("DELETE", &path, &Value::Null).await), (404, "not_found"));
    assert_eq!(code(&api.get(&path).await), (404, "not_found"));
    assert_eq!(code(&api.get("/v1/series/xyz").await), (400, "invalid_request"));
    let none = api.send("POST", "/v1/series/delete", &json!({"match": []})).await;
    assert_eq!(code(&none), (400, "invalid_request"));
}

#[tokio::test]
async fn every_format_reads_the_same() {
    let api = api();
    let bodies = [
        ("text/plain; version=0.0.4", "a{x=\"1\"} 2\n"),
        ("application/openmetrics-text; version=1.0.0", "a{x=\"1\"} 2\n# EOF\n"),
        ("application/x-ndjson", "{\"name\":\"a\",\"labels\":{\"x\":\"1\"},\"value\":2}\n"),
    ];
    for (media, body) in bodies {
        let path = "/v1/series?role=leader&source=leader_scrape";
        let seen = ask(&api.router, send("POST", path, &[("content-type", media)], body)).await;
        assert_eq!(seen.status, 200, "{media}: {}", seen.json);
    }
    let all = api.get("/v1/series").await.json;
    assert_eq!(all["points"].as_array().map(Vec::len), Some(1));
    let lacks = send("POST", "/v1/series", &[("content-type", "text/plain")], "a 1\n");
    assert_eq!(code(&ask(&api.router, lacks).await), (400, "invalid_request"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let form = ask(&api.router, send("POST", "/v1/series", &form, "a=1")).await;
    assert_eq!(code(&form), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn refused_pushes_change_nothing_and_have_a_code() {
    let mut store = StoreSettings::for_tests();
    store.series.max_series = 2;
    let api = api_with(for_tests(), SeriesRules::default(), &store);
    let good = json!({"name": "a", "labels": {}, "value": 1});
    let bad = json!({"name": "0", "labels": {}, "value": 1});
    let seen = api.push(json!([good, bad])).await;
    assert_eq!(code(&seen), (422, "invalid_points"));
    assert_eq!(seen.json["total_errors"], 1);
    let pointer = seen.json["errors"][0]["pointer"].as_str().expect("a pointer");
    assert!(pointer.starts_with("/points/1"), "{pointer}");
    let late = json!({"name": "a", "labels": {}, "value": 1, "updated_at": "2199-01-01T00:00:00Z"});
    assert_eq!(code(&api.push(json!([good, late])).await), (422, "invalid_points"));
    let many: Vec<_> = (0..3).map(|i| json!({"name": format!("a{i}"), "value": 1})).collect();
    assert_eq!(code(&api.push(json!(many)).await), (422, "series_budget_exceeded"));
    for (role, source) in
        [("leader", "worker_backfill"), ("nobody", "leader_scrape"), ("leader", "x")]
    {
        let body = json!({"role": role, "source": source, "points": [good]});
        let seen = api.send("POST", "/v1/series", &body).await;
        assert_eq!(code(&seen), (403, "guard_refused"), "{role} {source}");
    }
    assert_eq!(api.get("/v1/series").await.json["points"], json!([]));
}

#[tokio::test]
async fn pages_contain_every_series_once() {
    let api = api();
    let points: Vec<_> = (0..25)
        .map(|i| json!({"name": "m", "labels": {"i": format!("{i:02}")}, "value": i}))
        .collect();
    api.push(json!(points)).await;
    let (mut path, mut seen, mut cursors) =
        ("/v1/series?limit=10".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = api.get(&path).await.json;
        for point in page["points"].as_array().expect("points") {
            seen.push(point["labels"]["i"].as_str().expect("a label").to_owned());
        }
        cursors.push(page["cursor"].clone());
        let Some(next) = page["next_page"].as_str() else { break };
        path = format!("/v1/series?limit=10&page={next}");
        // Changes in between do not move the cursor of the snapshot.
        api.push(json!([{"name": "m", "labels": {"i": "00"}, "value": 99}])).await;
    }
    let expected: Vec<_> = (0..25).map(|i| format!("{i:02}")).collect();
    assert_eq!(seen, expected);
    assert!(cursors.iter().all(|cursor| *cursor == cursors[0]));
    let some = api.get("/v1/series?match[]=m%7Bi=%2201%22%7D&match[]=m%7Bi=~%220[23]%22%7D").await;
    assert_eq!(some.json["points"].as_array().map(Vec::len), Some(3), "{}", some.json);
    let bad = api.get("/v1/series?match[]=%7B").await;
    assert_eq!(code(&bad), (400, "invalid_request"));
    assert_eq!(code(&api.get("/v1/series?page=zz").await), (400, "invalid_request"));
}

#[tokio::test]
async fn deltas_contain_what_changed_and_can_wait() {
    let api = api();
    let cursor = api.get("/v1/series/cursor").await.json["cursor"].clone();
    let path = format!("/v1/series/delta?wait=30s&cursor={}", cursor.as_str().expect("a cursor"));
    let wait = api.get(&path);
    let push = api.push(json!([{"name": "a", "labels": {}, "value": 1}]));
    let (delta, _) = tokio::join!(wait, push);
    assert_eq!(delta.json["events"][0]["point"]["name"], "a", "{}", delta.json);
    assert_eq!(delta.json["events"][0]["deleted"], false);
    assert_eq!(delta.json["more"], false);
    let gone = api.get("/v1/series/delta?cursor=0000000000000001-5").await;
    assert_eq!(code(&gone), (410, "cursor_gone"));
    let gone = api.get("/v1/series/stream?cursor=0000000000000001-5").await;
    assert_eq!(code(&gone), (410, "cursor_gone"));
    let next = delta.json["next_cursor"].as_str().expect("a cursor");
    let long = format!("/v1/series/delta?wait=1h&cursor={next}");
    assert_eq!(code(&api.get(&long).await), (400, "invalid_request"));
    let path = format!("/v1/series/delta?wait=30s&cursor={next}");
    let (delta, ()) = tokio::join!(api.get(&path), async { api.stop.cancel() });
    assert_eq!(delta.json, json!({"events": [], "next_cursor": next, "more": false}));
}

#[tokio::test]
async fn the_stream_sends_changes_until_the_server_stops() {
    let api = api();
    let cursor = api.get("/v1/series/cursor").await.json["cursor"].clone();
    let path = format!("/v1/series/stream?cursor={}", cursor.as_str().expect("a cursor"));
    let response = api.router.clone().oneshot(get(&path)).await.expect("routers do not fail");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body();
    api.push(json!([{"name": "a", "labels": {}, "value": 1}])).await;
    let mut text = String::new();
    while !text.contains("event: change") {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
        let frame = frame.expect("in time").expect("no end").expect("no error");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
    }
    let data = text.split("data: ").nth(1).expect("data").trim();
    let delta: Value = serde_json::from_str(data).expect("JSON");
    assert!(text.contains(&format!("id: {}\n", delta["next_cursor"].as_str().expect("a cursor"))));
    api.stop.cancel();
    let end = tokio::time::timeout(Duration::from_secs(10), body.collect()).await;
    end.expect("ends in time").expect("no error");
}

#[tokio::test]
async fn large_pushes_and_responses_are_compressed_and_complete() {
    use std::io::{Read, Write};
    let mut settings = for_tests();
    settings.limits.max_page_items = 10_000;
    let api = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let text: String = (0..5000).map(|i| format!("metric{{series=\"{i:05}\"}} {i}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("to memory");
    let headers = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    let path = "/v1/series?role=leader&source=leader_scrape";
    let body = gzip.finish().expect("to memory");
    let seen = ask(&api.router, send("POST", path, &headers, body)).await;
    assert_eq!(seen.json["created"], 5000, "{}", seen.json);
    let request = send("GET", "/v1/series?limit=10000", &[("accept-encoding", "gzip")], "");
    let response = api.router.clone().oneshot(request).await.expect("routers do not fail");
    let headers: HeaderMap = response.headers().clone();
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut plain).expect("gzip");
    let json: Value = serde_json::from_str(&plain).expect("JSON");
    assert_eq!(json["points"].as_array().map(Vec::len), Some(5000));
}
