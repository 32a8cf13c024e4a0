//! Health: alive, and ready. Open to everybody, and never behind a limit.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// `ok`.
    status: &'static str,
}

/// Tells that the process answers, also while the store is still loading.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "Alive", body = HealthAnswer)))]
pub(crate) async fn get_liveness() -> Json<HealthAnswer> {
    Json(HealthAnswer { status: "ok" })
}

/// Tells whether the resources can be served now, and if not why.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "Ready", body = HealthAnswer)))]
pub(crate) async fn get_readiness(State(state): State<AppState>) -> Answer<HealthAnswer> {
    match state.not_ready().await {
        None => Ok(Json(HealthAnswer { status: "ok" })),
        Some(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready")
            .detail(why)
            .retry_after(1)),
    }
}
