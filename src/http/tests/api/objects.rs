//! Arrays where an object is meant, in each body of JSON.

use serde_json::Value;

use super::aggregates::aggregates;
use super::{ask, send};
use crate::http::router::openapi_3_1;

/// A body for each operation that takes JSON, with all members in the order of the struct that they are read into.
const BODIES: &[(&str, &str, &str)] = &[
    (
        "POST",
        "/v1/aggregates/{pipeline}/merge",
        r#"{"updates":[{"entity":"a","delta":1,"at":null,"bucket":null,"event_id":null,"ttl":null}],"producer":"p","seq":1}"#,
    ),
    (
        "POST",
        "/v1/batch/aggregates/{pipeline}/get",
        r#"{"keys":[{"entity":"a","bucket":null,"at":null,"contains":[]}],"export":false}"#,
    ),
    (
        "POST",
        "/v1/batch/aggregates/{pipeline}/range",
        r#"{"entity":"a","from":null,"from_bucket":1,"to":null,"to_bucket":2,"limit":5,"page":null}"#,
    ),
    (
        "POST",
        "/v1/batch/aggregates/{pipeline}/window",
        r#"{"entities":["a"],"buckets":3,"bucket":5,"at":null}"#,
    ),
    ("POST", "/v1/batch/cache/{namespace}/get", r#"{"keys":["a"],"generation_key":"g"}"#),
    (
        "POST",
        "/v1/batch/cache/{namespace}/put",
        r#"{"values":[{"key":"k","value":"YQ==","content_type":null,"ttl":"1m","fence":null,"generation":0,"generation_key":null}]}"#,
    ),
    ("POST", "/v1/batch/generations/bump", r#"{"keys":["a"]}"#),
    ("POST", "/v1/batch/generations/cleanup", r#"{"retention":"1h"}"#),
    ("POST", "/v1/batch/generations/snapshot", r#"{"keys":["a"]}"#),
    (
        "PUT",
        "/v1/checkpoints/{org}/{repo}",
        r#"{"checkpoint":"2026-01-01T00:00:00Z","if_later":false}"#,
    ),
    ("POST", "/v1/events/seen", r#"{"event_ids":["e"]}"#),
    (
        "POST",
        "/v1/leases/{name}/acquire",
        r#"{"holder":"h","ttl":"1h","wait":"0s","takeover":false}"#,
    ),
    ("POST", "/v1/leases/{name}/release", r#"{"fencing_token":1}"#),
    ("POST", "/v1/leases/{name}/renew", r#"{"fencing_token":1,"ttl":"1h"}"#),
    ("POST", "/v1/locks/{kind}", r#"{"keys":["a"],"ttl":"1h"}"#),
    ("POST", "/v1/locks/{kind}/{key}", r#"{"ttl":"1h"}"#),
    (
        "POST",
        "/v1/series",
        r#"{"role":"leader","source":"leader_scrape","points":[{"name":"a","labels":{},"value":1}]}"#,
    ),
    ("POST", "/v1/series/delete", r#"{"match":["a"],"dry_run":true}"#),
];

/// Returns `body` once for each of its objects, in which that object is an array of its members' values.
fn with_an_array(body: &str) -> Vec<String> {
    let starts = body.match_indices('{').filter(|(at, _)| body.as_bytes()[at + 1] == b'"');
    starts.map(|(start, _)| array_at(body, start)).collect()
}

fn array_at(body: &str, start: usize) -> String {
    let (mut depth, mut in_text, mut in_name) = (0, false, true);
    let mut out = format!("{}[", &body[..start]);
    for (at, byte) in body.bytes().enumerate().skip(start + 1) {
        in_text ^= byte == b'"';
        match byte {
            b'}' if !in_text && depth == 0 => {
                out.push(']');
                out.push_str(&body[at + 1..]);
                return out;
            }
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            b':' if !in_text && in_name => {
                in_name = false;
                continue;
            }
            b',' if !in_text && depth == 0 => in_name = true,
            _ => {}
        }
        if !in_name || byte == b',' && !in_text {
            out.push(char::from(byte));
        }
    }
    panic!("{body} does not end");
}

#[test]
fn arrays_have_the_values_in_their_order() {
    let body = r#"{"a":[{"b":"x:,}","c":[1,2]}],"d":2}"#;
    let expected = [r#"[[{"b":"x:,}","c":[1,2]}],2]"#, r#"{"a":[["x:,}",[1,2]]],"d":2}"#];
    assert_eq!(with_an_array(body), expected);
}

#[tokio::test]
async fn an_array_is_never_read_as_an_object() {
    let document: Value = serde_json::from_str(&openapi_3_1()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut documented = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            if operation["requestBody"]["content"].get("application/json").is_some() {
                documented.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    let mut listed: Vec<_> =
        BODIES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    documented.sort();
    listed.sort();
    assert_eq!(listed, documented, "there is a body for each operation");

    let api = aggregates();
    let json = [("content-type", "application/json")];
    for (method, path, body) in BODIES {
        let path = path.replace("{pipeline}", "views").replace("{kind}", "job");
        let path = path.replace(['{', '}'], "");
        let sent = ask(&api.router, send(method, &path, &json, *body)).await;
        assert!(![400, 422, 500].contains(&sent.status), "{path} {body}: {}", sent.json);
        for array in with_an_array(body) {
            let sent = ask(&api.router, send(method, &path, &json, array.clone())).await;
            assert!([400, 422].contains(&sent.status), "{path} {array}: {}", sent.json);
        }
    }
    let (_, path, body) = BODIES[0];
    let path = path.replace("{pipeline}", "views");
    let update = &with_an_array(body)[1];
    let line = &update[r#"{"updates":["#.len()..update.find("],\"producer").expect("its end")];
    let ndjson = [("content-type", "application/x-ndjson")];
    let sent = ask(&api.router, send("POST", &path, &ndjson, line.to_owned())).await;
    assert!([400, 422].contains(&sent.status), "{line}: {}", sent.json);
}
