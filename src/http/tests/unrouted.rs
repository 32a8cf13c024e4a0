//! Responses that no route makes: to heads that can't be parsed, and on connections that are one too many.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Running, listen, listen_with, read_to_end};
use crate::http::settings::for_tests;

/// Checks that `text` is one whole response with a problem, and returns its head.
fn is_one_problem(text: &str, status: u16, code: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    for line in ["content-type: application/problem+json", "connection: close"] {
        assert!(head.lines().any(|of_head| of_head == line), "{line} is missing in {text}");
    }
    assert!(head.lines().any(|line| line == format!("content-length: {}", body.len())), "{text}");
    assert_eq!(head.matches("content-length").count(), 1, "{text}");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&json["status"], &json["code"]), (&status.into(), &code.into()), "{text}");
    head.to_owned()
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.address).await.expect("connects")
}

#[tokio::test]
async fn a_head_that_can_not_be_parsed_gets_a_problem() {
    let running = listen(for_tests()).await;
    let large =
        format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: 1\r\n".repeat(1000));
    for (bad, status, code) in [
        ("\u{16}\u{3}\u{1}\0\u{1}\0", 400, "invalid_request"),
        ("GET / HTTP/9.9\r\n\r\n", 400, "invalid_request"),
        ("GET /livez HTTP/1.1\r\nhost: x\r\nbad name: x\r\n\r\n", 400, "invalid_request"),
        ("GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400, "invalid_request"),
        (&large, 431, "head_too_large"),
        (&many, 431, "head_too_large"),
    ] {
        // As the first of a connection, as the second one, and sent at once with one before it.
        let good = "GET /docs/swagger-ui.css HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut first = connect(&running).await;
        first.write_all(bad.as_bytes()).await.expect("sends all of it");
        let head = is_one_problem(&read_to_end(&mut first).await, status, code);
        assert!(head.contains("\r\ndate: "), "{head}");
        for pause in [true, false] {
            let mut second = connect(&running).await;
            let begin = if pause { good.to_owned() } else { format!("{good}{bad}") };
            second.write_all(begin.as_bytes()).await.expect("sends");
            let mut begin = vec![0; 64 << 10];
            second.read_exact(&mut begin).await.expect("a long response");
            assert!(begin.starts_with(b"HTTP/1.1 200 OK"));
            if pause {
                second.write_all(bad.as_bytes()).await.expect("sends all of it");
            }
            let text = read_to_end(&mut second).await;
            let at = text.rfind("HTTP/1.1 ").expect("a second response");
            is_one_problem(&text[at..], status, code);
        }
    }
    running.stop.cancel();
}

/// What hyper writes of its own accord.
const BARE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_response_that_looks_like_a_refusal_is_sent_as_it_is() {
    let chunks = || {
        let chunks = stream::unfold(0, |sent| async move {
            // Each chunk is written before the next one is made.
            tokio::task::yield_now().await;
            (sent < 5).then(|| (Ok::<_, Infallible>(Bytes::from(BARE)), sent + 1))
        });
        std::future::ready(Body::from_stream(chunks))
    };
    let router = Router::new().route("/chunks", get(chunks)).route("/one", get(async || BARE));
    let running = listen_with(router, for_tests()).await;
    let mut stream = connect(&running).await;
    for _ in 0..3 {
        stream.write_all(b"GET /one HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sends");
        let mut response = Vec::new();
        while !response.ends_with(BARE.as_bytes()) {
            assert!(stream.read_buf(&mut response).await.expect("more") > 0, "it ended early");
        }
        assert!(response.starts_with(b"HTTP/1.1 200 OK"));
    }
    let last = b"GET /chunks HTTP/1.0\r\n\r\n";
    stream.write_all(last).await.expect("sends");
    let text = read_to_end(&mut stream).await;
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, BARE.repeat(5));
    running.stop.cancel();
}

#[tokio::test]
async fn a_connection_that_is_one_too_many_gets_a_problem() {
    let mut settings = for_tests();
    settings.limits.connections = 4;
    settings.limits.client_percent = 25;
    let running = listen(settings).await;
    let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connect(&running).await;
    first.write_all(request).await.expect("sends");
    let mut status = [0; 12];
    first.read_exact(&mut status).await.expect("a response");
    assert_eq!(&status, b"HTTP/1.1 200");
    for _ in 0..3 {
        let mut second = connect(&running).await;
        second.write_all(request).await.expect("sends");
        let head = is_one_problem(&read_to_end(&mut second).await, 503, "overloaded");
        assert!(head.contains("\r\nretry-after: 1"), "{head}");
    }
    // One that asks nothing is closed, too.
    let mut silent = connect(&running).await;
    assert_eq!(read_to_end(&mut silent).await, "");
    // None of them took anything away from the others, or for long.
    drop(first);
    loop {
        let mut next = connect(&running).await;
        next.write_all(request).await.expect("sends");
        next.read_exact(&mut status).await.expect("a response");
        if &status == b"HTTP/1.1 200" {
            break;
        }
    }
    running.stop.cancel();
}
