//! Tests of aggregates.

use axum::body::Body;
use serde_json::{Value, json};

use super::{Api, api_of, ask, code, send};
use crate::engine::EngineSettings;
use crate::engine::aggregates::PipelineSettings;
use crate::http::settings::for_tests;
use crate::http::tests::Seen;
use crate::store::StoreSettings;

const PIPELINES: &str = "[views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\n\
    dedup = \"1h\"\n[total]\nkind = \"sum\"\n[peak]\nkind = \"max\"\nnumber = \"float\"\n\
    [users]\nkind = \"hll\"\n[tags]\nkind = \"set\"\n";

pub(super) fn aggregates() -> Api {
    let pipelines = PipelineSettings::of_toml(PIPELINES);
    let rules = EngineSettings { pipelines, ..EngineSettings::default() };
    api_of(for_tests(), rules, &StoreSettings::for_tests())
}

impl Api {
    pub(super) async fn merge(&self, pipeline: &str, updates: Value) -> Seen {
        let path = format!("/v1/aggregates/{pipeline}/merge");
        self.send("POST", &path, &json!({ "updates": updates })).await
    }

    async fn ndjson(&self, path: &str, lines: &str) -> Seen {
        let headers = [("content-type", "application/x-ndjson")];
        ask(&self.router, send("POST", path, &headers, lines.to_owned())).await
    }

    pub(super) async fn value(&self, path: &str) -> Value {
        self.get(&format!("/v1/aggregates/{path}")).await.json["value"].clone()
    }
}

pub(super) fn counts(seen: &Seen) -> (i64, i64, i64) {
    let count = |name: &str| seen.json[name].as_i64().unwrap_or_else(|| panic!("{}", seen.json));
    (count("applied"), count("duplicates"), count("expired"))
}

pub(super) fn pointers(seen: &Seen) -> Vec<&str> {
    let errors = seen.json["errors"].as_array().expect("errors");
    errors.iter().map(|error| error["pointer"].as_str().expect("a pointer")).collect()
}

#[tokio::test]
async fn pipelines_are_listed_as_they_were_declared() {
    let api = aggregates();
    let views = json!({"name": "views", "kind": "sum(integer)", "window": "1h",
        "retention": "7days", "dedup": "1h"});
    let [peak, total] = [("peak", "max(float)"), ("total", "sum(integer)")]
        .map(|(name, kind)| json!({"name": name, "kind": kind}));
    let listed = api.get("/v1/pipelines").await.json;
    let listed = listed["pipelines"].as_array().expect("pipelines");
    let names: Vec<_> = listed.iter().map(|pipeline| &pipeline["name"]).collect();
    assert_eq!(names, ["peak", "tags", "total", "users", "views"]);
    assert!([peak, total, views].iter().all(|pipeline| listed.contains(pipeline)), "{listed:?}");
    assert_eq!(code(&api.get("/v1/aggregates/none/a").await), (404, "not_found"));
}

#[tokio::test]
async fn updates_are_merged_into_the_value_of_their_entity_and_bucket() {
    let api = aggregates();
    let merged = api
        .merge("total", json!([{"entity": "a/b", "delta": 2}, {"entity": "a/b", "delta": 3.0}]))
        .await;
    assert_eq!(counts(&merged), (2, 0, 0));
    let value = api.get("/v1/aggregates/total/a%2Fb").await.json;
    assert_eq!(value, json!({"entity": "a/b", "value": 5}));

    let now = json!([{"entity": "a", "delta": 1}]);
    assert_eq!(counts(&api.merge("views", now).await), (1, 0, 0));
    let value = api.get("/v1/aggregates/views/a").await.json;
    assert_eq!(value["value"], 1);
    assert!(value["expires_at"].is_string(), "{value}");
    let bucket = value["bucket"]["bucket"].as_i64().expect("a bucket");
    assert_eq!(api.value(&format!("views/a?bucket={bucket}")).await, 1);
    let start = value["bucket"]["start"].as_str().expect("a time");
    assert_eq!(api.value(&format!("views/a?at={start}")).await, 1);
    let end = value["bucket"]["end"].as_str().expect("a time");
    let next = api.get(&format!("/v1/aggregates/views/a?at={end}")).await;
    assert_eq!(code(&next), (404, "not_found"));
    let both = api.get(&format!("/v1/aggregates/views/a?at={end}&bucket=1")).await;
    assert_eq!(code(&both), (400, "invalid_request"));
    let no_window = api.get("/v1/aggregates/total/a%2Fb?bucket=1").await;
    assert_eq!(code(&no_window), (400, "invalid_request"));
}

