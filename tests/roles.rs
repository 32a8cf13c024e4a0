//! What a token that is bound to a role may do, through HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::access::{FOLLOWER, LEADER, WRITER, settings};
use crate::harness::{Client, Launch, Response, Server};

async fn with_leader_lease() -> Server {
    Launch::new()
        .config(&settings())
        .env("HOLDALL_SERIES__LEADER_LEASE", "the leader")
        .start()
        .await
}

fn push(role: &str, source: &str, names: &[&str]) -> Value {
    let point = |name: &&str| json!({"name": name, "labels": {}, "value": 1});
    let points: Vec<Value> = names.iter().map(point).collect();
    json!({"role": role, "source": source, "points": points})
}

async fn as_leader(client: &Client, names: &[&str]) -> Response {
    client.post("/v1/series", &push("leader", "leader_scrape", names)).await
}

async fn as_follower(client: &Client, names: &[&str]) -> Response {
    client.post("/v1/series", &push("follower", "worker_backfill", names)).await
}

async fn delete(client: &Client, selector: &str, dry_run: bool) -> Response {
    client.post("/v1/series/delete", &json!({"match": [selector], "dry_run": dry_run})).await
}

async fn delete_one(client: &Client, id: &str) -> Response {
    client.send(client.request(Method::DELETE, &format!("/v1/series/{id}"))).await
}

/// Returns the ids of all series, by name.
async fn ids(reader: &Client, names: &[&str]) -> Vec<String> {
    let series = reader.get("/v1/series").await.expect(200)["points"].clone();
    let series = series.as_array().expect("points");
    let id = |name: &&str| {
        let point = series.iter().find(|point| point["name"] == **name).expect("it is held");
        point["id"].as_str().expect("an id").to_owned()
    };
    names.iter().map(id).collect()
}

/// Returns where a refusal points, and how many series or points it counts.
fn refused(response: &Response) -> (Vec<String>, i64) {
    assert_eq!(response.expect_problem(403), "series_of_another_role");
    let problem = response.json();
    let parts = problem["errors"].as_array().expect("errors").iter();
    let pointer = |part: &Value| {
        let detail = part["detail"].as_str().expect("a detail");
        assert!(detail.contains("leader"), "{detail}");
        part["pointer"].as_str().expect("a pointer").to_owned()
    };
    (parts.map(pointer).collect(), problem["total_errors"].as_i64().expect("a count"))
}

#[tokio::test]
async fn a_bound_token_changes_no_series_of_another_role() {
    let server = Launch::new().config(&settings()).start().await;
    let (leader, follower) = (server.with_token(LEADER), server.with_token(FOLLOWER));
    let operator = server.with_token(WRITER);
    as_leader(&leader, &["a", "b"]).await.expect(200);
    as_follower(&follower, &["c"]).await.expect(200);
    let before = operator.get("/v1/series").await.expect(200).clone();

    let outcome = as_follower(&follower, &["a", "c", "new", "b"]).await;
    assert_eq!(refused(&outcome), (vec!["/points/0".into(), "/points/3".into()], 2));
    let path = "/v1/series?role=follower&source=worker_backfill";
    let text = follower.request(Method::POST, path).header("content-type", "text/plain");
    let outcome = follower.send(text.body("c 1\n\nb 2\n")).await;
    assert_eq!(refused(&outcome), (vec!["line 3".into()], 1));
    let ids = ids(&operator, &["a", "b"]).await;
    let outcome = delete_one(&follower, &ids[0]).await;
    assert_eq!(refused(&outcome), (vec![ids[0].clone()], 1));
    for dry_run in [true, false] {
        let outcome = delete(&follower, "{__name__=~\".+\"}", dry_run).await;
        assert_eq!(refused(&outcome), (ids.clone(), 2));
    }
    let after = operator.get("/v1/series").await.expect(200).clone();
    assert_eq!(before, after);

    assert_eq!(delete(&follower, "c", false).await.expect(200)["deleted"], 1);
    // Nobody is bound here, so it may; and the series are the follower's then.
    as_follower(&operator, &["a"]).await.expect(200);
    as_follower(&follower, &["a"]).await.expect(200);
    assert_eq!(as_leader(&leader, &["a"]).await.expect_problem(403), "series_of_another_role");
    assert_eq!(delete(&operator, "a", false).await.expect(200)["deleted"], 1);
    as_leader(&leader, &["a"]).await.expect(200);
}

