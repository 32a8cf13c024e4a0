//! Tests of the resources, over a store in memory.

mod aggregate_reads;
mod aggregates;
mod cache;
mod cache_batches;
mod generations;
mod limits;
mod locks_and_leases;
mod series;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Seen, ask, get, parts};
use crate::engine::series::SeriesRules;
use crate::engine::{Engine, EngineSettings};
use crate::http::router;
use crate::http::settings::{HttpSettings, for_tests};
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
async fn status_and_administration_respond() {
    let api = api();
    api.push(json!([{"name": "a", "value": 1}])).await;
    let status = api.get("/v1/status").await.json;
    let series = &status["resources"][0];
    assert_eq!((&series["resource"], &series["entries"]), (&json!("series"), &json!(1)));
    assert!(series["bytes"].as_u64() > Some(0), "{series}");
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
async fn a_key_can_have_the_name_of_a_verb() {
    let api = api();
    let lease = json!({"holder": "one", "ttl": "60s"});
    let checkpoint = json!({"checkpoint": "2026-01-01T00:00:00Z"});
    for key in ["snapshot", "bump", "get", "put", "batch", "delete", "acquire", "release"] {
        let lock = format!("/v1/locks/job/{key}");
        let got = api.send("POST", &lock, &json!({"ttl": "60s"})).await.json;
        assert_eq!(got["acquired"], true, "{key}");
        assert_eq!(api.get(&lock).await.json["held"], true, "{key}");
        let name = format!("/v1/leases/{key}");
        let got = api.send("POST", &format!("{name}/acquire"), &lease).await.json;
        assert_eq!(got["acquired"], true, "{key}");
        assert_eq!(api.get(&name).await.json["name"], key);
        let path = format!("/v1/checkpoints/{key}/{key}");
        assert_eq!(api.send("PUT", &path, &checkpoint).await.status, 200, "{key}");
        assert_eq!(api.get(&path).await.json["repo"], key);
    }
}

#[tokio::test]
async fn responses_are_compressed_with_zstd_for_clients_that_prefer_it() {
    let router = api().router;
    let plain = ask(&router, get("/openapi.json")).await;
    let request =
        send("GET", "/openapi.json", &[("accept-encoding", "gzip;q=0.5, zstd")], Body::empty());
    let seen = ask(&router, request).await;
    assert_eq!(seen.headers["content-encoding"], "zstd");
    assert!(seen.bytes.len() < plain.bytes.len() / 2);
    assert_eq!(zstd::decode_all(&seen.bytes[..]).expect("a whole stream"), plain.bytes);
}