#[tokio::test]
async fn an_event_counts_once_and_another_content_is_a_conflict() {
    let api = aggregates();
    let event = |delta, id| json!({"entity": "a", "delta": delta, "event_id": id});
    assert_eq!(counts(&api.merge("views", json!([event(1, "x"), event(2, "y")])).await), (2, 0, 0));
    assert_eq!(counts(&api.merge("views", json!([event(1, "x"), event(3, "z")])).await), (1, 1, 0));
    let conflict = api.merge("views", json!([event(1, "new"), event(7, "y")])).await;
    assert_eq!(code(&conflict), (409, "event_conflict"));
    assert_eq!(pointers(&conflict), ["/updates/1/event_id"]);
    let detail = conflict.json["detail"].as_str().expect("a detail");
    assert!(detail.contains("update 1") && detail.contains("\"y\""), "{detail}");
    assert_eq!(api.value("views/a").await, 6, "a conflict changes nothing");

    let lines = "\n{\"entity\":\"a\",\"delta\":1,\"event_id\":\"x\"}\n{\"entity\":\"a\",\"delta\":1,\"event_id\":\"y\"}\n";
    let conflict = api.ndjson("/v1/aggregates/views/merge", lines).await;
    assert_eq!(code(&conflict), (409, "event_conflict"));
    assert_eq!(pointers(&conflict), ["line 3"]);
    assert!(conflict.json["detail"].as_str().is_some_and(|d| d.contains("\"y\"")));

    let refused = api.merge("total", json!([event(1, "x")])).await;
    assert_eq!(code(&refused), (422, "no_deduplication"));
    assert_eq!(pointers(&refused), ["/updates/0/event_id"]);
}

#[tokio::test]
async fn a_numbered_batch_counts_once_and_a_gap_is_noticed() {
    let api = aggregates();
    let path = "/v1/aggregates/views/merge";
    let batch =
        |seq| json!({"updates": [{"entity": "a", "delta": 1}], "producer": "p", "seq": seq});
    assert_eq!(counts(&api.send("POST", path, &batch(4)).await), (1, 0, 0));
    assert_eq!(counts(&api.send("POST", path, &batch(4)).await), (0, 1, 0));
    let line = "{\"entity\":\"a\",\"delta\":1}";
    assert_eq!(counts(&api.ndjson(&format!("{path}?producer=p&seq=5"), line).await), (1, 0, 0));
    let gap = api.send("POST", path, &batch(7)).await;
    assert_eq!((code(&gap), &gap.json["gap"]), ((409, "sequence_gap"), &json!({"expected": 6})));
    assert_eq!(api.value("views/a").await, 2);
    let both = api.send("POST", &format!("{path}?producer=q&seq=1"), &batch(6)).await;
    assert_eq!(code(&both), (400, "invalid_request"));
    let half = api.ndjson(&format!("{path}?producer=p"), line).await;
    assert_eq!(code(&half), (400, "invalid_request"));
    let refused = api.send("POST", "/v1/aggregates/total/merge", &batch(1)).await;
    assert_eq!(code(&refused), (422, "no_deduplication"));
}

#[tokio::test]
async fn every_invalid_update_is_pointed_at_and_nothing_is_changed() {
    let api = aggregates();
    let updates = json!([
        {"entity": "a", "delta": 1},
        {"entity": "", "delta": 1},
        {"entity": "a", "delta": "x"},
        {"entity": "a", "delta": 1, "at": "2999-01-01T00:00:00Z"},
        {"entity": "a", "delta": 1, "at": "2000-01-01T00:00:00Z", "bucket": 1},
        {"entity": "a", "delta": 1, "ttl": "0s"},
        {"entity": "a", "delta": 1, "event_id": ""},
    ]);
    let seen = api.merge("views", updates).await;
    assert_eq!(code(&seen), (422, "invalid_updates"));
    let expected = ["1/entity", "2/delta", "3/at", "4/bucket", "5/ttl", "6/event_id"];
    assert_eq!(pointers(&seen), expected.map(|part| format!("/updates/{part}")));
    let lines =
        "{\"entity\":\"a\",\"delta\":1}\n\n{\"entity\":\"a\"}\n{\n{\"entity\":\"\",\"delta\":1}\n";
    let seen = api.ndjson("/v1/aggregates/views/merge", lines).await;
    assert_eq!(
        (code(&seen), pointers(&seen)),
        ((422, "invalid_updates"), vec!["line 3", "line 4", "line 5"])
    );
    assert_eq!(code(&api.get("/v1/aggregates/views/a").await), (404, "not_found"));
    let many = vec![json!({"entity": "", "delta": 1}); 150];
    let seen = api.merge("views", many.into()).await;
    assert_eq!((pointers(&seen).len(), &seen.json["total_errors"]), (100, &json!(150)));
}

