//! Requests that two programs could read differently, over connections.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Running, ask, get, listen, read_to_end, starting};
use crate::http::settings::for_tests;
use crate::http::{Scope, TokenSettings};

/// Sends `text` on a connection of its own, and returns all that comes until the server closes it.
async fn exchange(running: &Running, text: &str) -> String {
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    stream.write_all(text.as_bytes()).await.expect("sends");
    read_to_end(&mut stream).await
}

const BODY: &str = "7\r\n{\"a\":1}\r\n0\r\n\r\n";

fn post(framing: &str, body: &str) -> String {
    let head = "POST /v1/locks/job/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    format!("{head}{framing}\r\n{body}")
}

#[tokio::test]
async fn a_body_that_is_framed_twice_is_refused_and_its_connection_closed() {
    let running = listen(for_tests()).await;
    let smuggled = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let before = post("Content-Length: 7\r\n", "{\"a\":1}");
    let chunked = post("Transfer-Encoding: chunked\r\n", BODY);
    for framing in [
        "Content-Length: 18\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 18\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        "Content-Length: 18\r\nContent-Length: 18\r\n",
        "Content-Length: 18\r\nContent-Length: 19\r\n",
    ] {
        let twice = post(framing, BODY);
        for before in ["", &before, &chunked, &format!("{chunked}{before}")] {
            let seen = exchange(&running, &format!("{before}{twice}{smuggled}")).await;
            // Those before are read; they are invalid, or the store is still starting.
            let requests = before.matches("POST").count();
            assert_eq!(seen.matches("HTTP/1.1 ").count(), requests + 1, "{framing}: {seen}");
            let last = &seen[seen.rfind("HTTP/1.1 ").expect("a response")..];
            assert!(last.starts_with("HTTP/1.1 400"), "{framing}: {seen}");
            assert!(last.contains("a request has one Content-Length"), "{framing}: {seen}");
            assert!(last.contains("connection: close"), "{framing}: {seen}");
        }
    }
    // Both framings alone, with what looks like a header in the body.
    let tricky = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let plain = post(&format!("Content-Length: {}\r\n", tricky.len()), tricky);
    let chunks = format!("{:x}\r\n{tricky}\r\n0\r\n\r\n", tricky.len());
    let chunked = post("Transfer-Encoding: chunked\r\n", &chunks);
    let last = smuggled.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let seen = exchange(&running, &format!("{plain}{chunked}{last}")).await;
    assert_eq!(seen.matches("HTTP/1.1 ").count(), 3, "{seen}");
    assert_eq!(seen.matches("malformed_body").count(), 2, "{seen}");
    assert!(seen.contains("HTTP/1.1 200"), "{seen}");
    running.stop.cancel();
}

#[tokio::test]
async fn of_two_tokens_none_is_taken() {
    let mut settings = for_tests();
    settings.access.tokens = vec![
        TokenSettings::for_tests("reader", &[Scope::Read], None),
        TokenSettings::for_tests("writer", &[Scope::Read, Scope::Write], None),
    ];
    let running = listen(settings).await;
    for lines in [
        "Authorization: Bearer reader\r\nAuthorization: Bearer wrong\r\n",
        "Authorization: Bearer wrong\r\nAuthorization: Bearer reader\r\n",
        "Authorization: Bearer reader\r\nAuthorization: Bearer writer\r\n",
        "Authorization: Bearer reader\r\nX: y\r\nauthorization: Bearer reader\r\n",
        "Authorization: Bearer reader, Bearer reader\r\n",
    ] {
        let request =
            format!("GET /v1/series HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        let seen = exchange(&running, &request).await;
        assert!(seen.starts_with("HTTP/1.1 401"), "{lines}: {seen}");
    }
    let one = "GET /v1/series HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer reader\r\n\r\n";
    assert!(exchange(&running, one).await.starts_with("HTTP/1.1 503"), "the store is starting");
    running.stop.cancel();
}

#[tokio::test]
async fn unknown_parameters_are_refused_except_by_what_is_open_to_everybody() {
    let router = starting();
    // A probe must not fail for a parameter, such as one against caches.
    for open in ["/livez", "/healthz", "/-/healthy", "/openapi.json", "/openapi-3.0.json", "/docs/"]
    {
        for query in ["?x=1", "?x", "?", "?x=1&x=2"] {
            assert_eq!(
                ask(&router, get(&format!("{open}{query}"))).await.status,
                200,
                "{open}{query}"
            );
        }
    }
    assert_eq!(ask(&router, get("/docs?x=1")).await.status, 308);
    for ready in ["/readyz?x=1", "/-/ready?x=1"] {
        assert_eq!(ask(&router, get(ready)).await.status, 503, "the store is starting");
    }
    for scoped in ["/metrics", "/v1/status", "/v1/series", "/v1/leases/a", "/v1/pipelines"] {
        let seen = ask(&router, get(&format!("{scoped}?x=1"))).await;
        assert_eq!(seen.status, 400, "{scoped}: {}", seen.json);
    }
    let twice = ask(&router, get("/v1/series?limit=1&limit=2")).await;
    assert_eq!(twice.json["detail"], "the query: limit occurs more than once");
}
