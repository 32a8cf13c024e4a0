//! One client that takes all it can get: the others find room, and so do renewals.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::harness::client::push;
use crate::harness::{DEADLINE, Launch, Server, eventually};

const UPLOADS: usize = 1030;
/// So many that a response does not fit into the buffers of a connection.
const LISTED: usize = 40_000;
/// A quarter of `limits.concurrent_uploads`.
const PART_OF_UPLOADS: u64 = 256;
const PUSH: &str = "POST /v1/series?role=leader&source=leader_scrape HTTP/1.1\r\nhost: x\r\n\
                    content-type: text/plain\r\ncontent-length: 100000\r\n\r\n#";
const LOCK: &str = "POST /v1/locks/job/slow HTTP/1.1\r\nhost: x\r\n\
                    content-type: application/json\r\ncontent-length: 100\r\n\r\n{";

/// Connects from another address of loopback: that is another client.
async fn connect_from(host: u8, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, host], 0).into()).expect("an address of loopback");
    socket.connect(server).await.expect("the server listens")
}

/// Begins a request, sends a byte of its body each five seconds, and returns the status of the response.
async fn drip(stream: TcpStream, begin: &'static str) -> String {
    let (mut read, mut write) = stream.into_split();
    write.write_all(begin.as_bytes()).await.expect("the request begins");
    let dripping = async move {
        let mut times = tokio::time::interval(Duration::from_secs(5));
        while write.write_all(b"#").await.is_ok() {
            times.tick().await;
        }
        // The response may still be on its way.
        std::future::pending::<()>().await;
    };
    let mut status = [0; 12];
    tokio::select! {
        response = read.read_exact(&mut status) => match response {
            Ok(_) => String::from_utf8_lossy(&status).into_owned(),
            Err(_) => "closed".to_owned(),
        },
        () = dripping => unreachable!("it is pending in the end"),
    }
}