#[tokio::test]
async fn a_body_of_another_form_is_refused_with_a_pointer() {
    let api = aggregates();
    let path = "/v1/aggregates/total/merge";
    for (body, pointer) in [
        (json!({"updates": [{"entity": "a", "delta": 1, "dleta": 1}]}), "/updates/0/dleta"),
        (json!({"updates": [{"entity": 7, "delta": 1}]}), "/updates/0/entity"),
        (json!({"updates": [], "more": 1}), "/more"),
        (json!({"updates": [], "seq": "1"}), "/seq"),
        (json!({"updates": {}}), "/updates"),
    ] {
        let seen = api.send("POST", path, &body).await;
        assert_eq!(code(&seen), (400, "invalid_request"), "{body}");
        assert_eq!(pointers(&seen), [pointer], "{body}");
    }
    for body in ["[]", "{}", "7"] {
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(code(&api.send("POST", path, &body).await), (400, "invalid_request"), "{body}");
    }
    let json = [("content-type", "application/json")];
    for body in ["{\"updates\": [", "{\"updates\": []} x"] {
        let seen = ask(&api.router, send("POST", path, &json, body)).await;
        assert_eq!(code(&seen), (400, "malformed_body"), "{body}");
    }
    let text = [("content-type", "text/plain")];
    let seen = ask(&api.router, send("POST", path, &text, Body::empty())).await;
    assert_eq!(code(&seen), (415, "unsupported_media_type"));
    let many = vec![json!({"entity": "a", "delta": 1}); 2001];
    assert_eq!(code(&api.merge("total", many.into()).await), (413, "too_many_updates"));
    let line = "{\"entity\":\"a\",\"delta\":1}\n";
    let seen = api.ndjson(path, &line.repeat(2001)).await;
    assert_eq!(code(&seen), (413, "too_many_updates"));
    assert_eq!(code(&api.get("/v1/aggregates/total/a").await), (404, "not_found"));
}

#[tokio::test]
async fn a_total_that_would_overflow_is_refused_and_nothing_is_changed() {
    let api = aggregates();
    api.merge("total", json!([{"entity": "a", "delta": i64::MAX}])).await;
    let seen =
        api.merge("total", json!([{"entity": "b", "delta": 1}, {"entity": "a", "delta": 1}])).await;
    assert_eq!(code(&seen), (422, "merge_refused"));
    assert_eq!(pointers(&seen), ["/updates/1/delta"]);
    assert_eq!(api.value("total/a").await, i64::MAX);
    assert_eq!(code(&api.get("/v1/aggregates/total/b").await), (404, "not_found"));
}

#[tokio::test]
async fn values_are_deleted_by_bucket_or_all_together_and_fenced() {
    let api = aggregates();
    let updates = json!([{"entity": "a", "delta": 1}, {"entity": "a", "delta": 2, "at": "2026-01-01T00:00:00Z", "ttl": "1h"}]);
    api.merge("views", updates).await;
    let lease = json!({"holder": "one", "ttl": "60s"});
    let lease = api.send("POST", "/v1/leases/l/acquire", &lease).await.json;
    let token = lease["fencing_token"].as_i64().expect("a token");
    let path = "/v1/aggregates/views/a";
    let seen = api.fenced("DELETE", path, "l", token + 1, &Value::Null).await;
    assert_eq!(code(&seen), (412, "fence_refused"));
    let update = json!({"updates": [{"entity": "a", "delta": 1}]});
    let seen = api.fenced("POST", "/v1/aggregates/views/merge", "l", token + 1, &update).await;
    assert_eq!(code(&seen), (412, "fence_refused"));
    assert_eq!(
        counts(&api.fenced("POST", "/v1/aggregates/views/merge", "l", token, &update).await),
        (1, 0, 0)
    );
    assert_eq!(api.value("views/a").await, 2);
    let seen = api.fenced("DELETE", path, "l", token, &Value::Null).await;
    assert_eq!(seen.json, json!({"deleted": 1}));
    assert_eq!(code(&api.send("DELETE", path, &Value::Null).await), (404, "not_found"));
}

#[tokio::test]
async fn an_entity_can_have_the_name_of_a_verb() {
    let api = aggregates();
    for entity in ["merge", "get", "window", "range", "batch", "seen"] {
        let path = format!("/v1/aggregates/total/{entity}");
        api.merge("total", json!([{"entity": entity, "delta": 1}])).await;
        assert_eq!(api.get(&path).await.json["value"], 1, "{entity}");
        assert_eq!(api.send("DELETE", &path, &Value::Null).await.json["deleted"], 1, "{entity}");
        assert_eq!(code(&api.get(&path).await), (404, "not_found"), "{entity}");
    }
}

#[tokio::test]
async fn of_all_callers_one_sees_an_event_first() {
    let api = aggregates();
    let seen =
        async |ids: Value| api.send("POST", "/v1/events/seen", &json!({ "event_ids": ids })).await;
    assert_eq!(seen(json!(["a", "b", "a"])).await.json, json!({"first_seen": [true, true, false]}));
    assert_eq!(seen(json!(["b", "c"])).await.json, json!({"first_seen": [false, true]}));
    let empty = seen(json!(["a", ""])).await;
    assert_eq!((code(&empty), pointers(&empty)), ((400, "invalid_request"), vec!["/event_ids/1"]));
    let many = vec!["x"; 101];
    assert_eq!(code(&seen(json!(many)).await), (400, "invalid_request"));
    let callers = (0..16).map(|_| seen(json!(["once"])));
    let first = futures_util::future::join_all(callers).await;
    let first = first.iter().filter(|seen| seen.json["first_seen"][0] == true).count();
    assert_eq!(first, 1);
}
