//! Tests of the cache, one value at a time.

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use serde_json::json;
use tower::ServiceExt;

use super::{Api, Seen, api, api_of, ask, code, get, metrics_say, send};
use crate::engine::EngineSettings;
use crate::engine::cache::CacheRules;
use crate::http::settings::for_tests;
use crate::store::StoreSettings;

const VALUE: &str = "/v1/cache/pages/a%2Fb";

fn rules(rules: CacheRules) -> EngineSettings {
    EngineSettings { cache: rules, ..EngineSettings::default() }
}

fn text<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

/// Puts a value under the fence that a lookup gave.
async fn put(api: &Api, path: &str, fence: &str, headers: &[(&str, &str)], body: &[u8]) -> Seen {
    let path = format!("{path}{}fence={fence}", if path.contains('?') { '&' } else { '?' });
    ask(&api.router, send("PUT", &path, headers, Body::from(body.to_vec()))).await
}

async fn fence(api: &Api, path: &str) -> String {
    let miss = api.get(path).await;
    assert_eq!(code(&miss), (404, "cache_miss"), "{}", miss.json);
    text(&miss, "holdall-fence").to_owned()
}

#[tokio::test]
async fn a_value_comes_back_as_the_bytes_it_was_until_its_generation_moves() {
    let api = api();
    let miss = api.get(VALUE).await;
    assert_eq!(code(&miss), (404, "cache_miss"));
    let said = json!({"reason": "absent", "generation": 0, "fence": text(&miss, "holdall-fence")});
    assert_eq!(miss.json["miss"], said, "no turn for who did not ask for one");
    assert_eq!(text(&miss, "holdall-miss"), "absent");
    assert_eq!(text(&miss, "holdall-generation"), "0");
    assert_eq!(text(&miss, "cache-control"), "no-store");
    assert_eq!(text(&miss, "vary"), "Authorization");
    assert!(!miss.headers.contains_key("holdall-fill"));

    let bytes = [0, 0xff, b'\n', 0x80];
    let old = text(&miss, "holdall-fence");
    let kind = [("content-type", "image/x-test; q=1")];
    let held = put(&api, VALUE, old, &kind, &bytes).await;
    assert_eq!(held.status, 200, "{}", held.json);
    let hit = api.get(VALUE).await;
    assert_eq!((hit.status, &hit.bytes[..]), (200, &bytes[..]));
    assert_eq!(text(&hit, "content-type"), "image/x-test; q=1");
    assert_eq!(text(&hit, "etag"), format!("{:?}", held.json["etag"].as_str().expect("text")));
    assert_eq!(text(&hit, "cache-control"), "no-cache, no-transform");
    assert_eq!(text(&hit, "vary"), "Authorization");
    assert_eq!(text(&hit, "x-content-type-options"), "nosniff");
    assert_eq!(text(&hit, "content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(text(&hit, "holdall-generation"), "0");
    assert!(!hit.headers.contains_key(header::CONTENT_ENCODING));

    let bumped = api.send("POST", "/v1/generations/a%2Fb/bump", &json!(null)).await.json;
    let stale = api.get(VALUE).await;
    assert_eq!(stale.json["miss"]["reason"], "stale");
    assert_eq!(stale.json["miss"]["fence"], bumped["fence"]);
    let late = put(&api, VALUE, old, &[], b"made before the bump").await;
    assert_eq!(code(&late), (412, "generation_moved"));
    assert_eq!(late.json["moved"], bumped);
    let again = put(&api, VALUE, bumped["fence"].as_str().expect("text"), &[], b"").await;
    assert_eq!(again.status, 200, "{}", again.json);
    let hit = api.get(VALUE).await;
    assert_eq!((hit.status, hit.bytes.len()), (200, 0), "an empty value is a value");
    assert_eq!(text(&hit, "content-type"), "application/octet-stream");
}

#[tokio::test]
async fn a_value_that_the_client_has_is_not_sent_again() {
    let api = api();
    let held = put(&api, VALUE, &fence(&api, VALUE).await, &[], b"bytes").await;
    let etag = format!("\"{}\"", held.json["etag"].as_str().expect("text"));
    for known in [etag.as_str(), "*", &format!("\"x\", W/{etag}")] {
        let same = send("GET", VALUE, &[("if-none-match", known)], Body::empty());
        let same = ask(&api.router, same).await;
        assert_eq!((same.status, same.bytes.len()), (304, 0), "{known}");
        assert_eq!(text(&same, "etag"), etag);
        assert_eq!(text(&same, "cache-control"), "no-cache, no-transform");
        assert_eq!(text(&same, "vary"), "Authorization");
        assert!(!text(&same, "holdall-fence").is_empty());
    }
    let other = send("GET", VALUE, &[("if-none-match", "\"x\"")], Body::empty());
    assert_eq!(ask(&api.router, other).await.status, 200);
    let head = ask(&api.router, send("HEAD", VALUE, &[], Body::empty())).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    assert_eq!((text(&head, "etag"), text(&head, "content-length")), (etag.as_str(), "5"));
    let put_again = put(&api, VALUE, text(&head, "holdall-fence"), &[], b"others").await;
    assert_ne!(put_again.json["etag"], held.json["etag"]);
    assert_eq!(api.send("DELETE", VALUE, &json!(null)).await.json, json!({"deleted": true}));
    assert_eq!(code(&api.send("DELETE", VALUE, &json!(null)).await), (404, "not_found"));
    let gone = send("GET", VALUE, &[("if-none-match", "*")], Body::empty());
    assert_eq!(code(&ask(&api.router, gone).await), (404, "cache_miss"));
    let head = ask(&api.router, send("HEAD", VALUE, &[], Body::empty())).await;
    assert_eq!((head.status, head.bytes.len()), (404, 0));
    assert_eq!(text(&head, "holdall-miss"), "absent");
}

#[tokio::test]
async fn a_put_names_either_a_fence_or_a_generation() {
    let api = api();
    let put = async |query: &str| {
        let path = format!("{VALUE}?{query}");
        ask(&api.router, send("PUT", &path, &[], Body::from("x"))).await
    };
    assert_eq!(code(&put("").await), (428, "generation_required"));
    assert_eq!(code(&api.get(&format!("{VALUE}?generation_key=")).await), (400, "invalid_request"));
    let fence = fence(&api, VALUE).await;
    let both = put(&format!("fence={fence}&generation=0")).await;
    assert_eq!(code(&both), (400, "invalid_request"));
    for query in
        ["fence=", "fence=7", "fence=ffffffffffffffff", "generation=-1", "generation=x", "x=1"]
    {
        assert_eq!(put(query).await.status, 400, "{query}");
    }
    for query in ["ttl=0s", "ttl=1", "fill=x", "fill=", "generation_key="] {
        let query = format!("generation=0&{query}");
        assert_eq!(put(&query).await.status, 400, "{query}");
    }
    assert_eq!(code(&put("generation=1").await), (412, "generation_moved"));
    assert_eq!(put("generation=0.0").await.status, 200);
    // A fence of a moment that has not come.
    assert_eq!(code(&put("fence=7fffffffffffffff").await), (412, "generation_moved"));
    let kind = [("content-type", "text/plain; x=\"é\"")];
    let path = format!("{VALUE}?generation=0");
    let odd = ask(&api.router, send("PUT", &path, &kind, Body::empty())).await;
    assert_eq!(code(&odd), (400, "invalid_request"));
}

#[tokio::test]
async fn a_value_may_depend_on_another_key() {
    let api = api();
    let path = format!("{VALUE}?generation_key=source");
    let fence = fence(&api, &path).await;
    let held = put(&api, &format!("{path}&ttl=1h"), &fence, &[], b"x").await;
    assert_eq!(held.status, 200, "{}", held.json);
    assert_eq!(api.get(&path).await.status, 200);
    api.send("POST", "/v1/generations/a%2Fb/bump", &json!(null)).await;
    assert_eq!(api.get(&path).await.status, 200, "its own key is nothing to it");
    api.send("POST", "/v1/generations/source/bump", &json!(null)).await;
    assert_eq!(api.get(&path).await.json["miss"]["reason"], "stale");
}

#[tokio::test]
async fn large_values_and_many_namespaces_are_refused() {
    let cache = CacheRules { max_value_bytes: 10, ..CacheRules::default() };
    let mut store = StoreSettings::for_tests();
    store.cache.max_namespaces = 1;
    let api = api_of(for_tests(), rules(cache), &store);
    let fence = fence(&api, VALUE).await;
    assert_eq!(put(&api, VALUE, &fence, &[], &[b'x'; 10]).await.status, 200);
    let large = put(&api, VALUE, &fence, &[], &[b'x'; 11]).await;
    assert_eq!(code(&large), (413, "value_too_large"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &[b'x'; 5000]).expect("in memory");
    let gzip = gzip.finish().expect("in memory");
    let encoded = [("content-encoding", "gzip")];
    let large = put(&api, VALUE, &fence, &encoded, &gzip).await;
    assert_eq!(code(&large), (413, "value_too_large"));
    let other = put(&api, "/v1/cache/other/k", &fence, &[], b"x").await;
    assert_eq!(code(&other), (422, "too_many_namespaces"));
    let name = "n".repeat(200);
    let long = api.get(&format!("/v1/cache/{name}/k")).await;
    assert_eq!(code(&long), (400, "invalid_request"));
}

#[tokio::test]
async fn encoded_bodies_are_stored_decoded() {
    let api = api();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"plain").expect("in memory");
    let gzip = gzip.finish().expect("in memory");
    let fence = fence(&api, VALUE).await;
    let encoded = [("content-encoding", "gzip")];
    assert_eq!(put(&api, VALUE, &fence, &encoded, &gzip).await.status, 200);
    let mut asked = get(VALUE);
    asked.headers_mut().insert(header::ACCEPT_ENCODING, "gzip".parse().expect("a header"));
    let hit = ask(&api.router, asked).await;
    assert_eq!(&hit.bytes[..], b"plain");
    assert!(!hit.headers.contains_key(header::CONTENT_ENCODING));
}

#[tokio::test]
async fn one_caller_fills_and_the_others_wait() {
    let api = api();
    let turn = api.get(&format!("{VALUE}?fill=30s")).await;
    let fill = text(&turn, "holdall-fill").to_owned();
    assert_eq!(turn.json["miss"]["fill"], fill);
    assert!(!text(&turn, "holdall-fill-expires-at").is_empty());
    assert_eq!(turn.json["miss"]["fill_expires_at"], text(&turn, "holdall-fill-expires-at"));
    let second = api.get(&format!("{VALUE}?wait=0s")).await;
    assert_eq!(code(&second), (404, "cache_miss"));
    assert!(second.json["miss"].get("fill").is_none(), "{}", second.json);
    let fills = async {
        metrics_say(&api.router, |page| page.contains("requests_in_flight 2")).await;
        let path = format!("{VALUE}?fill={fill}");
        put(&api, &path, text(&turn, "holdall-fence"), &[], b"made once").await
    };
    let path = format!("{VALUE}?wait=30s");
    let (waited, filled) = tokio::join!(api.get(&path), fills);
    assert_eq!(filled.status, 200, "{}", filled.json);
    assert_eq!((waited.status, &waited.bytes[..]), (200, &b"made once"[..]));
}

#[tokio::test]
async fn a_caller_that_gives_up_passes_the_claim_on() {
    let api = api();
    let turn = api.get(&format!("{VALUE}?fill=5m")).await;
    assert!(turn.headers.contains_key("holdall-fill"));
    // A body that can't be taken gives up as well.
    let path = format!("{VALUE}?fill={}", text(&turn, "holdall-fill"));
    let large = vec![0; CacheRules::default().max_value_bytes + 1];
    let large = put(&api, &path, text(&turn, "holdall-fence"), &[], &large).await;
    assert_eq!(code(&large), (413, "value_too_large"));
    let turn = api.get(&format!("{VALUE}?fill=5m")).await;
    assert!(turn.headers.contains_key("holdall-fill"));
    let gives_up = async {
        metrics_say(&api.router, |page| page.contains("requests_in_flight 2")).await;
        api.send("DELETE", VALUE, &json!(null)).await
    };
    let path = format!("{VALUE}?wait=30s");
    let (next, gone) = tokio::join!(api.get(&path), gives_up);
    assert_eq!(code(&gone), (404, "not_found"), "there was no value");
    assert!(next.headers.contains_key("holdall-fill"), "{}", next.json);
}

#[tokio::test]
async fn waiting_for_a_value_is_bounded_and_ends_when_the_server_stops() {
    let mut settings = for_tests();
    settings.limits.waiting_requests = 1;
    settings.timeouts.max_wait = Duration::from_secs(60);
    let api = api_of(settings, EngineSettings::default(), &StoreSettings::for_tests());
    let too_long = api.get(&format!("{VALUE}?wait=61s")).await;
    assert_eq!(code(&too_long), (400, "invalid_request"));
    for fill in ["5m1s", "0s", ""] {
        let refused = api.get(&format!("{VALUE}?fill={fill}")).await;
        assert_eq!(code(&refused), (400, "invalid_request"), "{fill}");
    }
    assert!(api.get(&format!("{VALUE}?fill=5m")).await.headers.contains_key("holdall-fill"));
    let there = "/v1/cache/pages/there";
    put(&api, there, &fence(&api, there).await, &[], b"x").await;
    let path = format!("{VALUE}?wait=60s");
    let others = async {
        metrics_say(&api.router, |page| page.contains("requests_in_flight 2")).await;
        assert_eq!(code(&api.get(&path).await), (503, "overloaded"));
        assert_eq!(code(&api.get(VALUE).await), (404, "cache_miss"));
        // Who does not have to wait is not among those who do.
        assert_eq!(api.get("/v1/cache/pages/there?wait=60s").await.status, 200);
        let free = api.get("/v1/cache/pages/free?wait=60s").await;
        assert!(free.headers.contains_key("holdall-fill"), "{}", free.json);
        api.stop.cancel();
    };
    let (ended, ()) = tokio::join!(api.get(&path), others);
    assert_eq!(code(&ended), (503, "stopping"));
}

#[tokio::test]
async fn a_large_value_keeps_its_permit_until_it_is_sent() {
    let mut settings = for_tests();
    settings.limits.concurrent_requests = 1;
    let api = api_of(settings, EngineSettings::default(), &StoreSettings::for_tests());
    let value = vec![b'x'; 100 << 10];
    assert_eq!(put(&api, VALUE, &fence(&api, VALUE).await, &[], &value).await.status, 200);
    let sending = api.router.clone().oneshot(get(VALUE)).await.expect("routers do not fail");
    assert_eq!(sending.status(), 200);
    assert_eq!(code(&api.get(VALUE).await), (503, "overloaded"));
    drop(sending);
    for _ in 0..3 {
        assert_eq!(&api.get(VALUE).await.bytes[..], &value[..]);
    }
}

#[tokio::test]
async fn a_key_can_have_the_name_of_a_verb() {
    let api = api();
    for key in ["get", "put", "batch", "bump", "snapshot", "delete"] {
        let path = format!("/v1/cache/n/{key}");
        let fence = fence(&api, &path).await;
        assert_eq!(put(&api, &path, &fence, &[], key.as_bytes()).await.status, 200);
        assert_eq!(&api.get(&path).await.bytes[..], key.as_bytes());
        assert_eq!(ask(&api.router, send("HEAD", &path, &[], Body::empty())).await.status, 200);
        assert_eq!(api.send("DELETE", &path, &json!(null)).await.status, 200);
        assert_eq!(code(&api.get(&path).await), (404, "cache_miss"));
        let wrong = api.send("PATCH", &path, &json!(null)).await;
        assert_eq!(code(&wrong), (405, "method_not_allowed"));
    }
    metrics_say(&api.router, |page| {
        page.contains("method=\"PUT\",route=\"/v1/cache/{namespace}/{key}\",status=\"200\"} 6")
    })
    .await;
}
