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
    Resource::new("operation", "Status and maintenance of the server")
        .route(read(routes!(get_status)))
        .route(admin(routes!(collect_garbage)))
        .route(admin(routes!(flush_store)))
}

/// How much the server holds, and what its store guarantees.
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
    /// Whether acknowledged writes are never lost because another server of the store takes over. If not, the last ones
    /// before a failover can be: what was acquired may be acquired by another caller, what was released or deleted may
    /// be back, a checkpoint or a sample may be older, a bump may be forgotten. A server that was cut off may serve what
    /// is out of date until it notices.
    survives_failover: bool,
    /// Whether other replicas see the same data. If so, queues for leases are fair among the requests at one replica, and
    /// waiting requests notice after a moment what happens at another one.
    shared: bool,
    /// Whether the check of a fence and the write are one atomic step. In either case no write under an earlier fencing
    /// token happens after an acquisition or a release was acknowledged, unless a failover loses that.
    atomic_fencing: bool,
    /// Whether a batch of several keys or series is one atomic step. If not, it is one step in each shard of the store:
    /// readers may see a part of the batch, and after a failure a part of it may be applied.
    atomic_batches: bool,
    /// Whether the limits on the number of series, locks, leases, checkpoints, generations and aggregates are exact. If not, each
    /// shard of the store has an equal part of each limit, and a write is refused when one of its shards is full, although
    /// others have room. A limit is never exceeded.
    exact_budget: bool,
    /// How many shards the store has. Each numbers its changes and remembers its deletions on its own, and has its part
    /// of what may be cached; a snapshot is that of each shard at a moment of its own.
    shards: i64,
    /// How much is held, by resource.
    resources: Vec<ResourceStatus>,
    /// Buffered writes that are not on disk yet.
    unflushed_writes: i64,
    /// The age of the oldest of these writes, in milliseconds.
    oldest_unflushed_ms: i64,
    /// Flushes that failed since the start.
    flush_failures: i64,
    /// Commits of durable writes that failed since the start; 0 where another server commits them.
    commit_failures: i64,
}

/// How much of one resource is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResourceStatus {
    /// The resource, such as `series` or `locks`; `series_tombstones` are the deletions of series that are still kept
    /// for deltas.
    resource: &'static str,
    /// How many live entries there are.
    entries: i64,
    /// The size of the entries with their keys, in bytes; only for resources with a limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bytes: Option<i64>,
    /// The most live entries; only for resources with a limit on their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<i64>,
    /// The most bytes of all entries; only for resources with a limit in bytes of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bytes_limit: Option<i64>,
}

impl From<&store::ResourceStatus> for ResourceStatus {
    fn from(status: &store::ResourceStatus) -> Self {
        Self {
            resource: status.resource,
            entries: int64(status.entries),
            bytes: status.bytes.map(int64),
            limit: status.limit.map(int64),
            bytes_limit: status.bytes_limit.map(int64),
        }
    }
}

/// Reads how much the server holds, and what its store guarantees.
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
        survives_failover: capabilities.survives_failover,
        shared: capabilities.shared,
        atomic_fencing: capabilities.atomic_fencing,
        atomic_batches: capabilities.atomic_batches,
        exact_budget: capabilities.exact_budget,
        shards: int64(capabilities.shards as u64),
        resources: status.resources.iter().map(ResourceStatus::from).collect(),
        unflushed_writes: int64(status.unflushed),
        oldest_unflushed_ms: i64::try_from(status.oldest_unflushed.as_millis()).unwrap_or(i64::MAX),
        flush_failures: int64(status.flush_failures),
        commit_failures: int64(status.commit_failures),
    }))
}

/// The outcome of a purge.
#[derive(Serialize, ToSchema)]
pub(crate) struct GarbageResponse {
    /// How many entries were purged.
    removed: i64,
}

/// Purges all expired entries now, instead of at the next run of the background task.
#[utoipa::path(post, path = "/v1/admin/gc",
    responses((status = 200, description = "The number of purged entries", body = GarbageResponse)))]
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

/// Flushes all buffered writes, and responds when they are on disk.
#[utoipa::path(post, path = "/v1/admin/flush",
    responses((status = 200, description = "The number of flushed writes", body = FlushResponse)))]
pub(crate) async fn flush_store(State(state): State<AppState>) -> HandlerResult<FlushResponse> {
    let flushed = state.engine()?.operation.flush().await?;
    Ok(Json(FlushResponse { flushed: int64(flushed) }))
}
