//! What changed: the cursor of now, and deltas, which can wait.
//!
//! Invariant: a client that goes on with the cursor of the last response misses nothing; where that can't be
//! promised, the response is 410 and never a shorter list.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::parts::{PART_SERIES, Parts, Source, respond};
use super::points::{SeriesDeltaResponse, write_change};
use crate::engine::Engine;
use crate::engine::series::Changes;
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::body::BodyBudget;
use crate::http::extract::{Json, Query};
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::HandlerResult;
use crate::http::state::AppState;
use crate::http::wire::{Count, Span, given};
use crate::model::cursor::Cursor;
use crate::store::Change;

/// A cursor.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesCursorResponse {
    /// The cursor to request the later changes with; opaque.
    cursor: String,
}

/// Reads the current cursor. A delta after it has only later changes.
#[utoipa::path(get, path = "/v1/series/cursor",
    responses((status = 200, description = "The cursor", body = SeriesCursorResponse)))]
pub(crate) async fn get_series_cursor(
    State(state): State<AppState>,
) -> HandlerResult<SeriesCursorResponse> {
    let cursor = state.engine()?.series.cursor().await?.to_string();
    Ok(Json(SeriesCursorResponse { cursor }))
}

/// Which changes to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeltaQuery {
    /// The cursor of a snapshot, or `next_cursor` of the previous delta.
    cursor: String,
    /// The maximum number of events in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// How long to wait for a change when there is none yet, such as `"30s"`.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "30s")]
    wait: Option<Span>,
}

/// Reads the series that changed after a cursor; 410 when these changes are no longer known.
#[utoipa::path(get, path = "/v1/series/delta", params(DeltaQuery),
    responses((status = 200, description = "The changes", body = SeriesDeltaResponse)))]
pub(crate) async fn get_series_delta(
    State(state): State<AppState>,
    budget: BodyBudget,
    Query(query): Query<DeltaQuery>,
    permit: RunningPermit,
) -> Result<Response, Problem> {
    let cursor = parse_cursor(&query.cursor)?;
    let limit = state.page_items(query.limit)?;
    let wait = state.wait(query.wait)?;
    if !wait.is_zero() {
        permit.wait_for(WaitFor::Changes)?;
    }
    let engine = Arc::clone(state.engine()?);
    let changes = tokio::select! {
        biased;
        changes = engine.series.delta(&cursor, limit.min(PART_SERIES), wait) => {
            changes?.ok_or_else(cursor_gone)?
        }
        // As if the wait had ended: the client's next request reaches the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => {
            let (next, head) = (cursor.clone(), cursor);
            Changes { changes: Vec::new(), next, head, more: false }
        }
    };
    let Changes { changes, next, head, more } = changes;
    let left = limit.saturating_sub(changes.len());
    let source = DeltaSource { engine, next, head, left, more };
    let parts = Parts::new(source, changes, "{\"events\":[");
    // In a box, so that requests that wait don't have the room for it.
    Box::pin(respond(parts, &budget)).await
}

/// What is left of a delta whose first part was read.
struct DeltaSource {
    engine: Arc<Engine>,
    next: Cursor,
    /// Where all parts end, so that no series is in two of them.
    head: Cursor,
    /// How many more series may be read.
    left: usize,
    more: bool,
}

impl Source for DeltaSource {
    type Item = Change;

    async fn read(&mut self) -> Result<Vec<Change>, Problem> {
        let limit = self.left.min(PART_SERIES);
        let read = self.engine.series.rest_of_delta(&self.next, Some(&self.head), limit);
        let part = read.await?.ok_or_else(cursor_gone)?;
        self.left = self.left.saturating_sub(part.changes.len());
        (self.next, self.more) = (part.next, part.more);
        Ok(part.changes)
    }

    fn at_end(&self) -> bool {
        self.left == 0 || !self.more
    }

    fn write(change: &Change, out: &mut Vec<u8>) {
        write_change(change, out);
    }

    fn tail(&self) -> String {
        delta_tail(&self.next, self.more)
    }
}

/// Returns the text of a delta behind its last event.
pub(super) fn delta_tail(next: &Cursor, more: bool) -> String {
    format!("],\"next_cursor\":\"{next}\",\"more\":{more}}}")
}

pub(super) fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::parse(text).map_err(|why| Problem::invalid_at("cursor", &why))
}

/// The problem of a cursor whose changes are no longer known.
pub(super) fn cursor_gone() -> Problem {
    Problem::new(Code::CursorGone)
        .detail("the changes after this cursor are no longer known: read a new snapshot")
}
