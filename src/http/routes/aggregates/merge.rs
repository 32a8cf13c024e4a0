//! Merging updates into their values.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::updates::{Numbered, ParsedUpdates, UpdateFormat, UpdateSource, parse_updates};
use crate::http::body::{LARGE_BYTES, read_whole};
use crate::http::extract::{FenceHeader, Json, Path, Query, media_type};
use crate::http::offload::{joined, offload};
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::{FenceParams, HandlerResult, int64};
use crate::http::state::AppState;
use crate::http::wire::{Number, given};
use crate::store::MergeOutcome;

/// The codes of a merge.
pub(super) const CODES: &[Code] = &[
    Code::NotFound,
    Code::EventConflict,
    Code::SequenceGap,
    Code::TooManyUpdates,
    Code::InvalidUpdates,
    Code::MergeRefused,
    Code::NoDeduplication,
    Code::Unsupported,
    Code::TooManyAggregates,
    Code::TooManyEventIds,
    Code::TooManyProducers,
    Code::PartlyApplied,
];

/// Updates to merge.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `updates` reads")]
pub(crate) struct MergeRequest {
    /// The updates; all of them are merged, or none.
    updates: Vec<UpdateItem>,
    /// Who numbers this batch, instead of an event id in each update.
    #[schema(required = false, nullable = false)]
    producer: Option<String>,
    /// The number of this batch: one more than that of the producer's last batch. The first may have any number.
    #[schema(required = false, nullable = false, minimum = 0)]
    seq: Option<i64>,
}

/// An update of one value.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `updates` reads")]
pub(crate) struct UpdateItem {
    /// What is counted.
    #[schema(example = "/index.html", min_length = 1)]
    entity: String,
    /// What is merged into the value, in the JSON form of the pipeline's kind.
    delta: serde_json::Value,
    /// When it happened; the time of arrival when absent. With a window, this decides the bucket.
    #[schema(required = false, nullable = false, format = DateTime)]
    at: Option<String>,
    /// The number of the bucket, instead of `at`.
    #[schema(required = false, nullable = false)]
    bucket: Option<i64>,
    /// What identifies this update, so that it is merged once, however often it is sent.
    #[schema(required = false, nullable = false, min_length = 1)]
    event_id: Option<String>,
    /// How long the value lives from now on, such as `"30s"`. It never shortens the life of the value.
    #[schema(required = false, nullable = false, example = "24h")]
    ttl: Option<String>,
}

/// The number of a batch, for bodies that can't have it.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MergeParams {
    /// Who numbers this batch, for NDJSON.
    #[param(required = false, nullable = false)]
    producer: Option<String>,
    /// The number of this batch, for NDJSON.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 0)]
    seq: Option<Number>,
}

/// What became of the updates.
#[derive(Serialize, ToSchema)]
pub(crate) struct MergeResponse {
    /// How many were merged.
    applied: i64,
    /// How many had been merged before, and were not merged again.
    duplicates: i64,
    /// How many were dropped, because their buckets have expired.
    expired: i64,
}

/// The number that a producer's next batch should have had.
#[derive(Serialize, ToSchema)]
pub(crate) struct SequenceGap {
    /// The number.
    expected: i64,
}

/// Merges updates into the values of a pipeline, all or none, in one step. It is safe to repeat a request after a lost
/// response or a 5xx where each of its updates has an `event_id`, or the batch `producer` and `seq`: what was merged
/// before is a duplicate. An event id that comes again with another content is 409 `event_conflict`. Instead of JSON
/// the body may be NDJSON, an update in each line; `producer` and `seq` are then in the query.
#[utoipa::path(post, path = "/v1/aggregates/{pipeline}/merge",
    params(("pipeline" = String, Path, description = "The pipeline"), MergeParams, FenceParams),
    request_body(description = "The updates", content((MergeRequest = "application/json"),
        (String = "application/x-ndjson"))),
    responses((status = 200, description = "What became of the updates", body = MergeResponse)))]
pub(crate) async fn merge_aggregates(
    State(state): State<AppState>,
    Path(pipeline): Path<String>,
    Query(params): Query<MergeParams>,
    FenceHeader(fence): FenceHeader,
    request: Request<Body>,
) -> HandlerResult<MergeResponse> {
    let format = UpdateFormat::of(media_type(request.headers())?)?;
    // Before the body is read, so that no client uploads in vain.
    let engine = Arc::clone(state.engine()?);
    let declared = Arc::clone(engine.aggregates.pipeline(&pipeline)?);
    let reader = engine.aggregates.reader(&declared);
    let (limit, pace) = (state.merge_body_limit(), state.body_pace());
    let whole = read_whole(request, limit, &state.budget, pace).await?;
    let numbered = Numbered { producer: params.producer, seq: params.seq.map(|seq| seq.0) };
    let max_updates = state.settings.limits.batch_updates;
    let is_large = whole.bytes.len() > LARGE_BYTES;
    let parse = move || parse_updates(format, whole, numbered, &reader, max_updates);
    let parsed = if is_large { offload("reading updates", parse).await? } else { parse() };
    let ParsedUpdates { updates, sequence, source, share } = parsed?;
    // In a task of its own: when the client disconnects, the store still applies the updates, and these still take the
    // memory that the share covers.
    let applied = tokio::spawn(async move {
        let outcome = engine.aggregates.merge(&declared, updates, sequence, fence).await;
        drop(share);
        outcome
    });
    respond(joined("applying a merge", applied).await??, &source)
}

fn respond(outcome: MergeOutcome, source: &UpdateSource) -> HandlerResult<MergeResponse> {
    match outcome {
        MergeOutcome::Merged { applied, duplicates, expired } => Ok(Json(MergeResponse {
            applied: int64(applied),
            duplicates: int64(duplicates),
            expired: int64(expired),
        })),
        MergeOutcome::Conflict { index } => {
            let id = source.event_id(index).unwrap_or_default();
            let why = format!("the event id {id:?} came before with another content");
            let detail = format!("update {index}: {why}; nothing was changed");
            let pointer = source.pointer(index, "event_id");
            Err(Problem::new(Code::EventConflict).detail(detail).at(pointer, why))
        }
        MergeOutcome::SequenceGap { expected } => {
            let expected = int64(expected);
            Err(Problem::new(Code::SequenceGap)
                .detail(format!("the producer's next seq is {expected}; nothing was changed"))
                .member("gap", &SequenceGap { expected }))
        }
        MergeOutcome::Refused { index, why } => {
            let why = why.to_string();
            let detail = format!("update {index}: {why}; nothing was changed");
            let pointer = source.pointer(index, "delta");
            Err(Problem::new(Code::MergeRefused).detail(detail).at(pointer, why))
        }
    }
}
