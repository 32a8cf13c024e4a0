//! Checkpoints: how far one (org, repo) was processed.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{DeletedResponse, FenceParams, HandlerResult};
use crate::http::extract::{FenceHeader, Json, Path, Query};
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Count, field, from_hex, given, to_hex};
use crate::model::checkpoints::{Checkpoint, CheckpointKey, parse_org};
use crate::model::time::Timestamp;

/// Asks to write a checkpoint.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointRequest {
    /// How far was processed; kept to the nanosecond.
    #[schema(value_type = String, format = DateTime)]
    checkpoint: Timestamp,
    /// Refuse to move back; false when absent.
    #[schema(nullable = false)]
    if_later: Option<bool>,
}

/// A checkpoint as it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct CheckpointState {
    /// The organisation.
    org: String,
    /// The repository.
    repo: String,
    /// How far was processed.
    #[schema(value_type = String, format = DateTime)]
    checkpoint: Timestamp,
    /// When that was written.
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

/// Writes a checkpoint.
#[utoipa::path(put, path = "/v1/checkpoints/{org}/{repo}", tag = "checkpoints",
    params(("org" = String, Path, description = "The organisation, percent-encoded"),
        ("repo" = String, Path, description = "The repository, percent-encoded"), FenceParams),
    responses((status = 200, description = "The checkpoint", body = CheckpointState)))]
pub(crate) async fn set_checkpoint(
    State(state): State<AppState>,
    Path((org, repo)): Path<(String, String)>,
    FenceHeader(fence): FenceHeader,
    Json(body): Json<CheckpointRequest>,
) -> HandlerResult<CheckpointState> {
    let key = parse_key(&org, &repo)?;
    let if_later = body.if_later.unwrap_or(false);
    let checkpoints = &state.engine()?.checkpoints;
    let held = checkpoints.set(key.clone(), body.checkpoint, if_later, fence).await?;
    Ok(Json(CheckpointState::new(key, held)))
}

/// Reads a checkpoint.
#[utoipa::path(get, path = "/v1/checkpoints/{org}/{repo}", tag = "checkpoints",
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

/// Deletes a checkpoint.
#[utoipa::path(delete, path = "/v1/checkpoints/{org}/{repo}", tag = "checkpoints",
    params(("org" = String, Path, description = "The organisation, percent-encoded"),
        ("repo" = String, Path, description = "The repository, percent-encoded"), FenceParams),
    responses((status = 200, description = "It is gone", body = DeletedResponse)))]
pub(crate) async fn delete_checkpoint(
    State(state): State<AppState>,
    Path((org, repo)): Path<(String, String)>,
    FenceHeader(fence): FenceHeader,
) -> HandlerResult<DeletedResponse> {
    state.engine()?.checkpoints.delete(parse_key(&org, &repo)?, fence).await?;
    Ok(Json(DeletedResponse { deleted: true }))
}

/// Which checkpoints to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckpointPage {
    /// Only those of this organisation.
    #[param(required = false, nullable = false)]
    org: Option<String>,
    /// The most checkpoints of the answer.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// `next_page` of the page before.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of checkpoints.
#[derive(Serialize, ToSchema)]
pub(crate) struct CheckpointPageResponse {
    /// The checkpoints, sorted by organisation and repository.
    checkpoints: Vec<CheckpointState>,
    /// What to ask with for more; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_page: Option<String>,
}

/// Lists checkpoints.
#[utoipa::path(get, path = "/v1/checkpoints", tag = "checkpoints", params(CheckpointPage),
    responses((status = 200, description = "A page of checkpoints", body = CheckpointPageResponse)))]
pub(crate) async fn list_checkpoints(
    State(state): State<AppState>,
    Query(query): Query<CheckpointPage>,
) -> HandlerResult<CheckpointPageResponse> {
    let limit = state.page_items(query.limit)?;
    let org = query.org.as_deref().map(|org| field("org", parse_org(org))).transpose()?;
    let after = query.page.as_deref().map(parse_page).transpose()?;
    let checkpoints = &state.engine()?.checkpoints;
    let mut found = checkpoints.list(org.as_deref(), after.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_page = found.last().filter(|_| more).map(|(key, _)| next_page(key));
    let checkpoints = found.into_iter().map(|(key, held)| CheckpointState::new(key, held));
    Ok(Json(CheckpointPageResponse { checkpoints: checkpoints.collect(), next_page }))
}

/// Two parts, each on its own in hexadecimal, so that no choice of keys makes them one.
fn next_page(key: &CheckpointKey) -> String {
    format!("{}-{}", to_hex(key.org.as_bytes()), to_hex(key.repo.as_bytes()))
}

fn parse_page(page: &str) -> Result<CheckpointKey, Problem> {
    let part = |hex: &str| String::from_utf8(from_hex(hex)?).ok();
    page.split_once('-')
        .and_then(|(org, repo)| CheckpointKey::parse(&part(org)?, &part(repo)?).ok())
        .ok_or_else(|| Problem::invalid("page is not a next_page that this server gave"))
}
