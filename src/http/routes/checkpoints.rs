//! Checkpoints: how far one (org, repo) was processed.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::shared::{DeletedResponse, FenceParams, HandlerResult, cut_page, deleted, unknown_page};
use crate::http::extract::{FenceHeader, Json, Path, Query, Role};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, read, write};
use crate::http::state::AppState;
use crate::http::wire::{Count, field, given};
use crate::model::checkpoints::{Checkpoint, CheckpointKey, parse_org};
use crate::model::hex;
use crate::model::time::Timestamp;
use crate::store::CheckpointOutcome;

/// Returns the rows of checkpoints.
pub(super) fn resource() -> Resource {
    Resource::new(
        "checkpoints",
        "The time up to which a repository of an organisation was processed",
    )
    .route(write(routes!(set_checkpoint)).body().fenced().fails(&[
        Code::CheckpointNotLater,
        Code::FenceRequired,
        Code::TooManyCheckpoints,
    ]))
    .route(read(routes!(get_checkpoint)).fails(&[Code::NotFound]))
    .route(write(routes!(delete_checkpoint)).fenced().fails(&[Code::NotFound, Code::FenceRequired]))
    .route(read(routes!(list_checkpoints)).compressed())
}

/// A checkpoint to write.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointRequest {
    /// The time up to which the repository was processed; stored to the nanosecond.
    #[schema(value_type = String, format = DateTime)]
    checkpoint: Timestamp,
    /// Whether to refuse, with 409, a checkpoint that is not later than the one that is held; false when absent.
    #[schema(nullable = false)]
    if_later: Option<bool>,
}

/// A checkpoint.
#[derive(Serialize, ToSchema)]
pub(crate) struct CheckpointState {
    /// The organisation.
    org: String,
    /// The repository.
    repo: String,
    /// The time up to which the repository was processed.
    #[schema(value_type = String, format = DateTime)]
    checkpoint: Timestamp,
    /// When the checkpoint was written.
    #[schema(value_type = String, format = DateTime)]
    written_at: Timestamp,
}

impl CheckpointState {
    fn new(key: CheckpointKey, held: Checkpoint) -> Self {
        let Checkpoint { checkpoint, written_at } = held;
        Self { org: key.org, repo: key.repo, checkpoint, written_at }
    }
}

fn parse_key(org: &str, repo: &str) -> Result<CheckpointKey, Problem> {
    CheckpointKey::parse(org, repo).map_err(|why| Problem::invalid(why.0))
}

/// Writes a checkpoint. Where a leader lease is configured, a request with a token that is bound to a role must carry a
/// fence: that of the leader lease with the leader's role, that of any lease with another one.
#[utoipa::path(put, path = "/v1/checkpoints/{org}/{repo}",
    params(("org" = String, Path, description = "The organisation, percent-encoded"),
        ("repo" = String, Path, description = "The repository, percent-encoded"), FenceParams),
    responses((status = 200, description = "The checkpoint", body = CheckpointState)))]
pub(crate) async fn set_checkpoint(
    State(state): State<AppState>,
    Path((org, repo)): Path<(String, String)>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
    Json(body): Json<CheckpointRequest>,
) -> HandlerResult<CheckpointState> {
    let key = parse_key(&org, &repo)?;
    let if_later = body.if_later.unwrap_or(false);
    let checkpoints = &state.engine()?.checkpoints;
    let bound_role = bound.as_ref().map(|bound| &*bound.0);
    match checkpoints.set(key.clone(), body.checkpoint, if_later, bound_role, fence).await? {
        CheckpointOutcome::Stored(held) => Ok(Json(CheckpointState::new(key, held))),
        CheckpointOutcome::NotLater(held) => {
            Err(Problem::new(Code::CheckpointNotLater).detail(format!(
                "the checkpoint that is held is not earlier: {}, written at {}",
                held.checkpoint, held.written_at
            )))
        }
    }
}

/// Reads a checkpoint.
#[utoipa::path(get, path = "/v1/checkpoints/{org}/{repo}",
    params(("org" = String, Path, description = "The organisation, percent-encoded"),
        ("repo" = String, Path, description = "The repository, percent-encoded")),
    responses((status = 200, description = "The checkpoint", body = CheckpointState)))]
pub(crate) async fn get_checkpoint(
    State(state): State<AppState>,
    Path((org, repo)): Path<(String, String)>,
) -> HandlerResult<CheckpointState> {
    let key = parse_key(&org, &repo)?;
    let held = state.engine()?.checkpoints.get(&key).await?;
    Ok(Json(CheckpointState::new(key, held)))
}

/// Deletes a checkpoint. It must be fenced where a write of it must.
#[utoipa::path(delete, path = "/v1/checkpoints/{org}/{repo}",
    params(("org" = String, Path, description = "The organisation, percent-encoded"),
        ("repo" = String, Path, description = "The repository, percent-encoded"), FenceParams),
    responses((status = 200, description = "The checkpoint was deleted", body = DeletedResponse)))]
pub(crate) async fn delete_checkpoint(
    State(state): State<AppState>,
    Path((org, repo)): Path<(String, String)>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
) -> HandlerResult<DeletedResponse> {
    let (key, bound_role) = (parse_key(&org, &repo)?, bound.as_ref().map(|bound| &*bound.0));
    state.engine()?.checkpoints.delete(key, bound_role, fence).await?;
    deleted()
}

/// Which checkpoints to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckpointPage {
    /// Only the checkpoints of this organisation.
    #[param(required = false, nullable = false)]
    org: Option<String>,
    /// The maximum number of checkpoints in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// The `next_page` of the previous page.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of checkpoints.
#[derive(Serialize, ToSchema)]
pub(crate) struct CheckpointPageResponse {
    /// The checkpoints, sorted by organisation and repository.
    checkpoints: Vec<CheckpointState>,
    /// The `page` of the next request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_page: Option<String>,
}

/// Lists checkpoints.
#[utoipa::path(get, path = "/v1/checkpoints", params(CheckpointPage),
    responses((status = 200, description = "A page of checkpoints", body = CheckpointPageResponse)))]
pub(crate) async fn list_checkpoints(
    State(state): State<AppState>,
    Query(query): Query<CheckpointPage>,
) -> HandlerResult<CheckpointPageResponse> {
    let limit = state.page_items(query.limit)?;
    let org = query.org.as_deref().map(|org| field("org", parse_org(org))).transpose()?;
    let after = query.page.as_deref().map(parse_page).transpose()?;
    let checkpoints = &state.engine()?.checkpoints;
    let found = checkpoints.list(org.as_deref(), after.as_ref(), limit + 1).await?;
    let (found, last) = cut_page(found, limit);
    let next_page = last.map(|(key, _)| print_page(&key));
    let checkpoints = found.into_iter().map(|(key, held)| CheckpointState::new(key, held));
    Ok(Json(CheckpointPageResponse { checkpoints: checkpoints.collect(), next_page }))
}

/// Each part is written in hexadecimal of its own, so that no two keys have the same page.
fn print_page(key: &CheckpointKey) -> String {
    format!("{}-{}", hex::encode(key.org.as_bytes()), hex::encode(key.repo.as_bytes()))
}

fn parse_page(page: &str) -> Result<CheckpointKey, Problem> {
    let part = |hex: &str| String::from_utf8(hex::decode(hex)?).ok();
    page.split_once('-')
        .and_then(|(org, repo)| CheckpointKey::parse(&part(org)?, &part(repo)?).ok())
        .ok_or_else(unknown_page)
}
