//! /metrics: pre-rendered pages.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
};
use axum::response::Response;
use axum::routing::get;

use crate::exposition::{accepts_gzip, negotiate};
use crate::http::access::Scope;
use crate::http::admission::RequestClass;
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, undocumented};
use crate::http::state::AppState;

/// Returns the row of /metrics, which no client is generated for.
pub(super) fn resource() -> Resource {
    let scrapes = undocumented("/metrics", get(scrape)).fails(&[Code::Starting]);
    Resource::new("metrics", "The page that Prometheus scrapes")
        .route(scrapes.scope(Scope::Metrics).class(RequestClass::Scrape))
}

/// Responds to a scrape. It works also while the store is failing: the page then has what was mirrored last, and its
/// own metrics tell how old that is. Before the first complete page it is 503: a page without the series would tell
/// Prometheus that they have ended.
async fn scrape(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Problem> {
    state.check_page()?;
    let format = negotiate(joined(&headers, ACCEPT).as_deref());
    let gzip = accepts_gzip(joined(&headers, ACCEPT_ENCODING).as_deref());
    let page = state.pages.scrape(format, gzip).await.map_err(|error| {
        tracing::error!(cause = %error, "a page of metrics could not be rendered");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::new(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Joins the lines of a header that is a list (RFC 9110, 5.3).
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
