//! Generations: counters that tell whether what was made from a source is still valid.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::shared::{HandlerResult, check_batch, int64};
use crate::http::extract::{Json, Path};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, admin, read, write};
use crate::http::state::AppState;
use crate::http::wire::{GenerationState, Ttl, field};
use crate::model::generations::{Generation, GenerationKey};

/// Returns the rows of generations. Batches have paths outside the key space, so that a key can have any name.
pub(super) fn resource() -> Resource {
    Resource::new("generations", "Counters that tell whether a cached value is still valid")
        .route(read(routes!(get_generation)))
        .route(write(routes!(bump_generation)).fails(&[Code::TooManyGenerations]))
        .route(read(routes!(snapshot_generations)).body())
        .route(
            write(routes!(bump_generations))
                .body()
                .fails(&[Code::PartlyApplied, Code::TooManyGenerations]),
        )
        .route(admin(routes!(clean_up_generations)).body())
}

/// Reads a generation. A key that was never bumped has the generation 0, and also has a fence.
#[utoipa::path(get, path = "/v1/generations/{key}",
    params(("key" = String, Path, description = "The key, percent-encoded")),
    responses((status = 200, description = "The generation", body = GenerationState)))]
pub(crate) async fn get_generation(
    State(state): State<AppState>,
    Path(key): Path<String>,
) -> HandlerResult<GenerationState> {
    let key = field("key", GenerationKey::parse(key))?;
    let generations = state.engine()?.generations.snapshot(&[key]).await?;
    only(&generations)
}

/// Bumps a generation: raises it by one, which invalidates the cached values that depend on it. After the response, no
/// lookup returns a value whose fence was read before the bump.
#[utoipa::path(post, path = "/v1/generations/{key}/bump",
    params(("key" = String, Path, description = "The key, percent-encoded")),
    responses((status = 200, description = "The generation", body = GenerationState)))]
pub(crate) async fn bump_generation(
    State(state): State<AppState>,
    Path(key): Path<String>,
) -> HandlerResult<GenerationState> {
    let key = field("key", GenerationKey::parse(key))?;
    let generations = state.engine()?.generations.bump(vec![key]).await?;
    only(&generations)
}

fn only(generations: &[Generation]) -> HandlerResult<GenerationState> {
    let generation = generations.first().ok_or_else(Problem::internal)?;
    Ok(Json(generation.into()))
}

/// The keys of many generations.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationBatchRequest {
    /// The keys; a key that occurs twice counts once.
    keys: Vec<String>,
}

/// Many generations.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationBatchResponse {
    /// The generation of each key.
    generations: BTreeMap<String, GenerationState>,
}

impl GenerationBatchRequest {
    fn parse(&self, state: &AppState) -> Result<Vec<GenerationKey>, Problem> {
        check_batch(state, self.keys.len())?;
        let parse = |(i, key): (usize, &String)| {
            GenerationKey::parse(key.as_str())
                .map_err(|why| Problem::invalid_at(&format!("/keys/{i}"), &why))
        };
        self.keys.iter().enumerate().map(parse).collect()
    }

    fn respond(self, generations: &[Generation]) -> GenerationBatchResponse {
        let generations = generations.iter().map(GenerationState::from);
        GenerationBatchResponse { generations: self.keys.into_iter().zip(generations).collect() }
    }
}

/// Reads many generations. To cache a value, read its source after this response, and put the value with the fence of
/// its key.
#[utoipa::path(post, path = "/v1/batch/generations/snapshot",
    responses((status = 200, description = "The generations", body = GenerationBatchResponse)))]
pub(crate) async fn snapshot_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationBatchRequest>,
) -> HandlerResult<GenerationBatchResponse> {
    let keys = body.parse(&state)?;
    let generations = state.engine()?.generations.snapshot(&keys).await?;
    Ok(Json(body.respond(&generations)))
}

/// Bumps many generations, each once. Where `GET /v1/status` reports `atomic_batches: false`, some may be bumped before
/// others. After a 5xx, some may be bumped and others not (503 `partly_applied` says how many): repeat the request,
/// since an extra bump only costs that values are made again.
#[utoipa::path(post, path = "/v1/batch/generations/bump",
    responses((status = 200, description = "The generations", body = GenerationBatchResponse)))]
pub(crate) async fn bump_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationBatchRequest>,
) -> HandlerResult<GenerationBatchResponse> {
    let keys = body.parse(&state)?;
    let generations = state.engine()?.generations.bump(keys).await?;
    Ok(Json(body.respond(&generations)))
}

/// Which generations to remove.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationCleanupRequest {
    /// Generations that were not bumped for this long are removed; longer than zero.
    #[schema(value_type = String, example = "24h")]
    retention: Ttl,
}

/// The outcome of a cleanup.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationCleanupResponse {
    /// How many generations were removed.
    removed: i64,
}

/// Removes the generations that were not bumped for a given time. They count from 0 again. Cached values that depend
/// on them may be lost, but no invalid value is ever returned.
#[utoipa::path(post, path = "/v1/batch/generations/cleanup",
    responses((status = 200, description = "The number of removed generations", body = GenerationCleanupResponse)))]
pub(crate) async fn clean_up_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationCleanupRequest>,
) -> HandlerResult<GenerationCleanupResponse> {
    let removed = state.engine()?.generations.cleanup(body.retention.0).await?;
    Ok(Json(GenerationCleanupResponse { removed: int64(removed) }))
}
