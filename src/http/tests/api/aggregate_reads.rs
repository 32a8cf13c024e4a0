//! Tests of reads of aggregates: batches, windows, ranges, sketches.

use serde_json::{Value, json};

use super::aggregates::{aggregates, counts, pointers};
use super::code;

#[tokio::test]
async fn batches_of_reads_keep_the_order_of_the_request() {
    let api = aggregates();
    let updates = [1, 2, 3].map(|bucket| json!({"entity": "a", "delta": bucket, "bucket": bucket}));
    assert_eq!(counts(&api.merge("views", updates.to_vec().into()).await), (0, 0, 3), "long ago");
    let now = api.get("/v1/aggregates/views/a").await;
    assert_eq!(code(&now), (404, "not_found"));

    api.merge("views", json!([{"entity": "a", "delta": 1}, {"entity": "b", "delta": 2}])).await;
    let newest = api.get("/v1/aggregates/views/a").await.json["bucket"]["bucket"].as_i64();
    let newest = newest.expect("a bucket");
    let earlier =
        [1, 2, 5].map(|back| json!({"entity": "a", "delta": 10 * back, "bucket": newest - back}));
    assert_eq!(counts(&api.merge("views", earlier.to_vec().into()).await), (3, 0, 0));

    let path = "/v1/batch/aggregates/views";
    let keys = json!({"keys": [{"entity": "b", "bucket": newest}, {"entity": "c"},
        {"entity": "a", "bucket": newest - 2}]});
    let found = api.send("POST", &format!("{path}/get"), &keys).await.json;
    let found = found["values"].as_array().expect("values").clone();
    let shown: Vec<_> =
        found.iter().map(|v| (&v["entity"], &v["found"], &v["aggregate"]["value"])).collect();
    assert_eq!(
        shown,
        [
            (&json!("b"), &json!(true), &json!(2)),
            (&json!("c"), &json!(false), &Value::Null),
            (&json!("a"), &json!(true), &json!(20)),
        ]
    );

    let ask = json!({"entities": ["b", "a", "c"], "buckets": 3, "bucket": newest});
    let found = api.send("POST", &format!("{path}/window"), &ask).await.json;
    assert_eq!(
        found["windows"],
        json!([
            {"entity": "b", "buckets_found": 1, "value": 2},
            {"entity": "a", "buckets_found": 3, "value": 31},
            {"entity": "c", "buckets_found": 0},
        ])
    );
    assert_eq!(found["oldest"]["bucket"], newest - 2);
    assert_eq!(found["newest"]["bucket"], newest);

    let ask = json!({"entity": "a", "from_bucket": newest - 4, "limit": 2});
    let first = api.send("POST", &format!("{path}/range"), &ask).await.json;
    let buckets = |page: &Value| -> Vec<i64> {
        let values = page["aggregates"].as_array().expect("values");
        values.iter().map(|v| newest - v["bucket"]["bucket"].as_i64().expect("a bucket")).collect()
    };
    assert_eq!(buckets(&first), [2, 1], "{first}");
    let ask = json!({"entity": "a", "from_bucket": newest - 4, "page": first["next_page"]});
    let rest = api.send("POST", &format!("{path}/range"), &ask).await.json;
    assert_eq!((buckets(&rest), rest.get("next_page")), (vec![0], None));

    let mut listed = Vec::new();
    let mut page = String::new();
    loop {
        let found = api.get(&format!("/v1/aggregates/views?limit=2{page}")).await.json;
        let values = found["aggregates"].as_array().expect("values");
        listed.extend(values.iter().map(|v| v["value"].as_i64().expect("a number")));
        let Some(next) = found["next_page"].as_str() else { break };
        page = format!("&page={next}");
    }
    assert_eq!(listed, [50, 20, 10, 1, 2]);
}

