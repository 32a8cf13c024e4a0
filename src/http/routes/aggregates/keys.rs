//! Which buckets a request means, and a value as responses show it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::aggregates::When;
use crate::http::problem::Problem;
use crate::http::wire::Base64;
use crate::model::Invalid;
use crate::model::aggregates::{Aggregate, Bucket, Entity};
use crate::model::merge::OtherKind;
use crate::model::pipelines::Pipeline;
use crate::model::time::Timestamp;

/// Returns which bucket is meant by a time, by a number, or by neither.
///
/// # Errors
/// When both are named.
pub(super) fn when(at: Option<Timestamp>, bucket: Option<i64>) -> Result<When, Invalid> {
    match (at, bucket) {
        (None, None) => Ok(When::Now),
        (Some(at), None) => Ok(When::At(at)),
        (None, Some(bucket)) => Ok(When::Bucket(bucket)),
        (Some(_), Some(_)) => Err(Invalid::new("at and bucket exclude each other")),
    }
}

/// A bucket of a pipeline with a window.
#[derive(Serialize, ToSchema)]
pub(crate) struct BucketState {
    /// Its number: whole lengths of a bucket since 1970.
    bucket: i64,
    /// When it begins.
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    /// When it ends, which is when the next one begins.
    #[schema(value_type = String, format = DateTime)]
    end: Timestamp,
}

impl BucketState {
    /// Describes a bucket; `None` where the pipeline has no window.
    pub(super) fn new(pipeline: &Pipeline, bucket: Bucket) -> Option<Self> {
        let granularity = pipeline.window?.granularity;
        Some(Self {
            bucket: bucket.0,
            start: bucket.start(granularity),
            end: bucket.end(granularity),
        })
    }
}

/// The value under one key.
#[derive(Serialize, ToSchema)]
pub(crate) struct AggregateState {
    /// The entity.
    entity: String,
    /// The bucket; absent where the pipeline has no window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bucket: Option<BucketState>,
    /// The value, in the JSON form of the pipeline's kind; docs/aggregates.md describes these.
    value: serde_json::Value,
    /// When the value expires; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    expires_at: Option<Timestamp>,
    /// With `export`: the value as a sketch that other programs read, and that is merged with the delta
    /// `{"sketch": ...}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte, nullable = false)]
    sketch: Option<Base64>,
}

impl AggregateState {
    /// Shows a value as it is at `now`.
    ///
    /// # Errors
    /// 500 when the value is not of the pipeline's kind, which is a defect.
    pub(super) fn new(
        pipeline: &Pipeline,
        (entity, bucket): (Entity, Bucket),
        held: &Aggregate,
        now: Timestamp,
        export: bool,
    ) -> Result<Self, Problem> {
        let kind = &pipeline.kind;
        let sketch = if export { kind.export(&held.state).map_err(defect)? } else { None };
        Ok(Self {
            entity: entity.as_str().to_owned(),
            bucket: BucketState::new(pipeline, bucket),
            value: kind.value(&held.state, now).map_err(defect)?,
            expires_at: held.expires_at,
            sketch: sketch.map(|bytes| Base64(bytes.into())),
        })
    }
}

/// Checks that the values of a pipeline can be exported, where that is asked for.
///
/// # Errors
/// 400 when its kind is no sketch.
pub(super) fn check_export(pipeline: &Pipeline, export: Option<bool>) -> Result<bool, Problem> {
    let export = export.unwrap_or(false);
    let kind = &pipeline.kind;
    if export && kind.export(&kind.empty()).map_err(defect)?.is_none() {
        let why = Invalid::new("the kind of the pipeline is no sketch");
        return Err(Problem::invalid_at("export", &why));
    }
    Ok(export)
}

/// Makes a problem of a value that is not of its pipeline's kind.
pub(super) fn defect(error: OtherKind) -> Problem {
    tracing::error!(cause = %error, "a value is not of the kind of its pipeline");
    Problem::internal()
}
