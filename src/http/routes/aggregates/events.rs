//! Events that no merge carries: who sees one first.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::http::routes::shared::{HandlerResult, check_batch};
use crate::http::state::AppState;

/// Events that were seen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsSeenRequest {
    /// The ids of the events. They have nothing to do with the event ids of any pipeline.
    event_ids: Vec<String>,
}

/// Which events were seen for the first time.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventsSeenResponse {
    /// For each event, in the order of the request, whether no request had named it before. Of an id that occurs twice
    /// in a request, only the first is.
    first_seen: Vec<bool>,
}

/// Marks events as seen, and says which of them nobody had marked before: of any number of callers, exactly one is told
/// so. An event is remembered for `events.dedup`, counted from its first request. Whoever handles an event after this
/// request, and fails, does not get it again: where the event only changes an aggregate, send its id with the update
/// instead. After a 5xx some of the events may be marked.
#[utoipa::path(post, path = "/v1/events/seen",
    responses((status = 200, description = "Which events are new", body = EventsSeenResponse)))]
pub(crate) async fn mark_events_seen(
    State(state): State<AppState>,
    Json(body): Json<EventsSeenRequest>,
) -> HandlerResult<EventsSeenResponse> {
    check_batch(&state, body.event_ids.len())?;
    let aggregates = &state.engine()?.aggregates;
    let ids = aggregates
        .seen_ids(&body.event_ids)
        .map_err(|(index, why)| Problem::invalid_at(&format!("/event_ids/{index}"), &why))?;
    Ok(Json(EventsSeenResponse { first_seen: aggregates.mark_seen(&ids).await? }))
}
