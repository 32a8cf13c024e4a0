//! The stream of changes, as server-sent events.
//!
//! Invariant: the id of each event is the cursor to go on with, so that a client that connects again misses nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;

use super::changes::{cursor_gone, delta_tail, parse_cursor};
use super::parts::{PART_SERIES, Parts, Source, cover_sending};
use super::points::write_change;
use crate::engine::Engine;
use crate::engine::series::Changes;
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::body::{BodyBudget, Share};
use crate::http::event_stream::{self, EventSource, last_cursor};
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Count, given};
use crate::model::cursor::Cursor;
use crate::store::Change;

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The cursor to start after. The header `Last-Event-ID` takes precedence.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
    /// The maximum number of changes in one event; the server may send fewer.
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
    budget: BodyBudget,
    permit: RunningPermit,
) -> Result<Response, Problem> {
    let engine = Arc::clone(state.engine()?);
    let limit = state.page_items(query.limit)?;
    // Without a cursor the request is refused: to begin now would lose changes silently.
    let text = last_cursor(&headers, query.cursor.as_deref())?.unwrap_or_default();
    let cursor = parse_cursor(text)?;
    permit.wait_for(WaitFor::Changes)?;
    // The first read happens before the stream begins, so that a cursor that is gone is a status.
    let limit = limit.min(PART_SERIES);
    let first = engine.series.delta(&cursor, limit, Duration::ZERO).await?;
    let first = first.ok_or_else(cursor_gone)?;
    let mut feed = Feed { state, engine, budget, cursor, limit, event: None };
    // Before the stream begins, so that a lack of memory is a status, too.
    let begin = feed.begin(first).await?;
    Ok(event_stream::respond(begin, feed))
}

struct Feed {
    state: AppState,
    engine: Arc<Engine>,
    budget: BodyBudget,
    cursor: Cursor,
    limit: usize,
    /// The event that is being sent, when it has more than one chunk.
    event: Option<(Parts<OneEvent>, Share)>,
}

impl EventSource for Feed {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if let Some((event, _)) = &mut self.event {
            let chunk = event.next().await?;
            if event.has_ended() {
                self.event = None;
            }
            return Ok(Some(chunk.into()));
        }
        let heartbeat = self.state.settings.timeouts.heartbeat;
        let found = tokio::select! {
            biased;
            () = self.state.stop.cancelled() => return Ok(None),
            found = self.engine.series.delta(&self.cursor, self.limit, heartbeat) => found,
        };
        self.begin(found?.ok_or_else(cursor_gone)?).await.map(Some)
    }
}

impl Feed {
    /// Returns the first text of an event. Where that is not the whole event, it keeps the rest.
    ///
    /// # Errors
    /// 503 when the budget of bytes is spent.
    async fn begin(&mut self, changes: Changes) -> Result<Bytes, Problem> {
        let Changes { changes, next, more, .. } = changes;
        self.cursor = next.clone();
        if changes.is_empty() {
            return Ok(Bytes::from_static(b": heartbeat\n\n"));
        }
        // JSON text contains no line feed.
        let text = format!("event: change\nid: {next}\ndata: {{\"events\":[");
        let mut event = Parts::new(OneEvent { next, more }, changes, text);
        let first = event.next().await?;
        let budget = &self.budget;
        if event.has_ended() {
            return budget.cover_response(first.len())?.hold(first);
        }
        self.event = Some((event, cover_sending(budget)?));
        Ok(first.into())
    }
}

/// The changes of one event, which were all read: its id is the cursor behind them.
struct OneEvent {
    next: Cursor,
    more: bool,
}

impl Source for OneEvent {
    type Item = Change;

    async fn read(&mut self) -> Result<Vec<Change>, Problem> {
        Ok(Vec::new())
    }

    fn at_end(&self) -> bool {
        true
    }

    fn write(change: &Change, out: &mut Vec<u8>) {
        write_change(change, out);
    }

    fn tail(&self) -> String {
        format!("{}\n\n", delta_tail(&self.next, self.more))
    }
}
