//! More clients than there is room for, and clients that hold on to what they were given.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{DEADLINE, Launch, Server, eventually};

/// Starts a server whose page of metrics fits into no buffer of a connection.
async fn with_large_page(launch: &Launch) -> Server {
    const SERIES: usize = 60_000;
    let server = launch.start().await;
    let label = "x".repeat(200);
    let text: String =
        (0..SERIES).map(|i| format!("unread{{a=\"{label}\",i=\"{i}\"}} 1\n")).collect();
    let path = "/v1/series?role=leader&source=leader_scrape";
    let push = server.request(Method::POST, path).header("content-type", "text/plain");
    server.send(push.body(text.clone())).await.expect(200);
    let whole = async || (server.get("/metrics").await.body.len() > text.len()).then_some(());
    eventually("the page is there", whole).await;
    server
}

/// Asks for the page of metrics, and takes nothing of it but its status.
async fn silent_scraper(server: &Server) -> TcpStream {
    // The scrape before may count for a moment longer than its client reads.
    eventually("a scrape begins", async || {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(server.address()).await.expect("the server listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("the response begins");
        (&head == b"HTTP/1.1 200").then_some(stream)
    })
    .await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let server = with_large_page(&Launch::new().env("HOLDALL_TIMEOUTS__WRITE", "300ms")).await;
    let before = server.open_files();
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(silent_scraper(&server).await);
    }
    eventually("they are let go", async || (server.open_files() <= before).then_some(())).await;
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn scrapes_count_until_they_are_read() {
    let launch = Launch::new()
        .env("HOLDALL_TIMEOUTS__WRITE", "1h")
        .env("HOLDALL_LIMITS__CLIENT_PERCENT", "100")
        .env("HOLDALL_LIMITS__CONCURRENT_SCRAPES", "2");
    let server = with_large_page(&launch).await;
    let silent = [silent_scraper(&server).await, silent_scraper(&server).await];
    let refused = server.get("/metrics").await;
    assert_eq!(refused.expect_problem(503), "overloaded");
    assert!(refused.headers.contains_key("retry-after"));
    drop(silent);
    eventually("scrapes succeed again", async || {
        (server.get("/metrics").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_beyond_the_limits_are_refused_and_may_come_again() {
    let server = Launch::new().env("HOLDALL_LIMITS__WAITING_REQUESTS", "1").start().await;
    let taken = json!({"holder": "first", "ttl": "1h"});
    server.post("/v1/leases/x/acquire", &taken).await.expect(200);
    let waits = json!({"holder": "second", "ttl": "1h", "wait": "60s"});
    let (client, body) = (server.client(), waits.clone());
    let waiter = tokio::spawn(async move { client.try_post("/v1/leases/x/acquire", &body).await });
    eventually("one waits", async || (server.others_in_flight().await == 1).then_some(())).await;
    let refused = server.post("/v1/leases/x/acquire", &waits).await;
    refused.expect_problem(503);
    assert!(refused.headers.contains_key("retry-after"));
    waiter.abort();
    eventually("there is room again", async || {
        let waits = json!({"holder": "x", "ttl": "1h", "wait": "1ms"});
        let response = server.post("/v1/leases/x/acquire", &waits).await;
        (response.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = Launch::new()
        .env("HOLDALL_LIMITS__CONNECTIONS", "2")
        .env("HOLDALL_LIMITS__CLIENT_PERCENT", "100")
        .listening()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("a response");
        held.push(stream);
    }
    let client = server.client();
    let mut third = tokio::spawn(async move { client.get("/livez").await.status });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
    assert!(early.is_err(), "the third connection did not wait");
    drop(held);
    let status = tokio::time::timeout(DEADLINE, third).await.expect("in time").expect("a response");
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_server_without_files_left_recovers() {
    const CROWD: usize = 200;
    let server = Launch::new().shell("ulimit -n 100").start().await;
    assert!(server.log().contains("fewer files may be open"), "{}", server.log());
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(server.address()).await.expect("the queue is longer"));
    }
    eventually("the server notices", async || {
        server.log().contains("could not be accepted").then_some(())
    })
    .await;
    drop(crowd);
    eventually("it serves again", async || {
        (server.try_get("/readyz").await?.status == 200).then_some(())
    })
    .await;
    server.post("/v1/locks/job/x", &json!({"ttl": "1h"})).await.expect(200);
}
