//! The one layer around every route: access, limits, time, panics, counting.
//!
//! One layer instead of many, since each costs an allocation for each request. What a route
//! needs is looked up when the router is built, never per request.
//! Invariant: whatever happens inside, the client gets a complete answer, and it is counted
//! once, under its route.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tower::{Layer, Service};

use super::access::{PeerAddress, Scope};
use super::observe::RouteMetrics;
use super::place::Place;
use super::problem::Problem;
use super::state::AppState;

/// How long requests of a route may take, and which bound they count against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The answer comes at once.
    Prompt,
    /// The answer comes at once, but the body may be large, and come over a slow line.
    Uploads,
    /// The request may ask to wait for changes.
    Waits,
    /// The request may ask to wait for its turn at a lease, or at making a value that it then gets
    /// from whoever had the turn. It runs until its handler has seen that it waits, and those that
    /// wait for changes can't deny it a place.
    WaitsForTurn,
    /// The answer comes at once, but it may be large: it counts until it is sent.
    Scrapes,
    /// The answer comes at once, also when the server is busy: health, documents.
    Unbounded,
}

impl Patience {
    /// Returns the name of the class, as in the route table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Uploads => "upload",
            Self::Waits => "follow",
            Self::WaitsForTurn => "wait",
            Self::Scrapes => "scrape",
            Self::Unbounded => "unlimited",
        }
    }
}

/// Answers from this size on keep their place among the running requests until they are sent.
const HELD_BYTES: u64 = 64 << 10;

/// What is asked of the requests of one route.
pub(crate) struct Gate {
    state: AppState,
    scope: Option<Scope>,
    patience: Patience,
    metrics: RouteMetrics,
    /// The method and the path's template, for the log.
    route: String,
}

impl Gate {
    /// Makes the gate of a route; its metrics are looked up here, once.
    pub(crate) fn new(
        state: AppState,
        scope: Option<Scope>,
        patience: Patience,
        method: &str,
        path: &str,
    ) -> Self {
        let metrics = RouteMetrics::new(state.pages.own(), method, path);
        Self { state, scope, patience, metrics, route: format!("{method} {path}") }
    }

