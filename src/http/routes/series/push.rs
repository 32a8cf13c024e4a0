//! Writing series: a push of points, in any of the formats that are read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::others_series;
use crate::engine::series::{PushOutcome, Writer};
use crate::http::body::read_whole;
use crate::http::extract::{FenceHeader, Json, Query, Role, media_type};
use crate::http::offload::joined;
use crate::http::problem::{Code, Problem};
use crate::http::push::{format_of, invalid_points, parse_push, point_parts};
use crate::http::routes::shared::{FenceParams, HandlerResult};
use crate::http::state::AppState;
use crate::ingest::ParsedBatch;

/// The codes of a push.
pub(super) const CODES: &[Code] = &[
    Code::GuardRefused,
    Code::SeriesOfAnotherRole,
    Code::TooManyPoints,
    Code::InvalidPoints,
    Code::SeriesBudgetExceeded,
    Code::SeriesBytesExceeded,
    Code::FenceRequired,
    Code::PartlyApplied,
];

/// Points to write.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the JSON format reads")]
pub(crate) struct SeriesPushRequest {
    /// The writer's role.
    #[schema(example = "leader")]
    role: String,
    /// How the points were collected: a source that the role may write.
    #[schema(example = "leader_scrape")]
    source: String,
    /// The points; all of them are applied, or none.
    points: Vec<PushedPoint>,
}

/// A point to write.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the JSON format reads")]
pub(crate) struct PushedPoint {
    /// The metric name.
    #[schema(example = "jobs_done_total")]
    name: String,
    /// The labels by name. A label with an empty value is ignored.
    #[schema(required = false)]
    labels: std::collections::BTreeMap<String, String>,
    /// The value; null when `special` has it.
    value: Option<f64>,
    /// The value when it is not a finite number: `NaN`, `+Inf` or `-Inf`.
    #[schema(required = false, nullable = false, example = "NaN")]
    special: Option<String>,
    /// When the value was measured. When absent: the time of arrival, or that of the held sample where it is later.
    #[schema(required = false, nullable = false, format = DateTime)]
    updated_at: Option<String>,
    /// The metric's type, such as `counter`.
    #[schema(required = false, nullable = false, rename = "type", example = "counter")]
    metric_type: Option<String>,
    /// The family's help text.
    #[schema(required = false, nullable = false)]
    help: Option<String>,
    /// The family's unit.
    #[schema(required = false, nullable = false)]
    unit: Option<String>,
}

/// The writer, for bodies that can't name it.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriterParams {
    /// The writer's role, for bodies other than JSON.
    #[param(required = false, nullable = false)]
    role: Option<String>,
    /// How the points were collected, for bodies other than JSON.
    #[param(required = false, nullable = false)]
    source: Option<String>,
}

/// The outcome of a push.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesPushResponse {
    /// How many points created a series.
    #[schema(value_type = i64)]
    created: usize,
    /// How many points replaced a sample of the same age or older.
    #[schema(value_type = i64)]
    updated: usize,
    /// How many points were dropped: older than the sample that is held, or older than the retention.
    #[schema(value_type = i64)]
    stale: usize,
}

/// Writes points, all or none. A token that is bound to a role changes only series that this role wrote, or a role that
/// may write no more than it, and those of which nobody knows who wrote them: a push with a point of another series is
/// 403 `series_of_another_role`. Instead of JSON the body may be NDJSON, the Prometheus text format or OpenMetrics; the
/// Content-Type says which, and `role` and `source` are in the query. Where `GET /v1/status` reports
/// `atomic_batches: false`, readers may see a part of the points, and after a 5xx a part may have been applied (503
/// `partly_applied` says how many points): repeat the request to complete it.
#[utoipa::path(post, path = "/v1/series", params(WriterParams, FenceParams),
    request_body(description = "The points", content((SeriesPushRequest = "application/json"),
        (String = "application/x-ndjson"), (String = "text/plain"),
        (String = "application/openmetrics-text"))),
    responses((status = 200, description = "The outcome", body = SeriesPushResponse)))]
pub(crate) async fn push_series(
    State(state): State<AppState>,
    Query(params): Query<WriterParams>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
    request: Request<Body>,
) -> HandlerResult<SeriesPushResponse> {
    let format = format_of(media_type(request.headers())?)?;
    // Before the body is read, so that no client uploads in vain.
    let engine = Arc::clone(state.engine()?);
    let pace = state.body_pace();
    let limit = state.series_body_limit();
    let whole = read_whole(request, limit, &state.budget, pace).await?;
    let (pushed, share) = parse_push(format, whole, &state.settings).await?;
    let missing = |what| Problem::invalid(format!("{what} is missing"));
    let role = agreed("role", pushed.role, params.role)?.ok_or_else(|| missing("role"))?;
    let source =
        agreed("source", pushed.source, params.source)?.ok_or_else(|| missing("source"))?;
    let ParsedBatch { batch, positions } = pushed.parsed;
    // In a task of its own: when the client disconnects, the store still applies the points, and these still take
    // the memory that the share covers.
    let applied = tokio::spawn(async move {
        let bound_role = bound.as_ref().map(|bound| &*bound.0);
        let writer = Writer { role: &role, source: &source, bound_role };
        let position_of = |index| positions.position(index);
        let outcome = engine.series.push(batch, position_of, &writer, fence).await;
        drop(share);
        outcome
    });
    match joined("applying a push", applied).await?? {
        PushOutcome::Applied(counts) => Ok(Json(SeriesPushResponse {
            created: counts.created,
            updated: counts.updated,
            stale: counts.stale,
        })),
        PushOutcome::InvalidPoints(points) => Err(invalid_points(&points)),
        PushOutcome::OthersSeries(points) => Err(others_series(point_parts(&points), points.total)),
        PushOutcome::OverBudget { new, room } => Err(Problem::new(Code::SeriesBudgetExceeded)
            .detail(format!("{new} new series, but room for {room}"))),
        PushOutcome::OverBytes { more, room } => Err(Problem::new(Code::SeriesBytesExceeded)
            .detail(format!("{more} bytes more, but room for {room}"))),
    }
}

/// Returns what the body or the query says.
///
/// # Errors
/// 400 when they contradict each other.
fn agreed(
    what: &str,
    body: Option<String>,
    query: Option<String>,
) -> Result<Option<String>, Problem> {
    match (&body, &query) {
        (Some(body), Some(query)) if body != query => {
            Err(Problem::invalid(format!("{what} in the query contradicts the body")))
        }
        _ => Ok(body.or(query)),
    }
}
