//! Health: alive, and ready. Open to everybody, and never behind a limit.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::HandlerResult;
use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    /// `ok`.
    status: &'static str,
}

/// Returns that the process answers, also while the store is still loading.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "Alive", body = HealthResponse)))]
pub(crate) async fn get_liveness() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

/// Returns whether the resources can be served now, and if not why.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "Ready", body = HealthResponse)))]
pub(crate) async fn get_readiness(State(state): State<AppState>) -> HandlerResult<HealthResponse> {
    match state.not_ready().await {
        None => Ok(Json(HealthResponse { status: "ok" })),
        Some(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready")
            .detail(why)
            .retry_after(1)),
    }
}
