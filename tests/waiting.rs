//! Requests that wait: thousands of them cost little, and those that went away get nothing.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, Server, eventually};

const POLLS: usize = 10_000;
/// How many clients they come from: each has its part of the permits.
const ADDRESSES: usize = 4;
const MEMORY_PER_POLL_BYTES: u64 = 32 << 10;
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 500;

/// Lets this process, and the servers that it starts, open as many files as the tests need.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(POLLS).expect("fits") + OTHER_FILES;
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= needed, "the hard limit on open files is {most}: at least {needed} are needed");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit can be raised");
}

/// Opens a connection, sends one request and leaves the response unread.
async fn ask(server: &Server, head: &str, body: &str) -> TcpStream {
    ask_from(1, server, head, body).await
}

/// Does that from one of the addresses of loopback: each is a client of its own.
async fn ask_from(host: u8, server: &Server, head: &str, body: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, host], 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(server.address()).await.expect("the server listens");
    let request = format!(
        "{head} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_long_polls_cost_little_and_all_see_the_change() {
    raise_file_limit();
    let server = Server::start().await;
    let cursor = server.get("/v1/series/cursor").await.expect(200)["cursor"].clone();
    let head = format!("GET /v1/series/delta?cursor={}&wait=60s", cursor.as_str().expect("text"));
    let before = server.memory_bytes();
    let mut polls = Vec::with_capacity(POLLS);
    for number in 0..POLLS {
        let host = u8::try_from(number % ADDRESSES).expect("fits") + 1;
        polls.push(ask_from(host, &server, &head, "").await);
    }
    let count = u64::try_from(POLLS).expect("fits");
    eventually("all polls wait", async || (server.others_in_flight().await >= count).then_some(()))
        .await;
    let grown = server.memory_bytes().saturating_sub(before);
    eprintln!("{POLLS} long polls hold {} bytes each", grown / count);
    assert!(grown < count * MEMORY_PER_POLL_BYTES, "{} bytes a poll", grown / count);

    server.try_push("the_change", 1.0).await.expect("the server responds").expect(200);
    let mut responses = JoinSet::new();
    for mut poll in polls {
        responses.spawn(async move {
            let mut response = String::new();
            let read = poll.read_to_string(&mut response);
            tokio::time::timeout(DEADLINE, read).await.expect("in time").expect("a response");
            assert!(
                response.starts_with("HTTP/1.1 200") && response.contains("the_change"),
                "{response}"
            );
        });
    }
    while let Some(response) = responses.join_next().await {
        response.expect("every poll sees the change");
    }
}

#[tokio::test]
async fn a_waiter_that_hung_up_never_gets_the_lease() {
    const GONE: u64 = 20;
    let server = Server::start().await;
    let first = json!({"holder": "first", "ttl": "1h"});
    let token =
        server.post("/v1/leases/x/acquire", &first).await.expect(200)["fencing_token"].clone();
    let mut gone = Vec::new();
    for number in 0..GONE {
        let body = json!({"holder": format!("gone-{number}"), "ttl": "1h", "wait": "60s"});
        gone.push(ask(&server, "POST /v1/leases/x/acquire", &body.to_string()).await);
    }
    eventually("they wait", async || (server.others_in_flight().await >= GONE).then_some(())).await;
    let client = server.client();
    let last = json!({"holder": "last", "ttl": "1h", "wait": "60s"});
    let last = tokio::spawn(async move { client.post("/v1/leases/x/acquire", &last).await });
    eventually("all wait", async || (server.others_in_flight().await > GONE).then_some(())).await;
    drop(gone);
    eventually("one waits", async || (server.others_in_flight().await <= 1).then_some(())).await;
    let release = json!({"fencing_token": token});
    assert!(server.post("/v1/leases/x/release", &release).await.status < 300);
    let response =
        tokio::time::timeout(DEADLINE, last).await.expect("in time").expect("a response");
    let response = response.expect(200);
    assert_eq!(response["acquired"], true, "{response}");
    assert_eq!(response["holder"], "last");
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_response_unless_it_waits() {
    let server = Server::start().await;
    for number in 0..20 {
        let path = format!("POST /v1/locks/job/half-{number}");
        let mut half = ask(&server, &path, "{\"ttl\": \"1h\"}").await;
        half.shutdown().await.expect("the sending side closes");
        let mut response = String::new();
        let read = half.read_to_string(&mut response);
        tokio::time::timeout(DEADLINE, read).await.expect("in time").expect("a response");
        assert!(response.starts_with("HTTP/1.1 200"), "{number}: {response:?}");
        assert!(response.contains("{\"acquired\":true,"), "{number}: {response:?}");
    }
    let first = json!({"holder": "first", "ttl": "1h"});
    let first = server.post("/v1/leases/x/acquire", &first).await.expect(200);
    let body = json!({"holder": "half", "ttl": "1h", "wait": "60s"}).to_string();
    let mut half = ask(&server, "POST /v1/leases/x/acquire", &body).await;
    eventually("it waits", async || (server.others_in_flight().await == 1).then_some(())).await;
    half.shutdown().await.expect("the sending side closes");
    eventually("it is gone", async || (server.others_in_flight().await == 0).then_some(())).await;
    let release = json!({"fencing_token": first["fencing_token"]});
    assert!(server.post("/v1/leases/x/release", &release).await.status < 300);
    server.get("/v1/leases/x").await.expect_problem(404);
}

#[tokio::test]
async fn waiters_are_served_in_their_order() {
    let server = Server::start().await;
    let mut waiters = JoinSet::new();
    for number in 0..5_u64 {
        let client = server.client();
        let holder = format!("holder-{number}");
        waiters.spawn(async move {
            let body = json!({"holder": holder, "ttl": "1h", "wait": "60s"});
            let response = client.post("/v1/leases/queue/acquire", &body).await.expect(200);
            assert_eq!(response["acquired"], true, "{response}");
            (number, response["fencing_token"].as_i64().expect("a token"))
        });
        // The first one gets it; each of the others is known to wait before the next one asks.
        if number == 0 {
            eventually("the lease is held", async || {
                (server.get("/v1/leases/queue").await.status == 200).then_some(())
            })
            .await;
        }
        eventually("it waits", async || (server.others_in_flight().await >= number).then_some(()))
            .await;
    }
    let mut served = Vec::new();
    while let Some(granted) = waiters.join_next().await {
        let (number, token) = granted.expect("a grant");
        served.push(number);
        let release = json!({"fencing_token": token});
        assert!(server.post("/v1/leases/queue/release", &release).await.status < 300);
    }
    assert_eq!(served, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_wait_ends_when_its_time_is_over() {
    let server = Server::start().await;
    let first = json!({"holder": "first", "ttl": "1h"});
    server.post("/v1/leases/x/acquire", &first).await.expect(200);
    let started = std::time::Instant::now();
    let second = json!({"holder": "second", "ttl": "1h", "wait": "200ms"});
    let response = server.post("/v1/leases/x/acquire", &second).await.expect(200);
    assert_eq!(response["acquired"], false);
    assert_eq!(response["holder"], "first");
    assert!(started.elapsed() >= Duration::from_millis(200));
    let too_long = json!({"holder": "second", "ttl": "1h", "wait": "30days"});
    server.post("/v1/leases/x/acquire", &too_long).await.expect_problem(400);
}
