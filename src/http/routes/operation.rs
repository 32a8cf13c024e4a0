//! Operation: the status of the server, and what operators can ask it to do.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::shared::{HandlerResult, int64};
use crate::http::extract::Json;
use crate::http::route::{Resource, admin, read};
use crate::http::state::AppState;
use crate::store;

/// Returns the rows of operation.
pub(super) fn resource() -> Resource {
    Resource::new("operation", "The server itself")
        .route(read(routes!(get_status)))
        .route(admin(routes!(collect_garbage)))
        .route(admin(routes!(flush_store)))
}

/// What the server holds, and what its store can promise.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusResponse {
    /// The server's version.
    version: &'static str,
    /// The store's backend, such as `embedded`.
    backend: &'static str,
    /// Whether acknowledged durable writes survive the end of the process.
    survives_restart: bool,
    /// Whether acknowledged durable writes survive a power cut.
    survives_power_cut: bool,
    /// Whether other replicas see the same data.
    shared: bool,
    /// Whether the check of a fence and the write are one atomic step. Where they are not, no write under an earlier
    /// fencing token happens after an acquisition or a release was acknowledged either.
    atomic_fencing: bool,
    /// Whether a batch of several keys or series is one atomic step. Where it is not, it is one step in each part of
    /// the store: readers may see a part of the batch, and a failure may leave a part of it applied.
    atomic_batches: bool,
    /// Whether the limit on series is exact. Where it is not, each part of the store has an equal part of the limit,
    /// and a push is refused when one of its parts is full, though others have room. No limit is exceeded either way.
    exact_budget: bool,
    /// How much is held, by resource.
    resources: Vec<ResourceStatus>,
    /// Buffered writes that are not on disk yet.
    unflushed_writes: i64,
    /// The age of the oldest of them, in milliseconds.
    oldest_unflushed_ms: i64,
    /// Flushes that failed since the start.
    flush_failures: i64,
}

/// How much of one resource is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResourceStatus {
    /// The resource, such as `series` or `locks`. `series_tombstones` are the deletions of series that are still
    /// remembered.
    resource: &'static str,
    /// Live entries.
    entries: i64,
    /// Their size in bytes, with their keys, for resources that are bounded in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bytes: Option<i64>,
}

impl From<&store::ResourceStatus> for ResourceStatus {
    fn from(status: &store::ResourceStatus) -> Self {
        Self {
            resource: status.resource,
            entries: int64(status.entries),
            bytes: status.bytes.map(int64),
        }
    }
}

/// Reports what the server holds.
#[utoipa::path(get, path = "/v1/status",
    responses((status = 200, description = "The report", body = StatusResponse)))]
pub(crate) async fn get_status(State(state): State<AppState>) -> HandlerResult<StatusResponse> {
    let operation = &state.engine()?.operation;
    let capabilities = operation.capabilities();
    let status = operation.status().await?;
    Ok(Json(StatusResponse {
        version: env!("CARGO_PKG_VERSION"),
        backend: capabilities.backend,
        survives_restart: capabilities.survives_restart,
        survives_power_cut: capabilities.survives_power_cut,
        shared: capabilities.shared,
        atomic_fencing: capabilities.atomic_fencing,
        atomic_batches: capabilities.atomic_batches,
        exact_budget: capabilities.exact_budget,
        resources: status.resources.iter().map(ResourceStatus::from).collect(),
        unflushed_writes: int64(status.unflushed),
        oldest_unflushed_ms: i64::try_from(status.oldest_unflushed.as_millis()).unwrap_or(i64::MAX),
        flush_failures: int64(status.flush_failures),
    }))
}

/// The outcome of a purge.
#[derive(Serialize, ToSchema)]
pub(crate) struct GarbageResponse {
    /// How many entries were removed.
    removed: i64,
}

/// Purges what has expired, without waiting for the next run of the background task.
#[utoipa::path(post, path = "/v1/admin/gc",
    responses((status = 200, description = "What was removed", body = GarbageResponse)))]
pub(crate) async fn collect_garbage(
    State(state): State<AppState>,
) -> HandlerResult<GarbageResponse> {
    let removed = state.engine()?.operation.collect_garbage().await?;
    Ok(Json(GarbageResponse { removed: int64(removed) }))
}

/// The outcome of a flush.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlushResponse {
    /// How many buffered writes were written to disk.
    flushed: i64,
}

/// Writes every buffered write to disk before it responds.
#[utoipa::path(post, path = "/v1/admin/flush",
    responses((status = 200, description = "What was written", body = FlushResponse)))]
pub(crate) async fn flush_store(State(state): State<AppState>) -> HandlerResult<FlushResponse> {
    let flushed = state.engine()?.operation.flush().await?;
    Ok(Json(FlushResponse { flushed: int64(flushed) }))
}
