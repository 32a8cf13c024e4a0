//! /metrics: pre-rendered pages, whole or filtered.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use serde::Deserialize;

use crate::exposition::{FILTERING_BYTES, Format, RenderFailed, negotiate};
use crate::http::access::Scope;
use crate::http::admission::RequestClass;
use crate::http::body::BodyBudget;
use crate::http::compression::Accepted;
use crate::http::extract::Query;
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, undocumented};
use crate::http::selectors::parse_selectors;
use crate::http::state::AppState;

/// Returns the row of /metrics, which no client is generated for.
pub(super) fn resource() -> Resource {
    let scrapes = undocumented("/metrics", get(scrape)).fails(&[Code::Starting]);
    Resource::new("metrics", "The page that Prometheus scrapes")
        .route(scrapes.scope(Scope::Metrics).class(RequestClass::Scrape))
}

/// What to show.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeQuery {
    /// Selectors: a sample is shown when any of them matches. Without selectors all are shown.
    #[serde(rename = "match[]", default)]
    matches: Vec<String>,
}

/// Responds to a scrape. It works also while the store is failing: the page then has what was mirrored last, and its
/// own metrics tell how old that is. Before the first complete page it is 503: a page without the series would tell
/// Prometheus that they have ended.
async fn scrape(
    State(state): State<AppState>,
    Query(query): Query<ScrapeQuery>,
    budget: BodyBudget,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.check_page()?;
    let format = negotiate(joined(&headers, ACCEPT).as_deref());
    let gzip = Accepted::of(headers.get_all(ACCEPT_ENCODING)).gzip();
    let page = if query.matches.is_empty() {
        Body::new(state.pages.scrape(format, gzip).await.map_err(|error| failed(&error))?)
    } else {
        filtered(&state, &budget, format, gzip, &query.matches).await?
    };
    let mut response = Response::new(page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Returns the part of the page that the selectors match. It is made as the client takes it.
///
/// # Errors
/// 400 for invalid selectors, 503 when there is no room in memory for the response.
async fn filtered(
    state: &AppState,
    budget: &BodyBudget,
    format: Format,
    gzip: bool,
    selectors: &[String],
) -> Result<Body, Problem> {
    let selectors = parse_selectors(selectors, "match[]", state).await?;
    let share = budget.cover_response(FILTERING_BYTES)?;
    let rest =
        state.pages.filtered(format, gzip, selectors).await.map_err(|error| failed(&error))?;
    let parts = stream::try_unfold((rest, share), |(rest, share)| async move {
        let next = rest.next().await.inspect_err(|error| drop(failed(error)))?;
        Ok::<_, RenderFailed>(next.map(|(part, rest)| (part, (rest, share))))
    });
    Ok(Body::from_stream(parts))
}

fn failed(error: &RenderFailed) -> Problem {
    tracing::error!(cause = %error, "a page of metrics could not be rendered");
    Problem::internal()
}

/// Joins the lines of a header that is a list (RFC 9110, 5.3).
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