#[tokio::test]
async fn batches_are_bounded() {
    let api = aggregates();
    let path = "/v1/batch/aggregates/views";
    let keys = vec![json!({"entity": "a"}); 101];
    let seen = api.send("POST", &format!("{path}/get"), &json!({"keys": keys})).await;
    assert_eq!(code(&seen), (400, "invalid_request"));
    for (entities, buckets, allowed) in [
        (1, 20_000, true),
        (2, 10_000, true),
        (1, 20_001, false),
        (3, 10_000, false),
        (1, 0, false),
        (0, 1, true),
    ] {
        let entities = vec!["a"; entities];
        let ask = json!({"entities": entities, "buckets": buckets});
        let seen = api.send("POST", &format!("{path}/window"), &ask).await;
        assert_eq!(seen.status, if allowed { 200 } else { 400 }, "{ask} {}", seen.json);
    }
    for verb in ["window", "range"] {
        let ask = json!({"entities": [], "buckets": 1});
        let seen = api.send("POST", &format!("/v1/batch/aggregates/total/{verb}"), &ask).await;
        assert_eq!(code(&seen), (400, "invalid_request"), "there is no window");
    }
}

#[tokio::test]
async fn a_sketch_is_exported_and_merged_elsewhere() {
    let api = aggregates();
    api.merge("users", json!([{"entity": "a", "delta": ["ann", "bea"]}])).await;
    api.merge("users", json!([{"entity": "b", "delta": ["bea", "cem"]}])).await;
    let path = "/v1/aggregates/users/a?export=true";
    let exported = api.get(path).await.json;
    assert!(exported["sketch"].is_string(), "{exported}");
    let delta = json!({"sketch": exported["sketch"]});
    assert_eq!(
        counts(&api.merge("users", json!([{"entity": "b", "delta": delta}])).await),
        (1, 0, 0)
    );
    let estimate = api.value("users/b").await["estimate"].as_f64().expect("a number");
    assert!((estimate - 3.0).abs() < 0.01, "{estimate}");
    let listed = api.get("/v1/aggregates/users?export=true&limit=1").await.json;
    assert_eq!(listed["aggregates"][0], exported);
    let ask = json!({"keys": [{"entity": "a"}], "export": true});
    let found = api.send("POST", "/v1/batch/aggregates/users/get", &ask).await.json;
    assert_eq!(found["values"][0]["aggregate"], exported);
    let broken = api.merge("users", json!([{"entity": "b", "delta": {"sketch": "AAAA"}}])).await;
    assert_eq!(
        (code(&broken), pointers(&broken)),
        ((422, "invalid_updates"), vec!["/updates/0/delta"])
    );
    let refused = api.get("/v1/aggregates/total/a?export=true").await;
    assert_eq!((code(&refused), pointers(&refused)), ((400, "invalid_request"), vec!["export"]));
}

#[tokio::test]
async fn elements_are_looked_up_in_a_set() {
    let api = aggregates();
    api.merge("tags", json!([{"entity": "a", "delta": ["x", 5]}])).await;
    let path = "/v1/batch/aggregates/tags/get";
    let ask = json!({"keys": [{"entity": "a", "contains": ["y", 5.0, "x", "5"]},
        {"entity": "none", "contains": ["x"]}, {"entity": "a"}]});
    let found = api.send("POST", path, &ask).await.json;
    assert_eq!(found["values"][0]["contains"], json!([false, true, true, false]));
    assert_eq!(found["values"][1]["contains"], json!([false]));
    assert_eq!(found["values"][2].get("contains"), None);
    let ask = json!({"keys": [{"entity": "none", "contains": [null]}]});
    let refused = api.send("POST", path, &ask).await;
    assert_eq!(
        (code(&refused), pointers(&refused)),
        ((400, "invalid_request"), vec!["/keys/0/contains"])
    );
    let ask = json!({"keys": [{"entity": "a", "contains": ["x"]}]});
    let refused = api.send("POST", "/v1/batch/aggregates/total/get", &ask).await;
    assert_eq!(code(&refused), (400, "invalid_request"), "a sum has no elements");
}
