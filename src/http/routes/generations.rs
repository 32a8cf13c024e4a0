//! Generations: counters that tell whether what was made from a source is still true.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HandlerResult, check_batch, int64};
use crate::http::extract::{Json, Path};
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Ttl, field};
use crate::model::generations::{Generation, GenerationKey};

/// The generation of a key as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationState {
    /// How often the key was bumped since it was last forgotten; 0 when it is not known.
    generation: i64,
    /// Where the key stands in the order of all bumps: an opaque text. What was made after it was
    /// read is true as long as the key was not bumped since.
    fence: String,
}

impl From<&Generation> for GenerationState {
    fn from(generation: &Generation) -> Self {
        Self { generation: generation.number, fence: generation.fence.to_string() }
    }
}

/// Reads a generation. A key that nobody has bumped has the generation 0, and a fence all the
/// same.
#[utoipa::path(get, path = "/v1/generations/{key}", tag = "generations",
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

/// Raises a generation by one: whatever was made from the source before is no longer true. When
/// this has answered, no lookup in the cache gives such a value any more.
#[utoipa::path(post, path = "/v1/generations/{key}/bump", tag = "generations",
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

/// Names many generations.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationBatch {
    /// The keys; one that stands twice counts once.
    keys: Vec<String>,
}

/// Many generations.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationBatchResponse {
    /// The generation of each key.
    generations: BTreeMap<String, GenerationState>,
}

impl GenerationBatch {
    fn parse(&self, state: &AppState) -> Result<Vec<GenerationKey>, Problem> {
        check_batch(state, self.keys.len())?;
        let parse = |(i, key): (usize, &String)| {
            GenerationKey::parse(key.as_str())
                .map_err(|why| Problem::invalid_at(&format!("/keys/{i}"), &why))
        };
        self.keys.iter().enumerate().map(parse).collect()
    }

    fn answer(self, generations: &[Generation]) -> GenerationBatchResponse {
        let generations = generations.iter().map(GenerationState::from);
        GenerationBatchResponse { generations: self.keys.into_iter().zip(generations).collect() }
    }
}

/// Reads many generations. What is made from the sources after this may be put
/// into the cache under these fences.
#[utoipa::path(post, path = "/v1/generations/snapshot", tag = "generations",
    responses((status = 200, description = "The generations", body = GenerationBatchResponse)))]
pub(crate) async fn snapshot_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationBatch>,
) -> HandlerResult<GenerationBatchResponse> {
    let keys = body.parse(&state)?;
    let generations = state.engine()?.generations.snapshot(&keys).await?;
    Ok(Json(body.answer(&generations)))
}

/// Raises many generations by one, each once. Where the status says `atomic_batches: false`, some
/// may be raised before others, and an answer of 5xx may leave some raised: send it again, since
/// one bump too many only costs values that are made anew.
#[utoipa::path(post, path = "/v1/generations/bump", tag = "generations",
    responses((status = 200, description = "The generations", body = GenerationBatchResponse)))]
pub(crate) async fn bump_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationBatch>,
) -> HandlerResult<GenerationBatchResponse> {
    let keys = body.parse(&state)?;
    let generations = state.engine()?.generations.bump(keys).await?;
    Ok(Json(body.answer(&generations)))
}

/// Asks to forget generations.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationCleanup {
    /// Keys that were not bumped for this long are forgotten; longer than zero.
    #[schema(value_type = String, example = "24h")]
    retention: Ttl,
}

/// What a cleanup did.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationCleanupResponse {
    /// How many keys were forgotten.
    forgotten: i64,
}

/// Forgets generations that were not bumped for a time. They count from 0 again, and values that
/// depend on them may be lost, but none that is not true is ever given.
#[utoipa::path(post, path = "/v1/generations/cleanup", tag = "generations",
    responses((status = 200, description = "What was forgotten", body = GenerationCleanupResponse)))]
pub(crate) async fn clean_up_generations(
    State(state): State<AppState>,
    Json(body): Json<GenerationCleanup>,
) -> HandlerResult<GenerationCleanupResponse> {
    let forgotten = state.engine()?.generations.cleanup(body.retention.0).await?;
    Ok(Json(GenerationCleanupResponse { forgotten: int64(forgotten) }))
}
