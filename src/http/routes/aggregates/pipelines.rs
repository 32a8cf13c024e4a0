//! The declared pipelines.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::aggregates::{DeclaredPipeline, Export};
use crate::http::extract::Json;
use crate::http::routes::shared::HandlerResult;
use crate::http::state::AppState;
use crate::model::time::format_duration;

/// A pipeline, as it was declared.
#[derive(Serialize, ToSchema)]
pub(crate) struct PipelineState {
    /// Its name.
    name: String,
    /// Its kind with its parameters, such as `sum(integer)`.
    kind: String,
    /// The length of its buckets; absent where an entity has one value for all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1h")]
    window: Option<String>,
    /// How long a bucket's value lives after the end of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "7days")]
    retention: Option<String>,
    /// For how long event ids and producers are remembered; absent where they are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1day")]
    dedup: Option<String>,
    /// How its values are shown on /metrics; absent where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    export: Option<ExportState>,
}

/// How the values of a pipeline are shown on /metrics.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExportState {
    /// The name of the metric.
    #[schema(example = "page_views_total")]
    name: String,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(example = "counter")]
    metric_type: &'static str,
    /// The label whose value is the entity; absent where an entity is the text of its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "page")]
    label: Option<String>,
    /// The most entities that are shown.
    max_entities: usize,
    /// How many are shown now, or would be if they were readable.
    entities: usize,
    /// Whether there are more than may be shown.
    truncated: bool,
}

impl ExportState {
    fn new(export: &Export) -> Self {
        let settings = export.settings();
        Self {
            name: settings.name.to_string(),
            metric_type: settings.metadata.metric_type.as_str(),
            label: settings.label.clone(),
            max_entities: settings.max_entities,
            entities: export.entities(),
            truncated: export.is_truncated(),
        }
    }
}

impl PipelineState {
    fn new(declared: &DeclaredPipeline) -> Self {
        let pipeline = declared.pipeline();
        Self {
            name: pipeline.name.to_string(),
            kind: pipeline.kind.signature(),
            window: pipeline.window.map(|window| format_duration(window.granularity)),
            retention: pipeline.window.map(|window| format_duration(window.retention)),
            dedup: pipeline.dedup.map(format_duration),
            export: declared.export().map(|export| ExportState::new(export)),
        }
    }
}

/// The declared pipelines.
#[derive(Serialize, ToSchema)]
pub(crate) struct PipelineListResponse {
    /// The pipelines, sorted by name.
    pipelines: Vec<PipelineState>,
}

/// Lists the pipelines that the configuration declares.
#[utoipa::path(get, path = "/v1/pipelines",
    responses((status = 200, description = "The pipelines", body = PipelineListResponse)))]
pub(crate) async fn list_pipelines(
    State(state): State<AppState>,
) -> HandlerResult<PipelineListResponse> {
    let declared = state.engine()?.aggregates.pipelines();
    let pipelines = declared.map(|declared| PipelineState::new(declared)).collect();
    Ok(Json(PipelineListResponse { pipelines }))
}