#[tokio::test]
async fn a_role_that_may_write_all_sources_of_another_role_may_change_its_series() {
    let guards = "[series.guards]\nleader = [\"leader_scrape\", \"worker_backfill\"]\n\
                  follower = [\"worker_backfill\"]\n";
    let server = Launch::new().config(&format!("{guards}{}", settings())).start().await;
    let (leader, follower) = (server.with_token(LEADER), server.with_token(FOLLOWER));
    as_follower(&follower, &["a"]).await.expect(200);
    leader.post("/v1/series", &push("leader", "worker_backfill", &["a"])).await.expect(200);
    // Though it may write this source, the leader wrote the series.
    let outcome = as_follower(&follower, &["a"]).await;
    assert_eq!(refused(&outcome).1, 1);
}

#[tokio::test]
async fn the_leader_deletes_its_series_under_its_fence() {
    let server = with_leader_lease().await;
    let (leader, writer) = (server.with_token(LEADER), server.with_token(WRITER));
    let lease = json!({"holder": "first", "ttl": "1h"});
    let path = "/v1/leases/the%20leader/acquire";
    let token = writer.post(path, &lease).await.expect(200)["fencing_token"].clone();
    let token = token.as_i64().expect("a number");
    let send = async |client: &Client, method: Method, path: &str, body: &Value, fence| {
        let mut request = client.request(method, path).json(body);
        if let Some(token) = fence {
            let lease = ("holdall-lease", "the leader");
            request = request.header(lease.0, lease.1).header("holdall-fencing-token", token);
        }
        client.send(request).await
    };
    let names = ["a", "b", "c"];
    let body = push("leader", "leader_scrape", &names);
    send(&leader, Method::POST, "/v1/series", &body, Some(token)).await.expect(200);
    let ids = ids(&writer, &names).await;
    let one = (Method::DELETE, format!("/v1/series/{}", ids[0]), json!({}));
    let all =
        (Method::POST, "/v1/series/delete".to_owned(), json!({"match": ["{__name__=~\".+\"}"]}));
    for (method, path, body) in [&one, &all] {
        let refused = send(&leader, method.clone(), path, body, None).await;
        assert_eq!(refused.expect_problem(428), "fence_required");
        for client in [&leader, &writer] {
            let refused = send(client, method.clone(), path, body, Some(token + 1)).await;
            assert_eq!(refused.expect_problem(412), "fence_refused");
        }
    }
    assert_eq!(writer.get("/v1/series").await.expect(200)["points"][2]["name"], "c");
    send(&leader, one.0, &one.1, &one.2, Some(token)).await.expect(200);
    delete_one(&writer, &ids[1]).await.expect(200);
    let deleted = send(&leader, all.0, &all.1, &all.2, Some(token)).await;
    assert_eq!(deleted.expect(200)["deleted"], 1);
}

#[tokio::test]
async fn only_who_may_lead_takes_the_leader_lease() {
    let server = with_leader_lease().await;
    let body = json!({"holder": "somebody", "ttl": "1h"});
    let path = "/v1/leases/the%20leader/acquire";
    let refused = server.with_token(FOLLOWER).post(path, &body).await;
    assert_eq!(refused.expect_problem(403), "guard_refused");
    let other = server.with_token(FOLLOWER).post("/v1/leases/another/acquire", &body).await;
    assert_eq!(other.expect(200)["acquired"], true);
    let taken = server.with_token(LEADER).post(path, &body).await;
    assert_eq!(taken.expect(200)["acquired"], true);
}

