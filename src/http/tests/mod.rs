//! Tests of the whole router, and of the listener, without a store.

mod ambiguous;
mod api;
mod filtered;
mod hung_up;
mod not_ready;
mod unrouted;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::settings::for_tests;
use super::{Access, HttpSettings, RouterParts, Scope, TokenSettings, router, serve};
use crate::clock::ManualClock;
use crate::exposition::{OwnMetrics, Pages};
use crate::model::time::Timestamp;

/// A status, headers, and the body, also as JSON (null when it is not).
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) bytes: axum::body::Bytes,
    pub(super) json: serde_json::Value,
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> Seen {
    let response = router.clone().oneshot(request).await.expect("routers do not fail");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or_default();
    Seen { status: parts.status.as_u16(), headers: parts.headers, bytes, json }
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// Complete pages of a store without series.
pub(super) fn pages() -> Arc<Pages> {
    let pages = incomplete_pages();
    pages.set_complete();
    pages
}

/// Pages before the first refresh.
fn incomplete_pages() -> Arc<Pages> {
    let own = OwnMetrics::register(&prometheus::Registry::new()).expect("no name twice");
    let clock = ManualClock::at(Timestamp::from_nanos(0));
    Arc::new(Pages::new(Arc::new(own), Arc::new(clock)))
}

fn parts(settings: HttpSettings) -> RouterParts {
    RouterParts {
        readiness: Arc::default(),
        access: Arc::new(Access::new(&settings.access)),
        settings,
        pages: pages(),
        stop: CancellationToken::new(),
    }
}

fn starting() -> Router {
    router(parts(for_tests()))
}

fn is_problem(seen: &Seen, status: u16, code: &str) {
    assert_eq!(seen.status, status, "{}", seen.json);
    assert_eq!(seen.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(seen.json["status"], status);
    assert_eq!(seen.json["code"], code);
}

#[tokio::test]
async fn what_matches_no_route_is_a_problem() {
    let router = starting();
    is_problem(&ask(&router, get("/nowhere")).await, 404, "not_found");
    is_problem(&ask(&router, get("/v1/locks/job/")).await, 404, "not_found");
    let delete = Request::delete("/v1/series").body(Body::empty()).expect("a request");
    let seen = ask(&router, delete).await;
    is_problem(&seen, 405, "method_not_allowed");
    let allow = seen.headers[header::ALLOW].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

fn with_tokens() -> Router {
    let mut settings = for_tests();
    settings.access.tokens = vec![
        TokenSettings::for_tests("reader", &[Scope::Read], None),
        TokenSettings::for_tests("writer=", &[Scope::Read, Scope::Write], None),
    ];
    router(parts(settings))
}

#[tokio::test]
async fn routes_ask_for_their_scope() {
    let router = with_tokens();
    let with = |method: &str, path: &str, token: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::empty())
            .expect("a request")
    };
    let seen = ask(&router, get("/v1/series")).await;
    is_problem(&seen, 401, "unauthorized");
    assert!(seen.headers.contains_key(header::WWW_AUTHENTICATE));
    is_problem(&ask(&router, with("GET", "/v1/series", "wrong")).await, 401, "unauthorized");
    is_problem(&ask(&router, with("GET", "/v1/series", "reader")).await, 503, "starting");
    is_problem(&ask(&router, with("POST", "/v1/series", "reader")).await, 403, "forbidden");
    is_problem(&ask(&router, with("POST", "/v1/series", "writer=")).await, 503, "starting");
    is_problem(&ask(&router, with("POST", "/v1/admin/gc", "writer=")).await, 403, "forbidden");
    // Also where a key is called like a route.
    for path in ["/v1/cache/n/get", "/v1/cache/n/k"] {
        is_problem(&ask(&router, get(path)).await, 401, "unauthorized");
        is_problem(&ask(&router, with("GET", path, "reader")).await, 503, "starting");
        let path = format!("{path}?generation=0");
        is_problem(&ask(&router, with("PUT", &path, "reader")).await, 403, "forbidden");
        is_problem(&ask(&router, with("PUT", &path, "writer=")).await, 503, "starting");
        is_problem(&ask(&router, with("DELETE", &path, "reader")).await, 403, "forbidden");
    }
    is_problem(&ask(&router, get("/v1/generations/bump")).await, 401, "unauthorized");
    let bump = "/v1/generations/bump/bump";
    is_problem(&ask(&router, with("POST", bump, "reader")).await, 403, "forbidden");
    is_problem(&ask(&router, get("/metrics")).await, 401, "unauthorized");
    for open in ["/livez", "/openapi.json", "/openapi-3.0.json", "/docs/"] {
        assert_eq!(ask(&router, get(open)).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn the_documents_and_their_page_are_served() {
    let router = starting();
    let seen = ask(&router, get("/openapi.json")).await;
    assert_eq!(seen.json["openapi"], "3.1.0");
    let seen = ask(&router, get("/openapi-3.0.json")).await;
    assert_eq!(seen.json["openapi"], "3.0.3");
    assert_eq!(ask(&router, get("/docs/swagger-ui.css")).await.status, 200);
    is_problem(&ask(&router, get("/docs/nothing.js")).await, 404, "not_found");
    let mut request = get("/openapi.json");
    let gzip = axum::http::HeaderValue::from_static("gzip");
    request.headers_mut().insert(header::ACCEPT_ENCODING, gzip);
    assert_eq!(ask(&router, request).await.headers[header::CONTENT_ENCODING], "gzip");
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused_before_the_store_is_asked() {
    let router = starting();
    for path in [
        "/v1/series?unknown=1",
        "/v1/series?limit=0",
        "/v1/series?limit=1000000",
        "/v1/series/delta?cursor=x",
        "/v1/series/delta",
        "/v1/leases/%ff",
        "/v1/leases/%zz",
        "/v1/checkpoints/a/%2",
        "/v1/checkpoints/%20/b",
        "/v1/series/short-id",
    ] {
        let seen = ask(&router, get(path)).await;
        assert!(seen.status == 400 || seen.status == 503, "{path}: {}", seen.json);
        if !path.contains("short") {
            assert_eq!(seen.status, 400, "{path}: {}", seen.json);
        }
    }
    let post = |media: &str, body: &'static str| {
        let request = Request::post("/v1/locks/job/a").header(header::CONTENT_TYPE, media);
        request.body(Body::from(body)).expect("a request")
    };
    let wrong = ask(&router, post("text/plain", "{}")).await;
    is_problem(&wrong, 415, "unsupported_media_type");
    is_problem(&ask(&router, post("application/json", "{")).await, 400, "malformed_body");
    let seen = ask(&router, post("application/json", r#"{"ttl": "0s"}"#)).await;
    is_problem(&seen, 400, "invalid_request");
    assert_eq!(seen.json["errors"][0]["pointer"], "/ttl");
    let large = Request::post("/v1/locks/job/a").header(header::CONTENT_TYPE, "application/json");
    let large = large.body(Body::from(vec![b' '; 65 << 10])).expect("a request");
    is_problem(&ask(&router, large).await, 413, "body_too_large");
    for path in ["/v1/locks/job/a", "/v1/series", "/v1/series/delete"] {
        let untyped = Request::post(path).body(Body::from("{}")).expect("a request");
        is_problem(&ask(&router, untyped).await, 415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn the_limit_on_running_requests_spares_health() {
    let mut settings = for_tests();
    settings.limits.concurrent_requests = 0;
    let router = router(parts(settings));
    let seen = ask(&router, get("/v1/status")).await;
    is_problem(&seen, 503, "overloaded");
    assert!(seen.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(ask(&router, get("/livez")).await.status, 200);
}

#[tokio::test]
async fn scrapes_that_are_being_sent_are_bounded() {
    let mut settings = for_tests();
    settings.limits.concurrent_scrapes = 0;
    settings.limits.concurrent_requests = 0;
    let none = router(parts(settings));
    let seen = ask(&none, get("/metrics")).await;
    is_problem(&seen, 503, "overloaded");
    assert!(seen.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(ask(&none, get("/livez")).await.status, 200);
    let mut settings = for_tests();
    settings.limits.concurrent_scrapes = 1;
    settings.limits.concurrent_requests = 0;
    let one = router(parts(settings));
    // One after the other; and whoever runs does not deny the scrapes.
    for _ in 0..3 {
        assert_eq!(ask(&one, get("/metrics")).await.status, 200);
    }
}

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn listen(settings: HttpSettings) -> Running {
    listen_with(router(parts(settings.clone())), settings).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await;
    read.expect("the server closes").expect("no error");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn idle_connections_end_and_the_server_stops_at_once() {
    let mut settings = for_tests();
    settings.timeouts.idle = Duration::from_millis(50);
    let running = listen(settings).await;
    let mut silent = TcpStream::connect(running.address).await.expect("connects");
    silent.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let text = read_to_end(&mut silent).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    let address = running.address;
    ends(running).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn metrics_are_for_addresses_that_are_allowed() {
    let mut settings = for_tests();
    settings.access.metrics_allow = vec!["192.0.2.0/24".parse().expect("a network")];
    let running = listen(settings).await;
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    let text = read_to_end(&mut stream).await;
    let status = StatusCode::FORBIDDEN.as_u16().to_string();
    assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
    running.stop.cancel();
}

#[tokio::test]
async fn a_client_that_sends_too_much_can_read_the_response() {
    let running = listen(for_tests()).await;
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    let length = 32 << 20;
    let head = format!(
        "POST /v1/locks/job/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sends");
    stream.write_all(&vec![b' '; length]).await.expect("sends all of it");
    let text = read_to_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    running.stop.cancel();
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let router = starting();
    for path in ["/v1/series/0123", "/nowhere/secret", "/v1/leases/a%2Fb"] {
        ask(&router, get(path)).await;
    }
    let wrong = Request::put("/livez").body(Body::empty()).expect("a request");
    ask(&router, wrong).await;
    let response = router.clone().oneshot(get("/metrics")).await.expect("routers do not fail");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    for line in [
        "route=\"/v1/series/{id}\"",
        "route=\"/v1/leases/{name}\"",
        "holdall_http_requests_total{method=\"any\",route=\"unmatched\",status=\"404\"} 1",
        "holdall_http_requests_total{method=\"any\",route=\"unmatched\",status=\"405\"} 1",
        "holdall_http_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    assert!(!text.contains("secret"));
}

async fn listen_with(router: Router, settings: HttpSettings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let token = stop.clone();
    let ended = tokio::spawn(async move { serve(listener, router, &settings, token).await });
    Running { address, stop, ended }
}

async fn ends(running: Running) {
    running.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.ended).await;
    ended.expect("stops in time").expect("no panic");
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_connection() {
    let mut settings = for_tests();
    settings.timeouts.write = Duration::from_millis(50);
    let (dropped, mut seen_dropped) = tokio::sync::watch::channel(());
    let handler = move || {
        let dropped = dropped.clone();
        let endless = futures_util::stream::unfold(dropped, |dropped| async move {
            Some((Ok::<_, std::convert::Infallible>(vec![b'x'; 64 << 10]), dropped))
        });
        std::future::ready(Body::from_stream(endless))
    };
    let router = Router::new().route("/", axum::routing::get(handler));
    let running = listen_with(router, settings).await;
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    // The server ends though the client neither reads nor closes: `shutdown` is much longer.
    ends(running).await;
    // The sender is dropped with the response that held it, and with the router.
    let gone = tokio::time::timeout(Duration::from_secs(10), seen_dropped.changed()).await;
    assert!(gone.expect("in time").is_err());
    drop(stream);
}

#[tokio::test]
async fn running_requests_finish_when_the_server_stops() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let handler = move || {
        let (mut wait, begun) = (wait.clone(), begun.clone());
        async move {
            begun.send(()).await.expect("the test listens");
            wait.wait_for(|go| *go).await.expect("the test goes on");
            "finished"
        }
    };
    let router = Router::new().route("/", axum::routing::get(handler));
    let running = listen_with(router, for_tests()).await;
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    has_begun.recv().await.expect("the request runs");
    running.stop.cancel();
    go.send(true).expect("the request waits");
    assert!(read_to_end(&mut stream).await.ends_with("finished"));
    ends(running).await;
}

#[tokio::test]
async fn a_refused_body_does_not_break_its_connection() {
    let running = listen(for_tests()).await;
    let mut stream = TcpStream::connect(running.address).await.expect("connects");
    let head = b"POST /v1/series?unknown=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
    stream.write_all(head).await.expect("sends");
    let mut response = vec![0; 16];
    stream.read_exact(&mut response).await.expect("a response before the body was sent");
    assert_eq!(response, b"HTTP/1.1 400 Bad");
    let next = b"bodyGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.expect("sends");
    let text = read_to_end(&mut stream).await;
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    ends(running).await;
}
