//! Operation: what the store reports, and what can be asked of it.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, int64};
use crate::http::extract::Json;
use crate::http::state::AppState;

/// What the server holds and how well.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    /// The server's version.
    version: &'static str,
    /// The store's backend, such as `embedded`.
    backend: &'static str,
    /// Acknowledged strong writes survive the end of the process.
    survives_restart: bool,
    /// Acknowledged strong writes survive a power cut.
    survives_power_cut: bool,
    /// Other replicas see the same data.
    shared: bool,
    /// A fence and the write that it guards are one atomic step. Where not, no write under an
    /// earlier token happens after an acquisition or a release was answered, all the same.
    atomic_fencing: bool,
    /// A batch of several keys or series is one atomic step. Where not, it is one in each part of
    /// the store: readers may see some of it, and a failure may leave some done.
    atomic_batches: bool,
    /// Live series.
    series: i64,
    /// Deletions that are still remembered.
    tombstones: i64,
    /// Locks that are held.
    locks: i64,
    /// Leases that are held.
    leases: i64,
    /// Checkpoints that stand.
    checkpoints: i64,
    /// Keys whose generation is above 0.
    generations: i64,
    /// Cached values.
    cached_values: i64,
    /// What they take of `cache.max_bytes`, with their keys.
    cached_bytes: i64,
    /// Weak writes that are not on disk yet.
    unflushed_writes: i64,
    /// How long the oldest of them has been waiting, in milliseconds.
    oldest_unflushed_ms: i64,
    /// Flushes that failed since the start.
    flush_failures: i64,
}

/// Reports what the server holds.
#[utoipa::path(get, path = "/v1/status", tag = "operation",
    responses((status = 200, description = "The report", body = StatusAnswer)))]
pub(crate) async fn get_status(State(state): State<AppState>) -> Answer<StatusAnswer> {
    let operation = &state.engine()?.operation;
    let capabilities = operation.capabilities();
    let status = operation.status().await?;
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        backend: capabilities.backend,
        survives_restart: capabilities.survives_restart,
        survives_power_cut: capabilities.survives_power_cut,
        shared: capabilities.shared,
        atomic_fencing: capabilities.atomic_fencing,
        atomic_batches: capabilities.atomic_batches,
        series: int64(status.series),
        tombstones: int64(status.tombstones),
        locks: int64(status.locks),
        leases: int64(status.leases),
        checkpoints: int64(status.checkpoints),
        generations: int64(status.generations),
        cached_values: int64(status.cached_values),
        cached_bytes: int64(status.cached_bytes),
        unflushed_writes: int64(status.unflushed),
        oldest_unflushed_ms: i64::try_from(status.oldest_unflushed.as_millis()).unwrap_or(i64::MAX),
        flush_failures: int64(status.flush_failures),
    }))
}

/// What garbage collection did.
#[derive(Serialize, ToSchema)]
pub(crate) struct GarbageAnswer {
    /// How much was removed.
    removed: i64,
}

/// Removes what has expired now, instead of at the next round.
#[utoipa::path(post, path = "/v1/admin/gc", tag = "operation",
    responses((status = 200, description = "What was removed", body = GarbageAnswer)))]
pub(crate) async fn collect_garbage(State(state): State<AppState>) -> Answer<GarbageAnswer> {
    let removed = state.engine()?.operation.collect_garbage().await?;
    Ok(Json(GarbageAnswer { removed: int64(removed) }))
}

/// What a flush did.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlushAnswer {
    /// How many weak writes were brought to disk.
    flushed: i64,
}

/// Brings every weak write to disk before it answers.
#[utoipa::path(post, path = "/v1/admin/flush", tag = "operation",
    responses((status = 200, description = "What was written", body = FlushAnswer)))]
pub(crate) async fn flush_store(State(state): State<AppState>) -> Answer<FlushAnswer> {
    let flushed = state.engine()?.operation.flush().await?;
    Ok(Json(FlushAnswer { flushed: int64(flushed) }))
}