async fn has_permits(server: &Server, kind: &str, count: u64) {
    let what = format!("{count} permits of the kind {kind} are in use");
    eventually(&what, async || (server.permits_in_use(kind).await == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_thousand_slow_uploads_denies_the_others_nothing() {
    // The time-outs end nothing here: what keeps room are the permits alone.
    let server = Launch::new()
        .env("HOLDALL_TIMEOUTS__BODY", "1h")
        .env("HOLDALL_TIMEOUTS__BODY_WINDOW", "1h")
        .env("HOLDALL_TIMEOUTS__UPLOAD", "1h")
        .start()
        .await;
    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        uploads.spawn(drip(connect_from(2, server.address()).await, PUSH));
    }
    for _ in 0..UPLOADS - usize::try_from(PART_OF_UPLOADS).expect("fits") {
        let refused = tokio::time::timeout(DEADLINE, uploads.join_next()).await.expect("in time");
        assert_eq!(refused.expect("one ends").expect("no panic"), "HTTP/1.1 503");
    }
    assert_eq!(server.permits_in_use("uploading").await, PART_OF_UPLOADS);
    let lease = json!({"holder": "other", "ttl": "1h"});
    let lease = server.post("/v1/leases/other/acquire", &lease).await.expect(200);
    let token = json!({"fencing_token": lease["fencing_token"]});
    for round in 0..20 {
        server.post("/v1/leases/other/renew", &token).await.expect(200);
        server.post("/v1/series", &push("other", f64::from(round))).await.expect(200);
        server.get("/v1/series?match[]=other").await.expect(200);
        server.post(&format!("/v1/locks/job/{round}"), &json!({"ttl": "1h"})).await.expect(200);
    }
    assert_eq!(server.permits_in_use("uploading").await, PART_OF_UPLOADS);
    drop(uploads);
    has_permits(&server, "uploading", 0).await;
}

#[tokio::test]
async fn uploads_below_the_least_rate_are_let_go() {
    let server = Launch::new().env("HOLDALL_TIMEOUTS__BODY_WINDOW", "500ms").start().await;
    for begin in [PUSH, LOCK] {
        let stream = connect_from(2, server.address()).await;
        let ended = tokio::time::timeout(DEADLINE, drip(stream, begin)).await;
        assert_eq!(ended.expect("in time"), "HTTP/1.1 408");
    }
    has_permits(&server, "uploading", 0).await;
    has_permits(&server, "running", 0).await;
}

#[tokio::test]
async fn renewals_releases_and_health_find_room_when_nothing_else_does() {
    let server = Launch::new()
        .env("HOLDALL_LIMITS__CONCURRENT_REQUESTS", "4")
        .env("HOLDALL_LIMITS__CLIENT_PERCENT", "100")
        .env("HOLDALL_TIMEOUTS__BODY_WINDOW", "1h")
        .env("HOLDALL_TIMEOUTS__BODY", "1h")
        .env("HOLDALL_TIMEOUTS__REQUEST", "1h")
        .env("HOLDALL_TIMEOUTS__UPLOAD", "1h")
        .start()
        .await;
    let lease = json!({"holder": "me", "ttl": "1h"});
    let lease = server.post("/v1/leases/mine/acquire", &lease).await.expect(200);
    let token = json!({"fencing_token": lease["fencing_token"]});
    let mut slow = JoinSet::new();
    for _ in 0..4 {
        slow.spawn(drip(connect_from(2, server.address()).await, LOCK));
    }
    has_permits(&server, "running", 4).await;
    let refused = server.get("/v1/leases/mine").await;
    assert_eq!(refused.expect_problem(503), "overloaded");
    server.post("/v1/leases/mine/renew", &token).await.expect(200);
    server.post("/v1/series", &push("x", 1.0)).await.expect(200);
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
    assert!(server.post("/v1/leases/mine/release", &token).await.status < 300);
}

#[tokio::test]
async fn a_token_is_one_client_wherever_it_is_used() {
    let tokens = r#"
        [[access.tokens]]
        name = "one"
        token = "first-token-1234567890"
        scopes = ["read", "write", "metrics"]
        [[access.tokens]]
        name = "two"
        token = "second-token-123456789"
        scopes = ["read", "write", "metrics"]
        "#;
    let server = Launch::new()
        .config(tokens)
        .env("HOLDALL_LIMITS__CONCURRENT_REQUESTS", "4")
        .env("HOLDALL_TIMEOUTS__BODY_WINDOW", "1h")
        .start()
        .await;
    let one = server.with_token("first-token-1234567890");
    let two = server.with_token("second-token-123456789");
    let mut slow = connect_from(2, server.address()).await;
    let authorized =
        LOCK.replace("\r\n\r\n", "\r\nauthorization: Bearer first-token-1234567890\r\n\r\n");
    slow.write_all(authorized.as_bytes()).await.expect("sent");
    let running = async || (two.permits_in_use("running").await == 1).then_some(());
    eventually("its request runs", running).await;
    assert_eq!(one.get("/v1/leases").await.expect_problem(503), "overloaded");
    two.get("/v1/leases").await.expect(200);
    drop(slow);
    eventually("it has room again", async || {
        (one.get("/v1/leases").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_address_leaves_connections_to_the_others() {
    let server = Launch::new().env("HOLDALL_LIMITS__CONNECTIONS", "8").start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect_from(2, server.address()).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("a response");
        held.push(stream);
    }
    let mut third = connect_from(2, server.address()).await;
    let mut end = Vec::new();
    third.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let closed = tokio::time::timeout(DEADLINE, third.read_to_end(&mut end)).await;
    closed.expect("it is closed").expect("in order");
    let end = String::from_utf8_lossy(&end);
    assert!(end.starts_with("HTTP/1.1 503") && end.contains("\"overloaded\""), "{end}");
    assert_eq!(server.send(server.request(Method::GET, "/livez")).await.status, 200);
    drop(held);
    eventually("there is room again", async || {
        let mut stream = connect_from(2, server.address()).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        (&head == b"HTTP/1.1 200").then_some(())
    })
    .await;
}

/// Sends `text` again and again, each time on a new connection, and closes the sending side after it.
async fn repeat(server: SocketAddr, host: u8, text: String) {
    loop {
        let mut stream = connect_from(host, server).await;
        let mut response = Vec::new();
        // The server may close the connection first.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut response).await;
    }
}

/// Asks for a large page, and reads nothing of it.
async fn reads_nothing(server: SocketAddr) {
    let mut stream = connect_from(4, server).await;
    let request = b"GET /v1/series?limit=30000 HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_clients_are_served_beside_abusive_ones_of_every_kind() {
    const EACH: usize = 20;
    let server = Launch::new().env("HOLDALL_TIMEOUTS__WRITE", "1s").start().await;
    let many: String = (0..30_000).map(|i| format!("many{{i=\"{i}\"}} 1\n")).collect();
    let path = "/v1/series?role=leader&source=leader_scrape";
    let many = server.request(Method::POST, path).header("content-type", "text/plain").body(many);
    server.send(many).await.expect(200);
    let mut abusive = JoinSet::new();
    let address = server.address();
    for _ in 0..EACH {
        abusive.spawn(async move { drop(drip(connect_from(2, address).await, PUSH).await) });
        abusive.spawn(async move {
            drop(drip(connect_from(3, address).await, "GET / HTTP/1.1\r\n").await)
        });
        abusive.spawn(reads_nothing(address));
        let half_closed = "GET /v1/series?limit=1 HTTP/1.1\r\nhost: x\r\n\r\n";
        abusive.spawn(repeat(address, 5, half_closed.to_owned()));
        abusive.spawn(repeat(address, 6, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100)));
        abusive.spawn(repeat(address, 7, "\u{16}\u{3}\u{1}\0".repeat(100)));
    }
    has_permits(&server, "uploading", u64::try_from(EACH).expect("fits")).await;
    let lease = json!({"holder": "good", "ttl": "1h"});
    let lease = server.post("/v1/leases/good/acquire", &lease).await.expect(200);
    let token = json!({"fencing_token": lease["fencing_token"]});
    for round in 0..50 {
        server.post("/v1/leases/good/renew", &token).await.expect(200);
        server.post("/v1/series", &push("good", f64::from(round))).await.expect(200);
        let found = server.get("/v1/series?match[]=good").await.expect(200);
        assert_eq!(found["points"][0]["value"], f64::from(round));
        server.post(&format!("/v1/locks/job/{round}"), &json!({"ttl": "1h"})).await.expect(200);
    }
    drop(abusive);
    for kind in ["uploading", "running", "reserved", "waiting_for_changes"] {
        has_permits(&server, kind, 0).await;
    }
    eventually("no request is left", async || (server.others_in_flight().await == 0).then_some(()))
        .await;
}

/// Asks for a long list and reads no more of the response than its status.
async fn read_status(server: SocketAddr) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.bind(([127, 0, 0, 2], 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(server).await.expect("the server listens");
    let request = format!("GET /v1/series?limit={LISTED} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut status = [0; 12];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut status)).await;
    read.expect("in time").expect("a response");
    (stream, String::from_utf8_lossy(&status).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_one_address_leave_memory_to_the_others() {
    let server = Launch::new()
        .env("HOLDALL_LIMITS__BUFFERED_BODY_BYTES", "16MiB")
        .env("HOLDALL_LIMITS__SERIES_BODY_BYTES", "2MiB")
        .env("HOLDALL_LIMITS__SERIES_DECODED_BYTES", "2MiB")
        .env("HOLDALL_LIMITS__MERGE_BODY_BYTES", "2MiB")
        // No reader is let go while others begin, however slowly.
        .env("HOLDALL_TIMEOUTS__WRITE", "1h")
        .start()
        .await;
    for part in 0..LISTED / 10_000 {
        let lines: String =
            (0..10_000).map(|i| format!("listed{{part=\"{part}\",i=\"{i:06}\"}} 1\n")).collect();
        let path = "/v1/series?role=leader&source=leader_scrape";
        let push = server.request(Method::POST, path).header("content-type", "text/plain");
        assert_eq!(push.body(lines).send().await.expect("the server responds").status(), 200);
    }
    let mut readers = Vec::new();
    for _ in 0..120 {
        readers.push(read_status(server.address()).await);
    }
    let running = readers.iter().filter(|(_, status)| status == "HTTP/1.1 200").count();
    // A quarter of the budget, 192 KiB for each but the first 16.
    assert_eq!(running, 23);
    assert!(readers.iter().all(|(_, status)| status == "HTTP/1.1 200" || status == "HTTP/1.1 503"));
    let list = server.get(&format!("/v1/series?limit={LISTED}")).await.expect(200);
    assert_eq!(list["points"].as_array().map(Vec::len), Some(LISTED));
}
