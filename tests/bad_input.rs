//! Hostile and broken requests: each gets a problem document, and none hurts the others.

use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::push;
use crate::harness::{DEADLINE, Launch, Response, Server, eventually};

const MIB: u64 = 1 << 20;
const BOMB_FRAGMENT_MIB: u64 = 16;
const BOMB_FRAGMENTS: u64 = 256;
/// How much more memory than before any of these requests may cost.
const MEMORY_ROOM_BYTES: u64 = 256 * MIB;

async fn send(server: &Server, method: Method, path: &str, kind: &str, body: &str) -> Response {
    let request = server.request(method, path).header("content-type", kind);
    server.send(request.body(body.to_owned())).await
}

#[tokio::test]
async fn what_is_not_success_is_a_problem_document() {
    let server = Server::start().await;
    let json = "application/json";
    let mut wrong = Vec::new();
    for (method, path, kind, body, status) in [
        (Method::GET, "/nothing", json, "", 404),
        (Method::GET, "/v1/nothing", json, "", 404),
        (Method::GET, "/v1/series/00000000000000000000000000000000", json, "", 404),
        (Method::GET, "/v1/leases/nobody", json, "", 404),
        (Method::GET, "/v1/checkpoints/a/b", json, "", 404),
        (Method::PUT, "/v1/locks/job/x", json, "{}", 405),
        (Method::DELETE, "/v1/locks/job/x", json, "", 403),
        (Method::PUT, "/v1/series", json, "{}", 405),
        (Method::POST, "/metrics", json, "", 405),
        (Method::POST, "/v1/locks/job/x", "text/plain", "{}", 415),
        (Method::POST, "/v1/series", "image/png", "x", 415),
        (Method::POST, "/v1/locks/job/x", json, "{", 400),
        (Method::POST, "/v1/locks/job/x", json, "", 400),
        (Method::POST, "/v1/locks/job/x", json, "[]", 400),
        (Method::POST, "/v1/locks/job/x", json, " [\"30s\"]", 400),
        (Method::POST, "/v1/leases/x/acquire", json, "[\"me\", \"30s\", null]", 400),
        (Method::POST, "/v1/series", json, "[\"leader\", \"leader_scrape\", []]", 400),
        (Method::POST, "/v1/locks/job/x", json, "{\"ttl\": 5}", 400),
        (Method::POST, "/v1/locks/job/x", json, "{\"ttl\": \"0s\"}", 400),
        (Method::POST, "/v1/locks/job/x", json, "{\"ttl\": \"-1s\"}", 400),
        (Method::POST, "/v1/locks/job/x", json, "{\"ttl\": \"1s\", \"colour\": 1}", 400),
        (Method::POST, "/v1/locks/other/x", json, "{\"ttl\": \"1s\"}", 404),
        (Method::GET, "/v1/series?limit=many", json, "", 400),
        (Method::GET, "/v1/series/delta?cursor=nonsense", json, "", 400),
        (Method::GET, "/v1/series?match[]={", json, "", 400),
        (
            Method::PUT,
            "/v1/checkpoints/%20/b",
            json,
            "{\"checkpoint\": \"2026-01-01T00:00:00Z\"}",
            400,
        ),
        (Method::PUT, "/v1/checkpoints/a/b", json, "{\"checkpoint\": \"yesterday\"}", 400),
    ] {
        let response = send(&server, method.clone(), path, kind, body).await;
        if response.status != status {
            wrong.push(format!("{method} {path} {body}: {} {}", response.status, response.text()));
        }
        response.expect_problem(response.status);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let server = Server::start().await;
    let response = send(&server, Method::PUT, "/v1/series", "application/json", "{}").await;
    response.expect_problem(405);
    let allow = response.headers["allow"].to_str().expect("text").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn a_bad_point_leaves_no_trace_and_every_one_is_named() {
    let server = Server::start().await;
    let mut body = push("good", 1.0);
    let bad = json!({"name": "0bad", "labels": {}, "value": 1});
    let points = body["points"].as_array_mut().expect("points");
    points.extend([bad.clone(), json!({"name": "ok", "labels": {}, "value": 2}), bad]);
    let response = server.post("/v1/series", &body).await;
    response.expect_problem(422);
    let problem = response.json();
    let pointers: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|e| &e["pointer"]).collect();
    assert_eq!(pointers.len(), 2, "{problem}");
    assert!(pointers[0].as_str().expect("text").contains("/points/1"), "{problem}");
    assert!(pointers[1].as_str().expect("text").contains("/points/3"), "{problem}");
    assert_eq!(server.get("/v1/series").await.expect(200)["points"], json!([]));
}

/// Makes a gzip stream of gigabytes of zeros, from one fragment again and again.
fn gzip_bomb() -> Vec<u8> {
    let zeros = vec![0; usize::try_from(BOMB_FRAGMENT_MIB * MIB).expect("fits")];
    let mut fragment = Vec::with_capacity(1 << 20);
    Compress::new(Compression::best(), false)
        .compress_vec(&zeros, &mut fragment, FlushCompress::Full)
        .expect("zeros can be compressed");
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for _ in 0..BOMB_FRAGMENTS {
        bomb.extend_from_slice(&fragment);
    }
    // An empty last block; the checksum that follows is never reached.
    bomb.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bomb
}

#[tokio::test]
async fn a_gzip_bomb_is_413_and_costs_no_memory() {
    let server = Launch::new().env("HOLDALL_LIMITS__SERIES_DECODED_BYTES", "32MiB").start().await;
    let before = server.memory_bytes();
    let bomb = gzip_bomb();
    for kind in ["application/json", "text/plain", "application/x-ndjson"] {
        let request = server
            .request(Method::POST, "/v1/series?role=leader&source=leader_scrape")
            .header("content-type", kind)
            .header("content-encoding", "gzip")
            .body(bomb.clone());
        server.send(request).await.expect_problem(413);
    }
    let request = server
        .request(Method::POST, "/v1/locks/job/x")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(bomb);
    server.send(request).await.expect_problem(413);
    let grown = server.peak_memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_ROOM_BYTES, "grew by {} MiB", grown / MIB);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413() {
    let server = Launch::new()
        .env("HOLDALL_LIMITS__BODY_BYTES", "10KiB")
        .env("HOLDALL_LIMITS__SERIES_BODY_BYTES", "20KiB")
        .start()
        .await;
    let long = "x".repeat(30 << 10);
    let body = json!({"ttl": long}).to_string();
    let json = "application/json";
    send(&server, Method::POST, "/v1/locks/job/x", json, &body).await.expect_problem(413);
    send(&server, Method::POST, "/v1/series", json, &body).await.expect_problem(413);
    server.post("/v1/locks/job/x", &json!({"ttl": "1s"})).await.expect(200);
}

#[tokio::test]
async fn a_body_that_claims_to_be_gzip_is_400() {
    let server = Server::start().await;
    let request = server
        .request(Method::POST, "/v1/series")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("this is not gzip");
    server.send(request).await.expect_problem(400);
    let request = server
        .request(Method::POST, "/v1/series")
        .header("content-type", "application/json")
        .header("content-encoding", "rot13")
        .body("{}");
    server.send(request).await.expect_problem(415);
}

#[tokio::test]
async fn a_batch_that_is_too_long_is_refused_whole() {
    let server = Launch::new().env("HOLDALL_LIMITS__BATCH_KEYS", "3").start().await;
    let keys = |count: usize| -> Value { (0..count).map(|i| format!("k{i}")).collect() };
    let body = json!({"keys": keys(4), "ttl": "1h"});
    let response = server.post("/v1/locks/job", &body).await;
    assert!([400, 413, 422].contains(&response.status), "{}", response.text());
    let body = json!({"keys": keys(3), "ttl": "1h"});
    assert_eq!(server.post("/v1/locks/job", &body).await.expect(200)["acquired"], keys(3));
}

/// Reads whatever the server sends until it closes the connection.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    let read = stream.read_to_end(&mut response);
    // A reset closes as well.
    let _ = tokio::time::timeout(DEADLINE, read).await.expect("the server closes the connection");
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_let_go() {
    let server = Launch::new().env("HOLDALL_TIMEOUTS__IDLE", "300ms").start().await;
    for head in ["", "GET /livez HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
        stream.write_all(head.as_bytes()).await.expect("the head begins");
        let started = Instant::now();
        read_to_close(&mut stream).await;
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_its_body_too_slowly_is_let_go() {
    let server = Launch::new().env("HOLDALL_TIMEOUTS__BODY", "300ms").start().await;
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let head = "POST /v1/locks/job/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{\"ttl\":";
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let response = read_to_close(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(response.contains("application/problem+json"), "{response}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Launch::new().env("HOLDALL_LIMITS__HEAD_BYTES", "8KiB").start().await;
    let request = server.request(Method::GET, "/livez").header("x-long", "x".repeat(64 << 10));
    let response = server.send(request).await;
    assert_eq!(response.expect_problem(431), "head_too_large");
    assert_eq!(server.get("/livez").await.status, 200);
}

/// Sends a request as it is written here, closes the sending side, and reads the response.
async fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("the sending side closes");
    read_to_close(&mut stream).await
}

#[tokio::test]
async fn a_head_that_two_programs_could_read_differently_is_a_problem() {
    let server = Server::start().await;
    let long = "x".repeat(32 << 10);
    for (status, line, head, body) in [
        (200, "GET /livez HTTP/1.1", "host: x\r\n", ""),
        (200, "GET /livez HTTP/1.0", "", ""),
        (400, "GET /livez HTTP/1.1", "", ""),
        (400, "GET /livez HTTP/1.1", "host: x\r\nhost: x\r\n", ""),
        (400, "GET /livez HTTP/1.1", "host: a b\r\n", ""),
        (400, "GET /nothing HTTP/1.1", "host: x/y\r\n", ""),
        (400, "PUT /livez HTTP/1.1", "host: \r\n", ""),
        (400, "GET http://other/livez HTTP/1.1", "host: x\r\n", ""),
        (400, "GET /v1/locks/job/%zz HTTP/1.1", "host: x\r\n", ""),
        (400, "GET /v1/leases?limit=%zz HTTP/1.1", "host: x\r\n", ""),
        (
            400,
            "POST /v1/locks/job/x HTTP/1.1",
            "host: x\r\ncontent-type: application/json\r\ntransfer-encoding: gzip, chunked\r\n",
            "e\r\n{\"ttl\": \"30s\"}\r\n0\r\n\r\n",
        ),
        (431, "GET /livez HTTP/1.1", &format!("host: x\r\nx-long: {long}\r\n"), ""),
    ] {
        let response = raw(&server, &format!("{line}\r\n{head}\r\n{body}")).await;
        let expected = format!(" {status} ");
        assert!(response.contains(&expected), "{line} {head:.80}: {response}");
        let is_problem = response.contains("application/problem+json");
        assert_eq!(is_problem, status != 200, "{line} {head:.80}: {response}");
    }
    assert_eq!(server.get("/v1/locks/job/x").await.expect(200)["held"], false);
}

#[tokio::test]
async fn a_header_that_is_no_list_and_occurs_twice_is_a_problem() {
    let server = Server::start().await;
    let push = "/v1/series?role=leader&source=leader_scrape";
    let lock = "/v1/locks/job/x";
    let value = "/v1/cache/n/k?generation=0";
    let checkpoint = "/v1/checkpoints/a/b";
    for (method, path, header, text, body) in [
        (Method::POST, lock, "content-type", "application/json", "{\"ttl\":\"1s\"}"),
        (Method::POST, push, "content-type", "text/plain", "x 1\n"),
        (Method::PUT, value, "content-type", "text/plain", "x"),
        (Method::DELETE, lock, "holdall-release-token", "00", ""),
        (Method::DELETE, checkpoint, "holdall-lease", "x", ""),
        (Method::DELETE, checkpoint, "holdall-fencing-token", "1", ""),
        (Method::GET, "/v1/series/stream", "last-event-id", "x", ""),
    ] {
        let request = server.request(method.clone(), path).body(body);
        let twice = request.header(header, text).header(header, text);
        let response = server.send(twice).await;
        assert_eq!(response.expect_problem(400), "invalid_request", "{method} {path} {header}");
        assert!(response.text().contains("occurs twice"), "{header}: {}", response.text());
    }
    let twice = server.request(Method::POST, push).header("content-type", "text/plain");
    let twice = twice.header("content-encoding", "identity").header("content-encoding", "gzip");
    server.send(twice.body("x 1\n")).await.expect_problem(415);
}

#[tokio::test]
async fn a_query_that_contradicts_the_body_is_refused() {
    let server = Server::start().await;
    let push = push("x", 1.0);
    for (query, status) in [
        ("", 200),
        ("?role=leader&source=leader_scrape", 200),
        ("?role=follower", 400),
        ("?source=worker_backfill", 400),
    ] {
        let response = server.post(&format!("/v1/series{query}"), &push).await;
        assert_eq!(response.status, status, "{query}: {}", response.text());
    }
}

#[tokio::test]
async fn what_follows_a_request_does_not_hold_back_its_answer() {
    let server = Server::start().await;
    let body = "{\"ttl\":\"1s\"}";
    let length = body.len();
    let head = format!(
        "POST /v1/locks/job/follow HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    for behind in ["", "\r\n", "GET /li"] {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
        stream.write_all(format!("{head}{behind}").as_bytes()).await.expect("sent");
        let mut response = [0; 12];
        let read = stream.read_exact(&mut response);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("a response in time")
            .expect("a response");
        assert_eq!(&response, b"HTTP/1.1 200", "behind it: {behind:?}");
    }
}

#[tokio::test]
async fn garbage_instead_of_http_is_a_problem_and_hurts_nobody() {
    let server = Server::start().await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
        stream.write_all(garbage).await.expect("garbage is sent");
        stream.shutdown().await.expect("the sending half closes");
        let response = read_to_close(&mut stream).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{response}");
        assert!(response.contains("application/problem+json"), "{response}");
    }
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_request_that_exceeds_its_time_limit_is_logged_by_its_route() {
    let server = Launch::new().env("HOLDALL_TIMEOUTS__REQUEST", "100ms").start().await;
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let head = "POST /v1/locks/job/a-name HTTP/1.1\r\nhost: x\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    let response = tokio::time::timeout(DEADLINE, stream.read_exact(&mut status)).await;
    response.expect("in time").expect("a response");
    assert_eq!(&status, b"HTTP/1.1 503");
    let line = eventually("the log says so", async || {
        let log = server.log();
        log.lines().find(|line| line.contains("exceeded its time limit")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("WARN") && line.contains("POST /v1/locks/{kind}/{key}"), "{line}");
    assert!(!line.contains("a-name"), "{line}");
}
