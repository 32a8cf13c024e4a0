//! Tests of generations.

use serde_json::json;

use super::{api, code};

#[tokio::test]
async fn generations_are_read_bumped_and_removed() {
    let api = api();
    let none = api.get("/v1/generations/a%2Fb").await;
    assert_eq!((none.status, &none.json["generation"]), (200, &json!(0)));
    let bumped = api.send("POST", "/v1/generations/a%2Fb/bump", &json!(null)).await.json;
    assert_eq!(bumped["generation"], 1);
    assert_ne!(bumped["fence"], none.json["fence"]);
    assert_eq!(api.get("/v1/generations/a%2Fb").await.json, bumped);

    let keys = json!({"keys": ["a/b", "c", "a/b"]});
    let both = api.send("POST", "/v1/batch/generations/snapshot", &keys).await.json;
    assert_eq!(both["generations"]["a/b"], bumped);
    assert_eq!(both["generations"]["c"]["generation"], 0);
    let both = api.send("POST", "/v1/batch/generations/bump", &keys).await.json;
    assert_eq!(both["generations"]["a/b"]["generation"], 2, "{both}");
    assert_eq!(both["generations"]["c"]["generation"], 1);
    assert_eq!(both["generations"].as_object().map(serde_json::Map::len), Some(2));
    let status = api.get("/v1/status").await.json;
    let held = json!({"resource": "generations", "entries": 2, "limit": 1_000_000});
    assert!(status["resources"].as_array().is_some_and(|all| all.contains(&held)), "{status}");

    let young = json!({"retention": "24h"});
    let kept = api.send("POST", "/v1/batch/generations/cleanup", &young).await;
    assert_eq!(kept.json, json!({"removed": 0}));
    let none = json!({"retention": "0s"});
    let none = api.send("POST", "/v1/batch/generations/cleanup", &none).await;
    assert_eq!(code(&none), (400, "invalid_request"));
    assert_eq!(none.json["errors"][0]["pointer"], "/retention");
}

#[tokio::test]
async fn a_key_can_have_the_name_of_a_verb() {
    let api = api();
    for key in ["snapshot", "bump", "cleanup", "get", "put", "batch", "delete"] {
        let path = format!("/v1/generations/{key}");
        assert_eq!(api.get(&path).await.json["generation"], 0, "{key}");
        let bumped = api.send("POST", &format!("{path}/bump"), &json!(null)).await;
        assert_eq!(bumped.json["generation"], 1, "{key}");
        assert_eq!(api.get(&path).await.json, bumped.json, "{key}");
        let wrong = api.send("DELETE", &path, &json!(null)).await;
        assert_eq!(code(&wrong), (405, "method_not_allowed"), "{key}");
    }
}

#[tokio::test]
async fn batches_of_generations_are_bounded_and_problems_point_at_the_key() {
    let api = api();
    for path in ["/v1/batch/generations/snapshot", "/v1/batch/generations/bump"] {
        let empty = api.send("POST", path, &json!({"keys": []})).await;
        assert_eq!(empty.json, json!({"generations": {}}));
        let wrong = api.send("POST", path, &json!({"keys": ["a", ""]})).await;
        assert_eq!(code(&wrong), (400, "invalid_request"));
        assert_eq!(wrong.json["errors"][0]["pointer"], "/keys/1");
        let keys: Vec<String> = (0..101).map(|i| i.to_string()).collect();
        let many = api.send("POST", path, &json!({"keys": keys})).await;
        assert_eq!(code(&many), (400, "invalid_request"));
    }
    assert_eq!(api.get("/v1/generations/a").await.json["generation"], 0, "nothing was bumped");
}
