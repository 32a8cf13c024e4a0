//! Tests of the resources, over a store in memory.

mod cache;
mod cache_batches;
mod generations;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Seen, ask, get, parts};
use crate::engine::series::SeriesRules;
use crate::engine::{Engine, EngineSettings};
use crate::http::settings::{HttpSettings, for_tests};
use crate::http::{Scope, TokenSettings, router};
use crate::store::StoreSettings;
use crate::store::embedded::{EmbeddedSettings, open};

struct Api {
    router: Router,
    stop: CancellationToken,
}

fn api_with(settings: HttpSettings, rules: SeriesRules, store: &StoreSettings) -> Api {
    api_of(settings, EngineSettings { series: rules, ..EngineSettings::default() }, store)
}

fn api_of(settings: HttpSettings, rules: EngineSettings, store: &StoreSettings) -> Api {
    let (stores, clock) =
        open(&EmbeddedSettings::in_memory(), store).expect("a store in memory opens");
    let parts = parts(settings);
    parts.readiness.set_engine(Arc::new(Engine::new(stores, rules, clock)));
    let stop = parts.stop.clone();
    Api { router: router(parts), stop }
}

fn api() -> Api {
    api_with(for_tests(), SeriesRules::default(), &StoreSettings::for_tests())
}

fn send(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(body.into()).expect("a request")
}

