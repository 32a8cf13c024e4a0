//! Who may do what: tokens, scopes, roles, and the addresses that may read /metrics.

use serde_json::{Value, json};

use crate::harness::{Client, Launch, Server};

const READER: &str = "reader-token-1234567==";
pub(crate) const WRITER: &str = "writer=token=with=equals";
pub(crate) const FOLLOWER: &str = "follower-token-123456";
pub(crate) const LEADER: &str = "leader-token-12345678";
pub(crate) const OPERATOR: &str = "operator-token-123456";
const SCRAPER: &str = "scraper-token-1234567";

pub(crate) fn settings() -> String {
    format!(
        r#"
        [[access.tokens]]
        name = "reader"
        token = "{READER}"
        scopes = ["read"]
        [[access.tokens]]
        name = "writer"
        token = "{WRITER}"
        scopes = ["read", "write"]
        [[access.tokens]]
        name = "follower"
        token = "{FOLLOWER}"
        scopes = ["write"]
        role = "follower"
        [[access.tokens]]
        name = "leader"
        token = "{LEADER}"
        scopes = ["write"]
        role = "leader"
        [[access.tokens]]
        name = "operator"
        token = "{OPERATOR}"
        scopes = ["admin"]
        [[access.tokens]]
        name = "scraper"
        token = "{SCRAPER}"
        scopes = ["metrics"]
        "#
    )
}

async fn guarded() -> Server {
    Launch::new().config(&settings()).start().await
}

fn write(role: &str, source: &str) -> Value {
    let points = json!([{"name": "x", "labels": {}, "value": 1}]);
    json!({"role": role, "source": source, "points": points})
}

async fn lock(client: &Client) -> crate::harness::Response {
    client.post("/v1/locks/job/x", &json!({"ttl": "30s"})).await
}

