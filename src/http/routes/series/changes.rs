//! What changed: the cursor of now, and deltas, which can wait.
//!
//! Invariant: a client that goes on with the cursor of the last response misses nothing; where that can't be
//! promised, the response is 410 and never a shorter list.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::points::SeriesDeltaResponse;
use crate::engine::series::Changes;
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::extract::{Json, Query, json_response};
use crate::http::offload::offload;
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::HandlerResult;
use crate::http::state::AppState;
use crate::http::wire::{Count, Span, given};
use crate::model::cursor::Cursor;

/// Deltas with at least this many changes are written as JSON off the threads that serve connections.
const MANY: usize = 2000;

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
    Query(query): Query<DeltaQuery>,
    permit: RunningPermit,
) -> Result<Response, Problem> {
    let cursor = parse_cursor(&query.cursor)?;
    let limit = state.page_items(query.limit)?;
    let wait = state.wait(query.wait)?;
    if !wait.is_zero() {
        permit.wait_for(WaitFor::Changes)?;
    }
    let series = &state.engine()?.series;
    let changes = tokio::select! {
        biased;
        changes = series.delta(&cursor, limit, wait) => changes?.ok_or_else(cursor_gone)?,
        // As if the wait had ended: the client's next request reaches the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => {
            Changes { changes: Vec::new(), next: cursor.clone(), more: false }
        }
    };
    let json = if changes.changes.len() < MANY {
        changes_json(&changes)
    } else {
        offload("writing a delta as JSON", move || changes_json(&changes)).await?
    };
    Ok(json_response(json))
}

pub(super) fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::parse(text).map_err(|why| Problem::invalid_at("cursor", &why))
}

/// The problem of a cursor whose changes are no longer known.
pub(super) fn cursor_gone() -> Problem {
    Problem::new(Code::CursorGone)
        .detail("the changes after this cursor are no longer known: read a new snapshot")
}

pub(super) fn changes_json(changes: &Changes) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 384 * changes.changes.len());
    // Writing to memory can't fail, and neither can text and finite numbers as JSON.
    let _ = serde_json::to_writer(&mut out, &SeriesDeltaResponse::new(changes));
    out
}