    fn admit(&self, request: &mut Request<Body>) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if let Some(scope) = self.scope {
            self.check_access(request, scope)?;
        }
        let (bound, busy) = match self.patience {
            Patience::Prompt | Patience::Uploads | Patience::WaitsForTurn => {
                (&self.state.running, "too many requests are running")
            }
            Patience::Waits => (&self.state.waiting, "too many requests are waiting"),
            Patience::Scrapes => (&self.state.scraping, "too many scrapes are being answered"),
            Patience::Unbounded => return Ok(None),
        };
        let permit = Arc::clone(bound).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::overloaded(busy))?;
        if self.patience == Patience::WaitsForTurn {
            request.extensions_mut().insert(Place::running(permit));
            return Ok(None);
        }
        Ok(Some(permit))
    }

    fn check_access(&self, request: &mut Request<Body>, scope: Scope) -> Result<(), Problem> {
        let access = &self.state.access;
        if scope == Scope::Metrics {
            let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
            access.check_metrics_address(peer)?;
        }
        if let Some(role) = access.check(request.headers(), scope)? {
            let role = role.clone();
            request.extensions_mut().insert(role);
        }
        Ok(())
    }

    fn time_limit(&self) -> Duration {
        let timeouts = &self.state.settings.timeouts;
        match self.patience {
            Patience::Prompt | Patience::Scrapes | Patience::Unbounded => timeouts.request,
            Patience::Uploads => timeouts.upload,
            Patience::Waits | Patience::WaitsForTurn => timeouts.request + timeouts.max_wait,
        }
    }

    async fn run<S>(&self, mut inner: S, mut request: Request<Body>) -> Response
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible>,
    {
        let permit = match self.admit(&mut request) {
            Ok(permit) => permit,
            Err(problem) => return problem.into_response(),
        };
        let place = request.extensions().get::<Place>().cloned();
        let work = AssertUnwindSafe(inner.call(request)).catch_unwind();
        match tokio::time::timeout(self.time_limit(), work).await {
            Ok(Ok(Ok(response))) => {
                hold(response, permit.or_else(|| place.and_then(|place| place.take())))
            }
            Ok(Err(panic)) => {
                tracing::error!(
                    route = self.route,
                    cause = panic_text(&*panic),
                    "a request panicked"
                );
                Problem::internal().into_response()
            }
            Err(_) => {
                let limit = self.time_limit();
                tracing::warn!(route = self.route, ?limit, "a request ran into its time limit");
                Problem::timed_out().into_response()
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// Keeps the permit until a large or endless answer has been sent.
fn hold(response: Response, permit: Option<OwnedSemaphorePermit>) -> Response {
    let Some(permit) = permit else { return response };
    if response.body().size_hint().upper().is_some_and(|upper| upper < HELD_BYTES) {
        return response;
    }
    keep_until_sent(response, permit)
}

/// Drops `kept` when the answer has been sent, or nobody takes it any more.
pub(crate) fn keep_until_sent<T>(response: Response, kept: T) -> Response
where
    T: Unpin + Send + 'static,
{
    response.map(|inner| Body::new(KeepingBody { inner, _kept: kept }))
}

struct KeepingBody<T> {
    inner: Body,
    _kept: T,
}

impl<T: Unpin> HttpBody for KeepingBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(ready!(Pin::new(&mut self.inner).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Puts a [`Gate`] around a route.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: Arc::clone(&self.0) }
    }
}

/// A route behind its gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let spare = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, spare);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let started = Instant::now();
            let _in_flight = gate.metrics.begin();
            let response = gate.run(inner, request).await;
            gate.metrics.observe(response.status().as_u16(), started.elapsed());
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::ServiceExt;

    use super::*;
    use crate::http::settings::{HttpSettings, for_tests};
    use crate::http::state::RouterParts;

    fn state(settings: HttpSettings) -> AppState {
        AppState::new(RouterParts {
            readiness: Arc::default(),
            settings,
            pages: crate::http::tests::pages(),
            stop: tokio_util::sync::CancellationToken::new(),
        })
    }

    async fn status<F>(state: &AppState, patience: Patience, handler: fn() -> F) -> u16
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let gate = Gate::new(state.clone(), None, patience, "GET", "/test");
        let inner = tower::service_fn(move |_: Request<Body>| async move { Ok(handler().await) });
        let gated = GateLayer(Arc::new(gate)).layer(inner);
        let response = gated.oneshot(Request::new(Body::empty())).await;
        response.expect("infallible").status().as_u16()
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let state = state(for_tests());
        assert_eq!(status(&state, Patience::Prompt, || async { panic!("a test") }).await, 500);
        let all = state.settings.limits.concurrent_requests;
        assert_eq!(state.running.available_permits(), all, "the place is free again");
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_ended_unless_it_waits() {
        let mut settings = for_tests();
        settings.timeouts.request = Duration::from_millis(10);
        let state = state(settings);
        assert_eq!(status(&state, Patience::Prompt, std::future::pending).await, 503);
        let slow = || async {
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .expect_err("pending");
            Response::new(Body::empty())
        };
        assert_eq!(status(&state, Patience::Waits, slow).await, 200);
        assert_eq!(status(&state, Patience::Uploads, slow).await, 200);
        assert_eq!(status(&state, Patience::Prompt, slow).await, 503);
    }

    #[tokio::test]
    async fn endless_answers_keep_their_place_until_they_end() {
        let state = state(for_tests());
        let all = state.waiting.available_permits();
        let permit = Arc::clone(&state.waiting).try_acquire_owned().expect("free");
        let endless = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let response = hold(Response::new(Body::from_stream(endless)), Some(permit));
        assert_eq!(state.waiting.available_permits(), all - 1);
        drop(response);
        assert_eq!(state.waiting.available_permits(), all);
        let permit = Arc::clone(&state.waiting).try_acquire_owned().expect("free");
        let _small = hold(Response::new(Body::from("small")), Some(permit));
        assert_eq!(state.waiting.available_permits(), all);
    }
}
