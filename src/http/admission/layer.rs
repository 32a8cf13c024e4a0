//! The one layer around every route's handler: admission, the time limit, panics, counting.
//!
//! One layer and one future, since each further one costs allocations for each request (`benches/admission.rs` counts
//! them; a `GET /livez` makes 15). tower-http's layers cost, on top of the 3 of any layer of its own: `CatchPanicLayer`
//! 2, `TimeoutLayer` 1 and its body can't be a problem document, `SetRequestIdLayer` 4, `TraceLayer` 2 when nothing is
//! logged, `SetResponseHeaderLayer` 1, `CorsLayer` 10.
//! Invariant: every request is counted once, under its route and the status of its response.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use pin_project_lite::pin_project;
use tokio::time::Timeout;
use tower::{Layer, Service};

use super::hold::hold_while_large;
use super::{Permit, RouteAdmission};
use crate::http::problem::Problem;

/// Puts the admission of a route around its handler.
#[derive(Clone)]
pub(crate) struct AdmissionLayer(Arc<RouteAdmission>);

impl AdmissionLayer {
    pub(super) fn new(route: RouteAdmission) -> Self {
        Self(Arc::new(route))
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting { inner, route: Arc::clone(&self.0) }
    }
}

/// A handler behind its route's admission.
#[derive(Clone)]
pub(crate) struct Admitting<S> {
    inner: S,
    route: Arc<RouteAdmission>,
}

impl<S> Service<Request<Body>> for Admitting<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let started = Instant::now();
        let in_flight = InFlight::begin(&self.route);
        // Admission never waits, so the handler can be called here, on the service that was polled ready: no clone of
        // it has to move into the future.
        let stage = match self.route.admit(&mut request) {
            Ok(permit) => {
                let work = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
                let work = tokio::time::timeout(self.route.time_limit, work);
                Stage::Running { work, permit: Some(permit) }
            }
            Err(problem) => Stage::Refused { problem: Some(problem) },
        };
        Admitted { stage, started, in_flight }
    }
}

pin_project! {
    /// The response of a handler, or the refusal of its request.
    pub(crate) struct Admitted<F> {
        #[pin]
        stage: Stage<F>,
        started: Instant,
        in_flight: InFlight,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F> {
        Running {
            #[pin]
            work: Timeout<CatchUnwind<AssertUnwindSafe<F>>>,
            // `None` after the response.
            permit: Option<Permit>,
        },
        Refused {
            // `None` after the response.
            problem: Option<Problem>,
        },
    }
}

impl<F> Future for Admitted<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let route = &this.in_flight.route;
        let response = match this.stage.project() {
            StageProjection::Refused { problem } => {
                problem.take().expect("not polled after its response").into_response()
            }
            // The future is dropped right after its response, and the handler's with it: one that exceeded its time
            // limit ends there.
            StageProjection::Running { work, permit } => match ready!(work.poll(cx)) {
                Ok(Ok(Ok(response))) => {
                    hold_while_large(response, permit.take().and_then(Permit::into_current))
                }
                Ok(Err(panic)) => route.panicked(&*panic),
                Err(_elapsed) => route.timed_out(),
            },
        };
        route.metrics.observe(response.status().as_u16(), this.started.elapsed());
        Poll::Ready(Ok(response))
    }
}

impl RouteAdmission {
    fn panicked(&self, panic: &(dyn Any + Send)) -> Response {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let cause = text.unwrap_or("unknown");
        tracing::error!(route = self.route, cause, "a request panicked");
        Problem::internal().into_response()
    }

    fn timed_out(&self) -> Response {
        let limit = self.time_limit;
        tracing::warn!(route = self.route, ?limit, "a request exceeded its time limit");
        Problem::timed_out().into_response()
    }
}

/// Counts a request as in flight until its future is dropped: with its response, or because the client went away.
struct InFlight {
    route: Arc<RouteAdmission>,
}

impl InFlight {
    fn begin(route: &Arc<RouteAdmission>) -> Self {
        route.metrics.begin();
        Self { route: Arc::clone(route) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.route.metrics.end();
    }
}
