//! The stream of changes, as server-sent events.
//!
//! Invariant: the id of each event is the cursor to go on with, so that a client that connects again misses nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::changes::{changes_json, cursor_gone, parse_cursor};
use crate::engine::Engine;
use crate::engine::series::Changes;
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Count, given};
use crate::model::cursor::Cursor;

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The cursor to start after. The header `Last-Event-ID` takes precedence.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
    /// The maximum number of changes in one event.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
}

/// Streams changes as server-sent events. Each event `change` contains a delta, and its id is the cursor to continue
/// with. An event `error` contains a problem, and is the last event.
#[utoipa::path(get, path = "/v1/series/stream", params(StreamQuery),
    responses((status = 200, description = "A stream of changes", body = String,
        content_type = "text/event-stream")))]
pub(crate) async fn stream_series(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
    permit: RunningPermit,
) -> Result<Response, Problem> {
    let engine = Arc::clone(state.engine()?);
    let limit = state.page_items(query.limit)?;
    // A client that connects again sends both: the header is the newer one.
    let last = headers.get("last-event-id").filter(|value| !value.is_empty());
    let text = match last {
        Some(value) => value.to_str().unwrap_or("not a cursor"),
        // Without a cursor the request is refused: to begin now would lose changes silently.
        None => query.cursor.as_deref().unwrap_or_default(),
    };
    let cursor = parse_cursor(text)?;
    permit.wait_for(WaitFor::Changes)?;
    // The first read happens before the stream begins, so that a cursor that is gone is a status.
    let first = engine.series.delta(&cursor, limit, Duration::ZERO).await?;
    let first = Some(first.ok_or_else(cursor_gone)?);
    let feed = Feed { state, engine, cursor, limit, first, ended: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer responses would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Feed {
    state: AppState,
    engine: Arc<Engine>,
    cursor: Cursor,
    limit: usize,
    first: Option<Changes>,
    ended: bool,
}

impl Feed {
    /// Returns the next event; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended || self.state.stop.is_cancelled() {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(self.event(&first));
        }
        let heartbeat = self.state.settings.timeouts.heartbeat;
        let found = tokio::select! {
            biased;
            () = self.state.stop.cancelled() => return None,
            found = self.engine.series.delta(&self.cursor, self.limit, heartbeat) => found,
        };
        match found.map_err(Problem::from).and_then(|found| found.ok_or_else(cursor_gone)) {
            Ok(changes) => Some(self.event(&changes)),
            Err(problem) => {
                self.ended = true;
                Some([b"event: error\ndata: ", &problem.to_json()[..], b"\n\n"].concat().into())
            }
        }
    }

    fn event(&mut self, changes: &Changes) -> Bytes {
        self.cursor = changes.next.clone();
        if changes.changes.is_empty() {
            return Bytes::from_static(b": heartbeat\n\n");
        }
        // JSON text contains no line feed.
        let head = format!("event: change\nid: {}\ndata: ", changes.next);
        [head.as_bytes(), &changes_json(changes), b"\n\n"].concat().into()
    }
}
