//! Responses that are streams of server-sent events.
//!
//! Not what the events are: each source knows that. Invariant: a failure in the middle is the last event, a problem.

use std::convert::Infallible;
use std::future::Future;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use super::extract::one;
use super::problem::Problem;

/// Where the events come from.
pub(crate) trait EventSource: Send + 'static {
    /// Returns the next text: an event, a part of one, or a heartbeat; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Problem>> + Send;
}

/// Returns the cursor to start after. A client that connects again sends the header as well as what it asked for first:
/// the header is the newer one.
///
/// # Errors
/// 400 when the header is there twice.
pub(crate) fn last_cursor<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Result<Option<&'a str>, Problem> {
    let last = one(headers, "last-event-id")?.filter(|value| !value.is_empty());
    Ok(match last {
        Some(value) => Some(value.to_str().unwrap_or("not a cursor")),
        None => query,
    })
}

/// Makes the response: the text `first`, and then those of the source.
pub(crate) fn respond(first: Bytes, source: impl EventSource) -> Response {
    let events = stream::unfold((Some(first), Some(source)), |(first, source)| async move {
        let mut source = source?;
        let (text, source) = match first {
            Some(first) => (first, Some(source)),
            None => match source.next().await {
                Ok(text) => (text?, Some(source)),
                Err(problem) => {
                    let text = [b"event: error\ndata: ", &problem.to_json()[..], b"\n\n"].concat();
                    (text.into(), None)
                }
            },
        };
        Some((Ok::<_, Infallible>(text), (None, source)))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer responses would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
