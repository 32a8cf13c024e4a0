//! Tests of how much one request may ask for, how long it may take, and which others it denies.

use std::time::Duration;

use axum::body::Body;
use serde_json::json;
use tower::ServiceExt;

use super::{api, api_with, ask, code, get, metrics_say, send};
use crate::engine::series::SeriesRules;
use crate::http::settings::for_tests;
use crate::store::StoreSettings;

#[tokio::test]
async fn requests_that_wait_for_changes_deny_no_request_a_lease() {
    let mut settings = for_tests();
    settings.limits.waiting_requests = 1;
    settings.limits.concurrent_requests = 1;
    let api = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let cursor = api.get("/v1/series/cursor").await.json["cursor"].clone();
    let path = format!("/v1/series/stream?cursor={}", cursor.as_str().expect("a cursor"));
    let stream = api.router.clone().oneshot(get(&path)).await.expect("routers do not fail");
    assert_eq!(stream.status(), 200);
    assert_eq!(code(&ask(&api.router, get(&path)).await), (503, "overloaded"));
    // A delta that waits counts like a stream; one that does not wait is served.
    let delta = path.replace("stream", "delta");
    assert_eq!(
        code(&ask(&api.router, get(&format!("{delta}&wait=30s"))).await),
        (503, "overloaded")
    );
    assert_eq!(ask(&api.router, get(&delta)).await.status, 200);
    let path = "/v1/leases/x/acquire";
    let taken = api.send("POST", path, &json!({"holder": "one", "ttl": "60s"})).await;
    assert_eq!(taken.json["acquired"], true, "{}", taken.json);
    let waits = json!({"holder": "two", "ttl": "60s", "wait": "30s"});
    let second = async {
        metrics_say(&api.router, |page| page.contains("requests_in_flight 2")).await;
        // One waits, so no other request may wait, but requests that do not wait get a response.
        assert_eq!(code(&api.send("POST", path, &waits).await), (503, "overloaded"));
        let prompt = api.send("POST", path, &json!({"holder": "two", "ttl": "60s"})).await;
        assert_eq!(prompt.json["acquired"], false, "{}", prompt.json);
        api.stop.cancel();
    };
    let (ended, ()) = tokio::join!(api.send("POST", path, &waits), second);
    assert_eq!(code(&ended), (503, "stopping"));
    drop(stream);
}

#[tokio::test]
async fn a_push_over_a_slow_connection_arrives() {
    let mut settings = for_tests();
    settings.timeouts.request = Duration::from_millis(20);
    let api = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let slow = |lines: &'static [&'static str]| {
        Body::from_stream(futures_util::stream::unfold(lines.iter(), |mut lines| async move {
            let pause = Duration::from_millis(50);
            let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
            Some((Ok::<_, std::convert::Infallible>(*lines.next()?), lines))
        }))
    };
    let path = "/v1/series?role=leader&source=leader_scrape";
    let text = [("content-type", "text/plain")];
    let push = send("POST", path, &text, slow(&["a 1\n", "b 2\n"]));
    assert_eq!(ask(&api.router, push).await.json["created"], 2);
    let json = [("content-type", "application/json")];
    let lock = send("POST", "/v1/locks/job/x", &json, slow(&["{\"ttl\":", "\"1s\"}"]));
    assert_eq!(code(&ask(&api.router, lock).await), (503, "request_timeout"));
}

#[tokio::test]
async fn expressions_are_bounded_over_all_selectors_of_a_request() {
    let api = api();
    api.push(json!([{"name": "a", "labels": {"x": "1"}, "value": 1}])).await;
    // Ten for each request, see `for_tests`.
    let all = |count| {
        let more = format!("a{{{}}}", "x!~\"2\",".repeat(count));
        json!({"match": ["a{x=~\"1|2\"}", more]})
    };
    let nine = api.send("POST", "/v1/series/delete", &all(9)).await;
    assert_eq!(nine.json, json!({"matched": 1, "deleted": 1}));
    let ten = api.send("POST", "/v1/series/delete", &all(10)).await;
    assert_eq!(code(&ten), (400, "invalid_request"));
    let broken =
        api.send("POST", "/v1/series/delete", &json!({"match": ["a", "a{x=~\"(\"}"]})).await;
    assert_eq!(broken.json["errors"][0]["pointer"], "/match/1");
}

#[tokio::test]
async fn each_limit_on_a_number_of_entries_has_a_code_and_the_status_shows_it() {
    let mut store = StoreSettings::for_tests();
    store.locks.max_locks = 1;
    store.leases.max_leases = 1;
    store.checkpoints.max_checkpoints = 1;
    store.generations.max_generations = 1;
    let api = api_with(for_tests(), SeriesRules::default(), &store);
    let ttl = json!({"ttl": "60s"});
    let lease = json!({"ttl": "60s", "holder": "one"});
    let checkpoint = json!({"checkpoint": "2026-11-21T10:00:00Z"});
    let requests = [
        ("locks", "POST", "/v1/locks/job/{}", &ttl),
        ("leases", "POST", "/v1/leases/{}/acquire", &lease),
        ("checkpoints", "PUT", "/v1/checkpoints/org/{}", &checkpoint),
        ("generations", "POST", "/v1/generations/{}/bump", &json!(null)),
    ];
    for (resource, method, path, body) in requests {
        let [one, other] = ["one", "other"].map(|key| path.replace("{}", key));
        assert_eq!(api.send(method, &one, body).await.status, 200, "{resource}");
        let refused = api.send(method, &other, body).await;
        assert_eq!(code(&refused), (507, &*format!("too_many_{resource}")));
        assert_eq!(api.send(method, &one, body).await.status, 200, "{resource}");
        let status = api.get("/v1/status").await.json;
        let held = json!({"resource": resource, "entries": 1, "limit": 1});
        assert!(status["resources"].as_array().is_some_and(|all| all.contains(&held)), "{status}");
    }
}
