//! Tests of the cache, many values at a time, in JSON.

use serde_json::{Value, json};
use tower::ServiceExt;

use super::{api, api_of, ask, code, send};
use crate::engine::EngineSettings;
use crate::engine::cache::CacheRules;
use crate::http::settings::for_tests;
use crate::store::StoreSettings;

const GET: &str = "/v1/batch/cache/n/get";
const PUT: &str = "/v1/batch/cache/n/put";

#[tokio::test]
async fn many_values_are_put_and_read_each_on_its_own() {
    let api = api();
    let keys = json!({"keys": ["a", "b", "a/c"]});
    let none = api.send("POST", GET, &keys).await.json;
    let fences: Vec<&Value> = (0..3).map(|i| &none["values"][i]["fence"]).collect();
    assert_eq!(
        none["values"][2],
        json!({"key": "a/c", "found": false, "reason": "absent", "generation": 0,
            "fence": fences[2]})
    );
    let moved = api.send("POST", "/v1/generations/b/bump", &json!(null)).await.json;
    let values = json!({"values": [
        {"key": "a", "value": "/wD7", "fence": fences[0], "content_type": "image/png", "ttl": "1m"},
        {"key": "b", "value": "eA==", "fence": fences[1]},
        {"key": "a/c", "value": "", "generation": 0.0},
    ]});
    let put = api.send("POST", PUT, &values).await.json;
    assert_eq!(put["stored"], json!(["a", "a/c"]), "{put}");
    let refused = &put["refused"][0];
    assert_eq!((&refused["key"], &refused["code"]), (&json!("b"), &json!("generation_moved")));
    assert_eq!(refused["fence"], moved["fence"]);
    assert_eq!(refused["generation"], 1);
    let found = api.send("POST", GET, &keys).await.json;
    let first = &found["values"][0];
    assert_eq!(first["value"], "/wD7", "{found}");
    assert_eq!((&first["found"], &first["content_type"]), (&json!(true), &json!("image/png")));
    assert!(first["expires_at"].is_string() && first.get("reason").is_none());
    assert_eq!(found["values"][1]["found"], false);
    assert_eq!(found["values"][2]["value"], "");
    let raw = api.get("/v1/cache/n/a").await;
    assert_eq!((&raw.bytes[..], raw.status), (&[0xff, 0, 0xfb][..], 200));
    assert_eq!(raw.headers["etag"], format!("{:?}", first["etag"].as_str().expect("text")));
}

#[tokio::test]
async fn all_values_of_a_batch_may_depend_on_one_key() {
    let api = api();
    let source = json!({"keys": ["a", "b"], "generation_key": "source"});
    let fence = api.send("POST", GET, &source).await.json["values"][0]["fence"].clone();
    let value =
        |key| json!({"key": key, "value": "eA==", "fence": fence, "generation_key": "source"});
    let put = api.send("POST", PUT, &json!({"values": [value("a"), value("b")]})).await;
    assert_eq!(put.json["stored"], json!(["a", "b"]));
    let found = |json: &Value| [0, 1].map(|i| json["values"][i]["found"] == json!(true));
    assert_eq!(found(&api.send("POST", GET, &source).await.json), [true, true]);
    api.send("POST", "/v1/generations/source/bump", &json!(null)).await;
    assert_eq!(found(&api.send("POST", GET, &source).await.json), [false, false]);
}

#[tokio::test]
async fn an_invalid_batch_changes_nothing() {
    let api = api();
    let good = json!({"key": "good", "value": "eA==", "generation": 0});
    for (bad, status, pointer) in [
        (json!({"key": "", "value": "", "generation": 0}), 400, "/values/1/key"),
        (json!({"key": "k", "value": "x", "generation": 0}), 400, "/values/1/value"),
        (json!({"key": "k", "value": "", "fence": "x"}), 400, "/values/1/fence"),
        (json!({"key": "k", "value": "", "generation": 0, "fill": "x"}), 400, "/values/1/fill"),
        (json!({"key": "k", "value": "", "generation": -1}), 400, "/values/1/generation"),
        (json!({"key": "k", "value": "", "generation": 0, "fence": "x"}), 400, "/values/1/fence"),
        (json!({"key": "k", "value": ""}), 428, "/values/1/fence"),
    ] {
        let body = json!({"values": [good.clone(), bad]});
        let seen = api.send("POST", PUT, &body).await;
        assert_eq!(seen.status, status, "{}", seen.json);
        assert_eq!(seen.json["errors"][0]["pointer"].as_str().unwrap_or_default(), pointer);
    }
    assert_eq!(code(&api.get("/v1/cache/n/good").await), (404, "cache_miss"));
    let many = vec![good; 101];
    let many = api.send("POST", PUT, &json!({"values": many})).await;
    assert_eq!(code(&many), (400, "invalid_request"));
    let many = api.send("POST", GET, &json!({"keys": vec!["k"; 101]})).await;
    assert_eq!(code(&many), (400, "invalid_request"));
    let bad = api.send("POST", GET, &json!({"keys": ["k", ""]})).await;
    assert_eq!(bad.json["errors"][0]["pointer"], "/keys/1", "{}", bad.json);
}

#[tokio::test]
async fn a_response_is_bounded_before_it_is_made() {
    let cache = CacheRules { max_value_bytes: 4000, ..CacheRules::default() };
    let rules = EngineSettings { cache, ..EngineSettings::default() };
    let api = api_of(for_tests(), rules, &StoreSettings::for_tests());
    let large = json!({"values": [{"key": "k", "generation": 0, "value": "eHh4".repeat(1333)}]});
    assert_eq!(api.send("POST", PUT, &large).await.json["stored"], json!(["k"]));
    let times = async |count| api.send("POST", GET, &json!({"keys": vec!["k"; count]})).await;
    let most = times(64).await;
    assert_eq!(most.json["values"][63]["value"], "eHh4".repeat(1333));
    assert_eq!(code(&times(65).await), (413, "response_too_large"));
    let larger = json!({"values": [{"key": "k", "generation": 0, "value": "eHh4".repeat(1334)}]});
    let refused = api.send("POST", PUT, &larger).await.json;
    assert_eq!(refused["refused"][0]["code"], "value_too_large");
}

#[tokio::test]
async fn all_responses_in_memory_together_are_bounded() {
    let mut settings = for_tests();
    settings.limits.buffered_body_bytes = 512 << 10;
    let api = api_of(settings, EngineSettings::default(), &StoreSettings::for_tests());
    let value = json!({"values": [{"key": "k", "generation": 0, "value": "eHh4".repeat(2000)}]});
    assert_eq!(api.send("POST", PUT, &value).await.json["stored"], json!(["k"]));
    let times = |count| {
        let body = json!({"keys": vec!["k"; count]}).to_string();
        send("POST", GET, &[("content-type", "application/json")], body)
    };
    let sending = api.router.clone().oneshot(times(60)).await.expect("routers do not fail");
    assert_eq!(sending.status(), 200);
    assert_eq!(code(&ask(&api.router, times(60)).await), (503, "overloaded"));
    assert_eq!(ask(&api.router, times(1)).await.status, 200, "small ones cost nothing");
    drop(sending);
    for _ in 0..3 {
        let whole = ask(&api.router, times(60)).await;
        assert_eq!(whole.json["values"][59]["value"], "eHh4".repeat(2000));
    }
    // One that is larger than all of them may be is sent alone.
    assert_eq!(ask(&api.router, times(90)).await.status, 200);
}
