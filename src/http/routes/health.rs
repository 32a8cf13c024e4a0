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
    Resource::new("health", "Liveness and readiness, for orchestrators; no token is needed")
        .route(open(routes!(get_liveness)))
        .route(open(routes!(get_readiness)).fails(NOT_READY))
        .route(undocumented("/healthz", get(get_liveness)))
        .route(undocumented("/-/healthy", get(get_liveness)))
        .route(undocumented("/-/ready", get(get_readiness)).fails(NOT_READY))
}

/// The server is alive, or ready.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    /// Always `ok`.
    status: &'static str,
}

/// Checks that the process responds. It does so also while the store is loading.
#[utoipa::path(get, path = "/livez",
    responses((status = 200, description = "The process responds", body = HealthResponse)))]
pub(crate) async fn get_liveness() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

/// Checks whether the server can serve requests now. A 503 says why it can't.
#[utoipa::path(get, path = "/readyz",
    responses((status = 200, description = "The server can serve requests", body = HealthResponse)))]
pub(crate) async fn get_readiness(State(state): State<AppState>) -> HandlerResult<HealthResponse> {
    state.check_ready().await?;
    Ok(Json(HealthResponse { status: "ok" }))
}