impl Api {
    async fn get(&self, path: &str) -> Seen {
        ask(&self.router, get(path)).await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Seen {
        let json = [("content-type", "application/json")];
        ask(&self.router, send(method, path, &json, body.to_string())).await
    }

    async fn fenced(
        &self,
        method: &str,
        path: &str,
        lease: &str,
        token: i64,
        body: &Value,
    ) -> Seen {
        let token = token.to_string();
        let headers = [
            ("content-type", "application/json"),
            ("holdall-lease", lease),
            ("holdall-fencing-token", &token),
        ];
        ask(&self.router, send(method, path, &headers, body.to_string())).await
    }

    async fn push(&self, points: Value) -> Seen {
        let body = json!({"role": "leader", "source": "leader_scrape", "points": points});
        self.send("POST", "/v1/series", &body).await
    }
}

fn code(seen: &Seen) -> (u16, &str) {
    (seen.status, seen.json["code"].as_str().unwrap_or_default())
}

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
async fn refused_pushes_change_nothing_and_say_why() {
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
async fn pages_hold_every_series_once() {
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
async fn deltas_bring_what_changed_and_can_wait() {
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
async fn locks_go_to_one_and_keys_may_hold_anything() {
    let api = api();
    let ttl = json!({"ttl": "60s"});
    for key in ["plain", "a%2Fb%20c%3F", "%E2%82%AC"] {
        let path = format!("/v1/locks/job/{key}");
        assert_eq!(api.get(&path).await.json, json!({"held": false}));
        let first = api.send("POST", &path, &ttl).await.json;
        let second = api.send("POST", &path, &ttl).await;
        assert_eq!((second.status, &second.json["acquired"]), (200, &json!(false)));
        assert_eq!(first["acquired"], true);
        assert_eq!(first["expires_at"], second.json["expires_at"]);
        assert_eq!(api.get(&path).await.json["held"], true);
    }
    let body = json!({"keys": ["a/b c?", "new", "new"], "ttl": "60s"});
    let many = api.send("POST", "/v1/locks/job", &body).await;
    assert_eq!(many.json, json!({"acquired": ["new"]}));
    let other = api.send("POST", "/v1/locks/dedup/new", &ttl).await;
    assert_eq!(other.json["acquired"], true);
    assert_eq!(code(&api.send("POST", "/v1/locks/other/x", &ttl).await), (404, "not_found"));
    for ttl in ["0s", "-1s", "soon"] {
        let seen = api.send("POST", "/v1/locks/job/x", &json!({"ttl": ttl})).await;
        assert_eq!(code(&seen), (400, "invalid_request"), "{ttl}");
    }
    let too_many: Vec<_> = (0..101).map(|i| i.to_string()).collect();
    let seen = api.send("POST", "/v1/locks/job", &json!({"keys": too_many, "ttl": "1s"})).await;
    assert_eq!(code(&seen), (400, "invalid_request"));
}

#[tokio::test]
async fn leases_have_one_holder_whose_token_is_its_own() {
    let api = api();
    let ask = |holder: &str| json!({"holder": holder, "ttl": "60s"});
    let path = "/v1/leases/a%2Fb";
    let first = api.send("POST", &format!("{path}/acquire"), &ask("one")).await.json;
    assert_eq!((&first["acquired"], &first["ttl"]), (&json!(true), &json!("1m")));
    let token = first["fencing_token"].as_i64().expect("a token");
    let second = api.send("POST", &format!("{path}/acquire"), &ask("two")).await.json;
    assert_eq!((&second["acquired"], &second["holder"]), (&json!(false), &json!("one")));
    assert!(second.get("fencing_token").is_none() && second["expires_at"].is_string());
    let inspected = api.get(path).await.json;
    assert_eq!(inspected["name"], "a/b");
    assert!(inspected.get("fencing_token").is_none());
    let listed = api.get("/v1/leases?limit=5").await.json;
    assert_eq!(listed["leases"][0], inspected);
    let renew = json!({"fencing_token": token, "ttl": "120s"});
    let renewed = api.send("POST", &format!("{path}/renew"), &renew).await.json;
    assert_eq!((&renewed["ttl"], &renewed["fencing_token"]), (&json!("2m"), &json!(token)));
    let wrong = json!({"fencing_token": token + 1});
    let seen = api.send("POST", &format!("{path}/release"), &wrong).await;
    assert_eq!(code(&seen), (409, "lease_not_held"));
    let waits = json!({"holder": "two", "ttl": "60s", "wait": "30s"});
    let (waiting_path, release_path) = (format!("{path}/acquire"), format!("{path}/release"));
    let waiting = api.send("POST", &waiting_path, &waits);
    let own = json!({"fencing_token": token});
    let release = api.send("POST", &release_path, &own);
    let (granted, released) = tokio::join!(waiting, release);
    assert_eq!(released.status, 200);
    assert_eq!(granted.json["holder"], "two");
    assert!(granted.json["fencing_token"].as_i64().is_some_and(|next| next > token));
    assert_eq!(code(&api.get("/v1/leases/none").await), (404, "not_found"));
}

#[tokio::test]
async fn waiting_for_a_lease_ends_when_the_server_stops() {
    let api = api();
    let path = "/v1/leases/x/acquire";
    api.send("POST", path, &json!({"holder": "one", "ttl": "60s"})).await;
    let waits = json!({"holder": "two", "ttl": "60s", "wait": "30s"});
    let (seen, ()) = tokio::join!(api.send("POST", path, &waits), async { api.stop.cancel() });
    assert_eq!(code(&seen), (503, "stopping"));
}

#[tokio::test]
async fn checkpoints_move_forward_and_are_fenced() {
    let api = api();
    let at = |at: &str| json!({"checkpoint": at, "if_later": true});
    let path = "/v1/checkpoints/a%2Fb/c";
    let set = api.send("PUT", path, &at("2026-01-01T00:00:00.123456789Z")).await;
    assert_eq!(set.json["checkpoint"], "2026-01-01T00:00:00.123456789Z", "{}", set.json);
    assert_eq!(code(&api.get("/v1/checkpoints/a/b%2Fc").await), (404, "not_found"));
    let back = api.send("PUT", path, &at("2025-01-01T00:00:00Z")).await;
    assert_eq!(code(&back), (409, "checkpoint_not_later"));
    let blank = api.send("PUT", "/v1/checkpoints/%20/c", &at("2026-01-01T00:00:00Z")).await;
    assert_eq!(code(&blank), (400, "invalid_request"));
    let listed = api.get("/v1/checkpoints?org=a/b").await.json;
    assert_eq!(listed["checkpoints"][0]["repo"], "c");
    let lease = json!({"holder": "one", "ttl": "60s"});
    let lease = api.send("POST", "/v1/leases/l/acquire", &lease).await.json;
    let token = lease["fencing_token"].as_i64().expect("a token");
    let later = at("2026-06-01T00:00:00Z");
    let seen = api.fenced("PUT", path, "l", token + 1, &later).await;
    assert_eq!(code(&seen), (412, "fence_refused"));
    assert_eq!(api.fenced("PUT", path, "l", token, &later).await.status, 200);
    assert_eq!(api.send("DELETE", path, &Value::Null).await.status, 200);
    assert_eq!(code(&api.get(path).await), (404, "not_found"));
}

#[tokio::test]
async fn lists_are_paged() {
    let api = api();
    let body = json!({"checkpoint": "2026-01-01T00:00:00Z"});
    for (org, repo) in [("a", "1"), ("a", "2"), ("b", "1")] {
        api.send("PUT", &format!("/v1/checkpoints/{org}/{repo}"), &body).await;
        let lease = json!({"holder": "h", "ttl": "60s"});
        api.send("POST", &format!("/v1/leases/{org}{repo}/acquire"), &lease).await;
    }
    for (resource, field) in [("checkpoints", "repo"), ("leases", "name")] {
        let (mut path, mut seen) = (format!("/v1/{resource}?limit=1"), Vec::new());
        loop {
            let page = api.get(&path).await.json;
            let items = page[resource].as_array().expect("items").clone();
            seen.extend(items.iter().map(|item| item[field].as_str().unwrap_or("?").to_owned()));
            let Some(next) = page["next_page"].as_str() else { break };
            path = format!("/v1/{resource}?limit=1&page={next}");
        }
        assert_eq!(seen.len(), 3, "{resource}: {seen:?}");
    }
}

#[tokio::test]
async fn tokens_bind_roles_and_leader_writes_need_the_lease() {
    let mut settings = for_tests();
    let scopes = [Scope::Read, Scope::Write];
    settings.access.tokens = vec![TokenSettings::for_tests("secret", &scopes, Some("follower"))];
    let bound = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let push = |role: &str, source: &str| {
        let body = json!({"role": role, "source": source, "points": [{"name": "a", "value": 1}]});
        let headers = [("authorization", "Bearer secret"), ("content-type", "application/json")];
        send("POST", "/v1/series", &headers, body.to_string())
    };
    let seen = ask(&bound.router, push("leader", "leader_scrape")).await;
    assert_eq!(code(&seen), (403, "guard_refused"));
    let seen = ask(&bound.router, push("follower", "worker_backfill")).await;
    assert_eq!(seen.status, 200, "{}", seen.json);

    let rules = SeriesRules { leader_lease: Some("lead".to_owned()), ..SeriesRules::default() };
    let led = api_with(for_tests(), rules, &StoreSettings::for_tests());
    let points = json!([{"name": "a", "value": 1}]);
    assert_eq!(code(&led.push(points.clone()).await), (428, "fence_required"));
    let lease = json!({"holder": "one", "ttl": "60s"});
    let lease = led.send("POST", "/v1/leases/lead/acquire", &lease).await.json;
    let token = lease["fencing_token"].as_i64().expect("a token");
    let body = json!({"role": "leader", "source": "leader_scrape", "points": points});
    let stale = led.fenced("POST", "/v1/series", "lead", token + 5, &body).await;
    assert_eq!(code(&stale), (412, "fence_refused"));
    assert_eq!(led.fenced("POST", "/v1/series", "lead", token, &body).await.status, 200);
}

#[tokio::test]
async fn large_pushes_and_answers_are_compressed_and_whole() {
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

#[tokio::test]
async fn status_and_administration_answer() {
    let api = api();
    api.push(json!([{"name": "a", "value": 1}])).await;
    let status = api.get("/v1/status").await.json;
    assert_eq!(status["resources"][0], json!({"resource": "series", "entries": 1}));
    assert!(status["backend"].is_string());
    assert!(api.send("POST", "/v1/admin/gc", &Value::Null).await.json["removed"].is_i64());
    assert!(api.send("POST", "/v1/admin/flush", &Value::Null).await.json["flushed"].is_i64());
    assert_eq!(api.get("/readyz").await.status, 200);
}

/// Asks until `done` says yes about the page of metrics.
async fn metrics_say(router: &Router, done: impl Fn(&str) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let response = router.clone().oneshot(get("/metrics")).await.expect("routers do not fail");
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        if done(&text) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_waiter_that_hung_up_is_never_granted() {
    use tokio::io::AsyncWriteExt;
    let api = api();
    let path = "/v1/leases/x/acquire";
    let first = api.send("POST", path, &json!({"holder": "one", "ttl": "60s"})).await.json;
    let running = super::listen_with(api.router.clone(), for_tests()).await;
    let mut waiter = tokio::net::TcpStream::connect(running.address).await.expect("connects");
    let body = json!({"holder": "two", "ttl": "60s", "wait": "30s"}).to_string();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    waiter.write_all(format!("{head}{body}").as_bytes()).await.expect("sends");
    // The scrape itself is the other request.
    metrics_say(&api.router, |text| text.contains("requests_in_flight 2")).await;
    drop(waiter);
    metrics_say(&api.router, |text| text.contains("requests_in_flight 1")).await;
    let release = json!({"fencing_token": first["fencing_token"]});
    assert_eq!(api.send("POST", "/v1/leases/x/release", &release).await.status, 200);
    assert_eq!(code(&api.get("/v1/leases/x").await), (404, "not_found"));
    super::ends(running).await;
}
