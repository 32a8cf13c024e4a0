//! /metrics: ready-made bytes.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
};
use axum::response::Response;

use crate::exposition::{accepts_gzip, negotiate};
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// Answers a scrape. It is there also while the store is loading or failing: the page then
/// holds what was mirrored last, and says how old that is.
pub(crate) async fn scrape(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = negotiate(joined(&headers, ACCEPT).as_deref());
    let gzip = accepts_gzip(joined(&headers, ACCEPT_ENCODING).as_deref());
    let page = state.pages.scrape(format, gzip).await.map_err(|error| {
        tracing::error!(cause = %error, "a page of metrics could not be made");
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