/// What a token may do, of those that are bound to no role, to the leader's, and to another one: each line is a line of
/// the table in `docs/access.md`. The statuses are those of a request without a fence, with the fence of the leader
/// lease, and with the fence of another lease.
const TABLE: &[(&str, &str, [[u16; 3]; 3])] = &[
    ("PUT", "/v1/checkpoints/o/r", [[200, 200, 200], [428, 200, 428], [428, 200, 200]]),
    ("DELETE", "/v1/checkpoints/o/r", [[200, 200, 200], [428, 200, 428], [428, 200, 200]]),
    ("POST", "/v1/generations/k/bump", [[200; 3]; 3]),
    ("PUT", "/v1/cache/n/k", [[200; 3]; 3]),
    ("DELETE", "/v1/cache/n/k", [[200; 3]; 3]),
    ("POST", "/v1/locks/job/k", [[200; 3]; 3]),
    ("POST", "/v1/leases/a/acquire", [[200; 3]; 3]),
    ("POST", "/v1/leases/the%20leader/acquire", [[200; 3], [200; 3], [403; 3]]),
    ("DELETE", "/v1/locks/job/k", [[403; 3]; 3]),
    ("POST", "/v1/batch/generations/cleanup", [[403; 3]; 3]),
    ("POST", "/v1/admin/gc", [[403; 3]; 3]),
    ("POST", "/v1/admin/flush", [[403; 3]; 3]),
];

fn body_of(path: &str) -> Value {
    match path {
        "/v1/checkpoints/o/r" => json!({"checkpoint": "2026-11-21T10:00:00Z"}),
        "/v1/locks/job/k" => json!({"ttl": "1m"}),
        "/v1/batch/generations/cleanup" => json!({"retention": "1ns"}),
        _ if path.ends_with("/acquire") => json!({"holder": "somebody", "ttl": "1m"}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn each_line_of_the_table_of_access_holds() {
    let server = with_leader_lease().await;
    let operator = server.with_token(WRITER);
    let mut fences = vec![None];
    for lease in ["the leader", "another"] {
        let path = format!("/v1/leases/{}/acquire", lease.replace(' ', "%20"));
        let body = json!({"holder": "worker", "ttl": "1h"});
        let token = operator.post(&path, &body).await.expect(200)["fencing_token"].clone();
        fences.push(Some((lease, token.to_string())));
    }
    for (method, path, expected) in TABLE {
        for (token, expected) in [WRITER, LEADER, FOLLOWER].into_iter().zip(expected) {
            for (fence, expected) in fences.iter().zip(expected) {
                let checkpoint = body_of("/v1/checkpoints/o/r");
                let there = operator.request(Method::PUT, "/v1/checkpoints/o/r").json(&checkpoint);
                operator.send(there).await.expect(200);
                let generation = operator.get("/v1/generations/k").await.expect(200);
                let mut at = (*path).to_owned();
                if at.starts_with("/v1/cache/") {
                    let fence = generation["fence"].as_str().expect("a fence");
                    let value = operator.request(Method::PUT, &format!("{at}?fence={fence}"));
                    operator.send(value.body("v")).await.expect(200);
                    at = if *method == "PUT" { format!("{at}?fence={fence}") } else { at };
                }
                let client = server.with_token(token);
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                let mut request = client.request(method.clone(), &at).json(&body_of(path));
                if let Some((lease, token)) = fence {
                    request = request
                        .header("holdall-lease", *lease)
                        .header("holdall-fencing-token", token);
                }
                let response = client.send(request).await;
                let who = format!("{method} {path} {token} {fence:?}: {}", response.text());
                assert_eq!(response.status, *expected, "{who}");
            }
        }
    }
    // A fence of a lease that somebody else has now, or that nobody has.
    let stranger = server.with_token(FOLLOWER);
    let write = stranger.request(Method::DELETE, "/v1/checkpoints/o/r");
    let write = write.header("holdall-lease", "nobody's").header("holdall-fencing-token", "1");
    assert_eq!(stranger.send(write).await.expect_problem(412), "fence_refused");
}
