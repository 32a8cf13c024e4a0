//! What a small request costs before and after its handler, in time and allocations: through our
//! router, and through tower-http's layers on a handler that does nothing.
//!
//! `cargo bench --bench admission` prints nanoseconds and allocations for each request; the row of a layer shows what
//! it adds to a layer that does nothing. Argument: requests for each row (100,000). It fails when a request through
//! our router allocates more than its limit in this file: allocations are exact, times are not.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::any::Any;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use holdall::engine::Engine;
use holdall::exposition::{OwnMetrics, Pages};
use holdall::http::{Access, Readiness, RouterParts, router};
use holdall::store::embedded::{EmbeddedSettings, open};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::layer::util::Identity;
use tower::{Layer, Service, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

/// The rounds of each measurement, of which the fastest counts.
const ROUNDS: usize = 5;

/// A row: its name, how its requests are made, the status of its responses, and the most
/// allocations that a request may make.
type Row = (&'static str, fn() -> Request<Body>, u16, u64);

const ROWS: [Row; 4] = [
    ("GET /livez", || get_request("/livez"), 200, 15),
    ("GET /v1/generations/x", || get_request("/v1/generations/x"), 200, 22),
    ("GET /v1/cache/n/x (a miss)", || get_request("/v1/cache/n/x"), 404, 48),
    ("POST /v1/locks/job/x (held)", lock_request, 200, 28),
];

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn lock_request() -> Request<Body> {
    let request = Request::post("/v1/locks/job/x").header("content-type", "application/json");
    request.body(Body::from(r#"{"ttl":"3600s"}"#)).expect("a request")
}

/// The router of the whole API over a store in memory.
fn api() -> Router {
    let config = holdall::config::load(None, std::iter::empty()).expect("the defaults are valid");
    let config = config.config;
    let (stores, clock) =
        open(&EmbeddedSettings::in_memory(), &config.store).expect("opens in memory");
    let own = OwnMetrics::register(&prometheus::Registry::new()).expect("no name twice");
    let readiness = Arc::new(Readiness::default());
    let engine = Engine::new(stores, config.engine.clone(), Arc::clone(&clock));
    readiness.set_engine(Arc::new(engine));
    let pages = Arc::new(Pages::new(Arc::new(own), clock));
    router(RouterParts {
        readiness,
        access: Arc::new(Access::new(&config.http.access)),
        settings: config.http.clone(),
        pages,
        stop: CancellationToken::new(),
    })
}

/// A route whose handler does nothing.
fn bare() -> Router {
    Router::new().route("/", get(|| async {}))
}

fn layered<L>(layer: L) -> Router
where
    L: Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request<Body>> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Body>>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request<Body>>>::Error: Into<Infallible> + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send + 'static,
{
    Router::new().route("/", get(|| async {}).layer(layer))
}

/// Makes no allocation of its own, so that only the layer's are counted.
#[derive(Clone, Copy)]
struct ConstantId;

impl MakeRequestId for ConstantId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        Some(RequestId::new(HeaderValue::from_static("0123456789abcdef")))
    }
}

fn on_panic(_: Box<dyn Any + Send>) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn layers() -> Vec<(&'static str, Router)> {
    let timeout = Duration::from_secs(30);
    let id = HeaderName::from_static("x-request-id");
    let no_store = HeaderValue::from_static("no-store");
    vec![
        ("CatchPanicLayer::custom", layered(CatchPanicLayer::custom(on_panic))),
        (
            "TimeoutLayer",
            layered(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, timeout)),
        ),
        ("PropagateHeaderLayer", layered(PropagateHeaderLayer::new(id.clone()))),
        ("PropagateRequestIdLayer", layered(PropagateRequestIdLayer::new(id.clone()))),
        ("SetRequestIdLayer", layered(SetRequestIdLayer::new(id, ConstantId))),
        (
            "SetResponseHeaderLayer",
            layered(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store)),
        ),
        ("TraceLayer (nothing is logged)", layered(TraceLayer::new_for_http())),
        ("RequestBodyLimitLayer", layered(RequestBodyLimitLayer::new(1 << 20))),
        ("CorsLayer (closed)", layered(CorsLayer::new())),
    ]
}

/// What one request costs.
#[derive(Clone, Copy)]
struct Cost {
    nanos: f64,
    allocations: u64,
    bytes: u64,
}

/// Sends `requests` one after the other; the requests are made before the clock starts.
fn cost(
    runtime: &Runtime,
    router: &Router,
    make: fn() -> Request<Body>,
    status: u16,
    requests: usize,
) -> Cost {
    let send = |request| {
        let response = runtime.block_on(router.clone().oneshot(request));
        let response: Response = response.expect("routers do not fail");
        assert_eq!(response.status().as_u16(), status);
        black_box(response);
    };
    // What is made by the first requests, such as the handles of metrics, is not measured.
    (0..10).for_each(|_| send(make()));
    let request = make();
    let counted = measure(|| send(request));
    let mut nanos = f64::INFINITY;
    for _ in 0..ROUNDS {
        let batch: Vec<_> = (0..requests / ROUNDS).map(|_| make()).collect();
        let count = batch.len();
        let started = Instant::now();
        batch.into_iter().for_each(send);
        #[expect(clippy::cast_precision_loss, reason = "a mean of some digits")]
        let mean = started.elapsed().as_nanos() as f64 / count as f64;
        nanos = nanos.min(mean);
    }
    Cost { nanos, allocations: counted.count_total, bytes: counted.bytes_total }
}

fn main() {
    let requests = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(100_000);
    // One thread, on which the allocations of a request are counted.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let api = api();
    let mut exceeded = Vec::new();
    println!(
        "{:<42} {:>8} {:>12} {:>8}",
        "request through our router", "ns", "allocations", "bytes"
    );
    for (name, make, status, limit) in ROWS {
        let Cost { nanos, allocations, bytes } = cost(&runtime, &api, make, status, requests);
        println!("{name:<42} {nanos:>8.0} {allocations:>12} {bytes:>8}");
        if allocations > limit {
            exceeded
                .push(format!("{name}: {allocations} allocations, at most {limit} are allowed"));
        }
    }
    let root: fn() -> Request<Body> = || get_request("/");
    let bare = cost(&runtime, &bare(), root, 200, requests);
    let empty = cost(&runtime, &layered(Identity::new()), root, 200, requests);
    println!("\n{:<42} {:>8} {:>12} {:>8}", "an empty handler", "ns", "allocations", "bytes");
    for (name, Cost { nanos, allocations, bytes }) in [("no layer", bare), ("Identity", empty)] {
        println!("{name:<42} {nanos:>8.0} {allocations:>12} {bytes:>8}");
    }
    println!("\n{:<42} {:>8} {:>12} {:>8}", "tower-http's layer", "+ns", "+allocations", "+bytes");
    for (name, router) in layers() {
        let with = cost(&runtime, &router, root, 200, requests);
        let (nanos, bytes) = (with.nanos - empty.nanos, with.bytes - empty.bytes);
        println!("{name:<42} {nanos:>8.0} {:>12} {bytes:>8}", with.allocations - empty.allocations);
    }
    assert!(exceeded.is_empty(), "{exceeded:#?}");
}
