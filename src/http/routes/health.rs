//! Health: alive, and ready. Open to everybody, and never behind a limit.

use axum::extract::State;
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::shared::HandlerResult;
use crate::http::extract::Json;
use crate::http::problem::Code;
use crate::http::route::{Resource, open, undocumented};
use crate::http::state::AppState;

const NOT_READY: &[Code] = &[Code::Starting, Code::Stopping, Code::StoreUnavailable];

/// Returns the rows of health, with the paths that other orchestrators and Prometheus' tools expect.
pub(super) fn resource() -> Resource {
    Resource::new("health", "For orchestrators; open to everybody")
        .route(open(routes!(get_liveness)))
        .route(open(routes!(get_readiness)).fails(NOT_READY))
        .route(undocumented("/healthz", get(get_liveness)))
        .route(undocumented("/-/healthy", get(get_liveness)))
        .route(undocumented("/-/ready", get(get_readiness)).fails(NOT_READY))
}

/// Says that all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    /// `ok`.
    status: &'static str,
}

/// Returns that the process responds, also while the store is still loading.
#[utoipa::path(get, path = "/livez",
    responses((status = 200, description = "Alive", body = HealthResponse)))]
pub(crate) async fn get_liveness() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

/// Returns whether requests can be served now, and if not why.
#[utoipa::path(get, path = "/readyz",
    responses((status = 200, description = "Ready", body = HealthResponse)))]
pub(crate) async fn get_readiness(State(state): State<AppState>) -> HandlerResult<HealthResponse> {
    state.check_ready().await?;
    Ok(Json(HealthResponse { status: "ok" }))
}
