//! Deleting series: one, or all that match.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{others_series, parse_id};
use crate::http::extract::{FenceHeader, Json, Path, Role};
use crate::http::problem::{Code, Problem, ProblemPart};
use crate::http::routes::shared::{DeletedResponse, FenceParams, HandlerResult, deleted};
use crate::http::selectors::parse_selectors;
use crate::http::state::AppState;
use crate::store::DeleteOutcome;

/// The codes of deleting one series.
pub(super) const CODES: &[Code] = &[Code::SeriesOfAnotherRole, Code::NotFound, Code::FenceRequired];

/// The codes of deleting the series that match.
pub(super) const MATCHING_CODES: &[Code] =
    &[Code::SeriesOfAnotherRole, Code::FenceRequired, Code::PartlyApplied];

/// Deletes one series. A token that is bound to a role deletes only what it may overwrite, see `push_series`. With a
/// token that is bound to the leader's role, the request must carry the fence of the leader lease, if one is configured.
/// A fence in the request is always checked.
#[utoipa::path(delete, path = "/v1/series/{id}",
    params(("id" = String, Path, description = "The series' id"), FenceParams),
    responses((status = 200, description = "The series was deleted", body = DeletedResponse)))]
pub(crate) async fn delete_series(
    State(state): State<AppState>,
    Path(id): Path<String>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
) -> HandlerResult<DeletedResponse> {
    let bound_role = bound.as_ref().map(|bound| &*bound.0);
    let outcome = state.engine()?.series.delete(parse_id(&id)?, bound_role, fence).await?;
    count_deleted(outcome)?;
    deleted()
}

/// Returns how many series were deleted, or matched.
fn count_deleted(outcome: DeleteOutcome) -> Result<usize, Problem> {
    let others = match outcome {
        DeleteOutcome::Deleted(count) => return Ok(count),
        DeleteOutcome::OthersSeries(others) => others,
    };
    let parts = others.first.iter().map(|(id, role)| ProblemPart {
        pointer: id.to_string(),
        detail: format!("the series was written by the role {role}"),
    });
    Err(others_series(parts.collect(), others.total))
}

/// Which series to delete.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeriesDeleteRequest {
    /// Prometheus selectors, at least one; a series is deleted when any of them matches.
    #[serde(rename = "match")]
    #[schema(example = json!(["{job=\"old\"}"]))]
    matches: Vec<String>,
    /// Whether to only count the series that match; false when absent.
    #[schema(nullable = false)]
    dry_run: Option<bool>,
}

/// The outcome of a deletion.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesDeleteResponse {
    /// How many series matched.
    #[schema(value_type = i64)]
    matched: usize,
    /// How many series were deleted: none in a dry run.
    #[schema(value_type = i64)]
    deleted: usize,
}

/// Deletes all series that any of the selectors matches, in one step; none of them when the token may not delete one.
/// Tokens and fences are checked as for the deletion
/// of one series, also in a dry run. Where `GET /v1/status` reports `atomic_batches: false`, readers may see a part of
/// the deletion, and after a 5xx a part may have been deleted (503 `partly_applied` says how many series): repeat the
/// request to complete it.
#[utoipa::path(post, path = "/v1/series/delete", params(FenceParams),
    responses((status = 200, description = "The number of deleted series", body = SeriesDeleteResponse)))]
pub(crate) async fn delete_matching_series(
    State(state): State<AppState>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
    Json(body): Json<SeriesDeleteRequest>,
) -> HandlerResult<SeriesDeleteResponse> {
    let selectors = parse_selectors(&body.matches, "/match", &state).await?;
    let dry_run = body.dry_run.unwrap_or(false);
    let series = &state.engine()?.series;
    let bound_role = bound.as_ref().map(|bound| &*bound.0);
    let outcome = series.delete_matching(&selectors, dry_run, bound_role, fence).await?;
    let matched = count_deleted(outcome)?;
    Ok(Json(SeriesDeleteResponse { matched, deleted: if dry_run { 0 } else { matched } }))
}
