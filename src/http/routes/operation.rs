//! Operation: what the store reports, and what can be asked of it.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{HandlerResult, int64};
use crate::http::extract::Json;
use crate::http::state::AppState;
use crate::store;

/// What the server holds and how well.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusResponse {
    /// The server's version.
    version: &'static str,
    /// The store's backend, such as `embedded`.
    backend: &'static str,
    /// Acknowledged durable writes survive the end of the process.
    survives_restart: bool,
    /// Acknowledged durable writes survive a power cut.
    survives_power_cut: bool,
    /// Other replicas see the same data.
    shared: bool,
    /// A fence and the write that it guards are one atomic step. Where not, no write under an
    /// earlier token happens after an acquisition or a release was answered, all the same.
    atomic_fencing: bool,
    /// A batch of several keys or series is one atomic step. Where not, it is one in each part of
    /// the store: readers may see some of it, and a failure may leave some done.
    atomic_batches: bool,
    /// What is held, by resource.
    resources: Vec<ResourceStatus>,
    /// Buffered writes that are not on disk yet.
    unflushed_writes: i64,
    /// How long the oldest of them has been waiting, in milliseconds.
    oldest_unflushed_ms: i64,
    /// Flushes that failed since the start.
    flush_failures: i64,
}

/// How much of one resource is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResourceStatus {
    /// The resource, such as `series` or `locks`. `series_tombstones` are deletions of series that
    /// are still remembered.
    resource: &'static str,
    /// Live entries.
    entries: i64,
    /// What they take in bytes, with their keys, where the resource is bounded in bytes.
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
#[utoipa::path(get, path = "/v1/status", tag = "operation",
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
        resources: status.resources.iter().map(ResourceStatus::from).collect(),
        unflushed_writes: int64(status.unflushed),
        oldest_unflushed_ms: i64::try_from(status.oldest_unflushed.as_millis()).unwrap_or(i64::MAX),
        flush_failures: int64(status.flush_failures),
    }))
}

/// What garbage collection did.
#[derive(Serialize, ToSchema)]
pub(crate) struct GarbageResponse {
    /// How much was removed.
    removed: i64,
}

/// Removes what has expired now, instead of at the next round.
#[utoipa::path(post, path = "/v1/admin/gc", tag = "operation",
    responses((status = 200, description = "What was removed", body = GarbageResponse)))]
pub(crate) async fn collect_garbage(
    State(state): State<AppState>,
) -> HandlerResult<GarbageResponse> {
    let removed = state.engine()?.operation.collect_garbage().await?;
    Ok(Json(GarbageResponse { removed: int64(removed) }))
}

/// What a flush did.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlushResponse {
    /// How many buffered writes were brought to disk.
    flushed: i64,
}

/// Brings every buffered write to disk before it answers.
#[utoipa::path(post, path = "/v1/admin/flush", tag = "operation",
    responses((status = 200, description = "What was written", body = FlushResponse)))]
pub(crate) async fn flush_store(State(state): State<AppState>) -> HandlerResult<FlushResponse> {
    let flushed = state.engine()?.operation.flush().await?;
    Ok(Json(FlushResponse { flushed: int64(flushed) }))
}
