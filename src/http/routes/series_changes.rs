//! What changed: cursors, deltas that can wait, and the stream.
//!
//! Invariant: whoever goes on with the cursor of the last answer misses nothing; where that
//! can't be promised any more, the answer is 410 and never a shorter list.

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
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::HandlerResult;
use crate::engine::Engine;
use crate::engine::series::Changes;
use crate::http::extract::{Json, Query, json_response};
use crate::http::points::{SeriesEvent, write_changes};
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Count, Span, given};
use crate::model::cursor::Cursor;

/// A place in the order of changes.
#[derive(Serialize, ToSchema)]
pub(crate) struct CursorResponse {
    /// What to ask for changes with; opaque.
    cursor: String,
}

/// Returns the cursor of now.
#[utoipa::path(get, path = "/v1/series/cursor", tag = "series",
    responses((status = 200, description = "The cursor", body = CursorResponse)))]
pub(crate) async fn get_series_cursor(
    State(state): State<AppState>,
) -> HandlerResult<CursorResponse> {
    let cursor = state.engine()?.series.cursor().await?.to_string();
    Ok(Json(CursorResponse { cursor }))
}

/// Which changes to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeltaQuery {
    /// The cursor of a snapshot, or `next_cursor` of the delta before.
    cursor: String,
    /// The most events of the answer.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// How long to wait when nothing has changed yet, such as `"30s"`.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "30s")]
    wait: Option<Span>,
}

/// What changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_changes` writes")]
pub(crate) struct SeriesDelta {
    /// Each series at most once, at its newest state.
    events: Vec<SeriesEvent>,
    /// What to ask with next.
    next_cursor: String,
    /// More changes are there already.
    more: bool,
}

fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::parse(text).map_err(|why| Problem::invalid_at("cursor", &why))
}

/// Reads what changed after a cursor; 410 when that is no longer known.
#[utoipa::path(get, path = "/v1/series/delta", tag = "series", params(DeltaQuery),
    responses((status = 200, description = "The changes", body = SeriesDelta)))]
pub(crate) async fn get_series_delta(
    State(state): State<AppState>,
    Query(query): Query<DeltaQuery>,
) -> Result<Response, Problem> {
    let cursor = parse_cursor(&query.cursor)?;
    let limit = state.page_items(query.limit)?;
    let wait = state.wait(query.wait)?;
    let series = &state.engine()?.series;
    let changes = tokio::select! {
        biased;
        changes = series.delta(&cursor, limit, wait) => changes?,
        // As if the time were over: what comes next is asked of the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => {
            Changes { changes: Vec::new(), next: cursor.clone(), more: false }
        }
    };
    Ok(json_response(changes_json_off_thread(changes).await?))
}

/// From how many changes on their JSON is written off the async threads.
const MANY: usize = 2000;

async fn changes_json_off_thread(changes: Changes) -> Result<Vec<u8>, Problem> {
    if changes.changes.len() < MANY {
        return Ok(changes_json(&changes));
    }
    tokio::task::spawn_blocking(move || changes_json(&changes)).await.map_err(|error| {
        tracing::error!(cause = %error, "writing changes as JSON failed");
        Problem::internal()
    })
}

fn changes_json(changes: &Changes) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 384 * changes.changes.len());
    write_changes(changes, &mut out);
    out
}

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The cursor to begin after. The header `Last-Event-ID` goes before it.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
    /// The most changes of one event.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
}

/// Streams changes as server-sent events: each event `change` holds a delta, and its id is the
/// cursor to go on with. An event `error` holds a problem and is the last.
#[utoipa::path(get, path = "/v1/series/stream", tag = "streams", params(StreamQuery),
    responses((status = 200, description = "The changes, without end", body = String,
        content_type = "text/event-stream")))]
pub(crate) async fn stream_series(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<Response, Problem> {
    let engine = Arc::clone(state.engine()?);
    let limit = state.page_items(query.limit)?;
    // A client that connects again sends both: the header is the newer.
    let last = headers.get("last-event-id").filter(|value| !value.is_empty());
    let text = match last {
        Some(value) => value.to_str().unwrap_or("not a cursor"),
        // To begin now when there is none would lose changes in silence.
        None => query.cursor.as_deref().unwrap_or_default(),
    };
    let cursor = parse_cursor(text)?;
    // The first look happens before the stream begins, so that 410 is a status.
    let first = engine.series.delta(&cursor, limit, Duration::ZERO).await?;
    let feed = Feed { state, engine, cursor, limit, first: Some(first), ended: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would hold events back.
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
        match found {
            Ok(changes) => Some(self.event(&changes)),
            Err(error) => {
                self.ended = true;
                let problem = Problem::from(error).to_json();
                Some([b"event: error\ndata: ", &problem[..], b"\n\n"].concat().into())
            }
        }
    }

    fn event(&mut self, changes: &Changes) -> Bytes {
        self.cursor = changes.next.clone();
        if changes.changes.is_empty() {
            return Bytes::from_static(b": heartbeat\n\n");
        }
        // JSON text holds no line feed.
        let head = format!("event: change\nid: {}\ndata: ", changes.next);
        [head.as_bytes(), &changes_json(changes), b"\n\n"].concat().into()
    }
}