#[tokio::test]
async fn a_lease_is_taken_over_with_the_token_that_took_it_only() {
    let server = guarded().await;
    let (leader, writer) = (server.with_token(LEADER), server.with_token(WRITER));
    let acquire = async |client: &Client, takeover: bool| {
        let body = json!({"holder": "host-1", "ttl": "1m", "takeover": takeover});
        client.post("/v1/leases/job/acquire", &body).await.expect(200)["acquired"].clone()
    };
    assert_eq!(acquire(&leader, true).await, true, "it is free");
    assert_eq!(acquire(&leader, false).await, false);
    assert_eq!(acquire(&writer, true).await, false, "the name of a holder proves nothing");
    assert_eq!(acquire(&leader, true).await, true);
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_401() {
    let server = guarded().await;
    for client in [server.client(), server.with_token("wrong"), server.with_token(&READER[1..])] {
        let response = client.get("/v1/series").await;
        response.expect_problem(401);
        assert!(response.headers.contains_key("www-authenticate"));
        lock(&client).await.expect_problem(401);
        client.get("/metrics").await.expect_problem(401);
        client.get("/v1/status").await.expect_problem(401);
    }
    let basic =
        server.request(reqwest::Method::GET, "/v1/series").header("authorization", "Basic eDp5");
    server.send(basic).await.expect_problem(401);
}

#[tokio::test]
async fn every_token_counts_and_does_what_its_scopes_say() {
    let server = guarded().await;
    let reader = server.with_token(READER);
    reader.get("/v1/series").await.expect(200);
    lock(&reader).await.expect_problem(403);
    reader.get("/metrics").await.expect_problem(403);
    let writer = server.with_token(WRITER);
    writer.get("/v1/series").await.expect(200);
    lock(&writer).await.expect(200);
    writer.post("/v1/admin/gc", &json!({})).await.expect_problem(403);
    let operator = server.with_token(OPERATOR);
    assert!(operator.post("/v1/admin/gc", &json!({})).await.status < 300);
    lock(&operator).await.expect_problem(403);
    let scraper = server.with_token(SCRAPER);
    assert_eq!(scraper.get("/metrics").await.status, 200);
    scraper.get("/v1/series").await.expect_problem(403);
}

#[tokio::test]
async fn a_token_bound_to_a_role_writes_as_nobody_else() {
    let server = guarded().await;
    let follower = server.with_token(FOLLOWER);
    follower.post("/v1/series", &write("follower", "worker_backfill")).await.expect(200);
    let as_leader = write("leader", "leader_scrape");
    follower.post("/v1/series", &as_leader).await.expect_problem(403);
    server.with_token(WRITER).post("/v1/series", &as_leader).await.expect(200);
}

#[tokio::test]
async fn without_tokens_no_foreign_page_and_no_foreign_name_is_served() {
    let server = Launch::new().env("HOLDALL_ACCESS__ALLOWED_HOSTS", "ours.example").start().await;
    let body = "holdall_page 1\n";
    let send = async |path: &str, head: &[(&str, &str)]| {
        let mut request = server.request(reqwest::Method::POST, path);
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        server.send(request.body(body)).await
    };
    let path = "/v1/series?role=leader&source=leader_scrape";
    let text = ("content-type", "text/plain");
    let own = format!("http://{}", server.address());
    for head in [("origin", own.as_str()), ("host", "ours.example"), ("sec-fetch-site", "none")] {
        send(path, &[text, head]).await.expect(200);
    }
    for (head, code) in [
        (("origin", "http://evil.example"), "origin_refused"),
        (("origin", "null"), "origin_refused"),
        (("sec-fetch-site", "cross-site"), "origin_refused"),
        (("host", "evil.example:8720"), "host_refused"),
    ] {
        assert_eq!(send(path, &[text, head]).await.expect_problem(403), code, "{head:?}");
        let read = server.request(reqwest::Method::GET, "/metrics").header(head.0, head.1);
        assert_eq!(server.send(read).await.expect_problem(403), code, "{head:?}");
        let health = server.request(reqwest::Method::GET, "/livez").header(head.0, head.1);
        server.send(health).await.expect(200);
    }
    // A page needs no preflight to send a body without a type.
    assert_eq!(send("/v1/series/delete", &[]).await.status, 415);
}

#[tokio::test]
async fn a_page_with_a_token_is_served() {
    let server = guarded().await;
    let reader = server.with_token(READER);
    let request = reader.request(reqwest::Method::GET, "/v1/series");
    let request = request.header("origin", "https://ui.example").header("host", "holdall.example");
    reader.send(request).await.expect(200);
}

#[tokio::test]
async fn health_needs_no_token() {
    let server = guarded().await;
    for path in ["/livez", "/readyz", "/healthz", "/-/healthy", "/-/ready"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn roles_and_sources_are_guarded_also_without_tokens() {
    let server = Server::start().await;
    for (role, source) in [
        ("leader", "worker_backfill"),
        ("follower", "leader_scrape"),
        ("king", "leader_scrape"),
        ("leader", "hearsay"),
    ] {
        let response = server.post("/v1/series", &write(role, source)).await;
        assert_eq!(response.expect_problem(403), "guard_refused", "{role} {source}");
    }
    assert_eq!(server.get("/v1/series").await.expect(200)["points"], json!([]));
}

#[tokio::test]
async fn a_table_of_guards_of_ones_own_replaces_the_default_one() {
    let guards = r#"{ collector = ["probe", "import"], archivist = ["import"] }"#;
    let launch = Launch::new()
        .env("HOLDALL_SERIES__GUARDS", guards)
        .env("HOLDALL_SERIES__LEADER_ROLE", "collector");
    let server = launch.start().await;
    let push = async |role: &str, source: &str| {
        let points = json!([{"name": "m", "labels": {}, "value": 1}]);
        server.post("/v1/series", &json!({"role": role, "source": source, "points": points})).await
    };
    for (role, source, allowed) in [
        ("collector", "probe", true),
        ("collector", "import", true),
        ("archivist", "import", true),
        ("archivist", "probe", false),
        ("leader", "leader_scrape", false),
        ("collector", "leader_scrape", false),
    ] {
        let response = push(role, source).await;
        assert_eq!(response.status == 200, allowed, "{role} {source}: {}", response.text());
        if !allowed {
            // What would be allowed is named.
            response.expect_problem(403);
            assert!(response.text().contains("import") || response.text().contains("archivist"));
        }
    }
}

#[tokio::test]
async fn metrics_are_for_the_addresses_that_are_listed() {
    let others = Launch::new().env("HOLDALL_ACCESS__METRICS_ALLOW", "192.0.2.0/24").start().await;
    others.get("/metrics").await.expect_problem(403);
    others.get("/v1/series").await.expect(200);
    let ours = Launch::new()
        .env("HOLDALL_ACCESS__METRICS_ALLOW", "192.0.2.0/24,127.0.0.0/8")
        .start()
        .await;
    assert_eq!(ours.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn tokens_may_come_from_the_environment_as_hashes_and_in_files() {
    use sha2::{Digest as _, Sha256};
    let hash: String =
        Sha256::digest(READER.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let launch = Launch::new();
    let file = launch.folder().join("secret");
    std::fs::write(&file, format!("{WRITER}\n")).expect("the file is written");
    let tokens = format!(
        r#"[{{name = "reader", token_sha256 = "{hash}", scopes = ["read"]}},
            {{name = "writer", token_file = "{}", scopes = ["write"]}}]"#,
        file.display()
    );
    let server = launch.env("HOLDALL_ACCESS__TOKENS", &tokens).start().await;
    server.get("/v1/series").await.expect_problem(401);
    server.with_token(READER).get("/v1/series").await.expect(200);
    lock(&server.with_token(WRITER)).await.expect(200);
}

#[tokio::test]
async fn no_secret_reaches_the_log() {
    let server = Launch::new().config(&settings()).env("HOLDALL_LOG__LEVEL", "trace").start().await;
    lock(&server.with_token(WRITER)).await.expect(200);
    server.with_token("a-wrong-secret-token").get("/v1/series").await.expect_problem(401);
    let (exit, _) = server.terminate().await;
    assert!(exit.log.contains("listening"));
    for secret in [READER, WRITER, FOLLOWER, LEADER, OPERATOR, SCRAPER, "a-wrong-secret-token"] {
        assert!(!exit.log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn where_a_leader_lease_is_named_leaders_write_under_its_token() {
    let server = Launch::new().env("HOLDALL_SERIES__LEADER_LEASE", "the leader").start().await;
    let push = async |token: Option<&Value>| {
        let mut request = server.request(reqwest::Method::POST, "/v1/series");
        if let Some(token) = token {
            request = request
                .header("holdall-lease", "the leader")
                .header("holdall-fencing-token", token.to_string());
        }
        server.send(request.json(&write("leader", "leader_scrape"))).await
    };
    assert_eq!(push(None).await.expect_problem(428), "fence_required");
    let acquire = |holder: &str| json!({"holder": holder, "ttl": "1h"});
    let path = "/v1/leases/the%20leader";
    let first = server.post(&format!("{path}/acquire"), &acquire("first")).await.expect(200);
    push(Some(&first["fencing_token"])).await.expect(200);
    let release = json!({"fencing_token": first["fencing_token"]});
    assert!(server.post(&format!("{path}/release"), &release).await.status < 300);
    let second = server.post(&format!("{path}/acquire"), &acquire("second")).await.expect(200);
    // The former leader was paused, and knows of nothing.
    assert_eq!(push(Some(&first["fencing_token"])).await.expect_problem(412), "fence_refused");
    push(Some(&second["fencing_token"])).await.expect(200);
    // Followers are no leaders.
    server.post("/v1/series", &write("follower", "worker_backfill")).await.expect(200);
}
