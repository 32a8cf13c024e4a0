//! One value: reading and deleting it. And the list of all values of a pipeline.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::keys::{AggregateState, check_export, when};
use super::writer::ItemWriter;
use crate::engine::Engine;
use crate::http::extract::{FenceHeader, Json, Path, Query};
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::{FenceParams, HandlerResult, int64, unknown_page};
use crate::http::state::AppState;
use crate::http::wire::{Count, Whole, field, given};
use crate::model::aggregates::{Bucket, Entity};
use crate::model::hex;
use crate::model::pipelines::Pipeline;
use crate::model::time::Timestamp;

/// The codes of routes of one value.
pub(super) const CODES: &[Code] = &[Code::NotFound, Code::Unsupported];
/// The codes of deletions.
pub(super) const DELETION_CODES: &[Code] =
    &[Code::NotFound, Code::Unsupported, Code::PartlyApplied];

/// The name of the entity whose path is also that of merges.
const MERGE: &str = "merge";

/// Which bucket is meant. Without a window there is only one value.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BucketParams {
    /// The number of the bucket.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false)]
    bucket: Option<Whole>,
    /// A time in the bucket.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    at: Option<Timestamp>,
}

impl BucketParams {
    /// Returns the bucket; `None` when the request names none.
    fn named(&self, engine: &Engine, pipeline: &Pipeline) -> Result<Option<Bucket>, Problem> {
        if self.bucket.is_none() && self.at.is_none() {
            return Ok(None);
        }
        let when = field("bucket", when(self.at, self.bucket.map(|bucket| bucket.0)))?;
        field("bucket", engine.aggregates.bucket(pipeline, when)).map(Some)
    }
}

/// Which value to read, and how.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetParams {
    /// The number of the bucket; that of the present when neither `bucket` nor `at` is there.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false)]
    bucket: Option<Whole>,
    /// A time in the bucket.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    at: Option<Timestamp>,
    /// Whether the response has the value as a sketch as well; false when absent. Only for kinds that are sketches.
    #[param(required = false, nullable = false)]
    export: Option<bool>,
}

/// Reads a value. With a window, it is that of one bucket.
#[utoipa::path(get, path = "/v1/aggregates/{pipeline}/{entity}",
    params(("pipeline" = String, Path, description = "The pipeline"),
        ("entity" = String, Path, description = "The entity, percent-encoded"), GetParams),
    responses((status = 200, description = "The value", body = AggregateState)))]
pub(crate) async fn get_aggregate(
    State(state): State<AppState>,
    Path((pipeline, entity)): Path<(String, String)>,
    Query(query): Query<GetParams>,
) -> HandlerResult<AggregateState> {
    let engine = state.engine()?;
    let pipeline = engine.aggregates.pipeline(&pipeline)?.pipeline();
    let export = check_export(pipeline, query.export)?;
    let entity = field("entity", Entity::parse(entity))?;
    let when = field("bucket", when(query.at, query.bucket.map(|bucket| bucket.0)))?;
    let key = (entity, field("bucket", engine.aggregates.bucket(pipeline, when))?);
    let found = engine.aggregates.get_many(pipeline, std::slice::from_ref(&key)).await?;
    let Some(held) = found.first().and_then(Option::as_ref) else {
        return Err(Problem::not_found("there is no value under this key"));
    };
    let now = engine.aggregates.now();
    AggregateState::new(pipeline, key, held, now, export).map(Json)
}

/// Reads the value of an entity that is called `merge`, as `getAggregate` does for all others.
#[utoipa::path(get, path = "/v1/aggregates/{pipeline}/merge",
    params(("pipeline" = String, Path, description = "The pipeline"), GetParams),
    responses((status = 200, description = "The value", body = AggregateState)))]
pub(crate) async fn get_aggregate_named_merge(
    state: State<AppState>,
    Path(pipeline): Path<String>,
    query: Query<GetParams>,
) -> HandlerResult<AggregateState> {
    get_aggregate(state, Path((pipeline, MERGE.to_owned())), query).await
}

/// How many values were deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct AggregateDeletionResponse {
    /// The number of values; at least 1.
    deleted: i64,
}

/// Deletes the value of a bucket, or without `bucket` and `at` all values of the entity. Event ids stay remembered: what
/// was merged before does not count again.
#[utoipa::path(delete, path = "/v1/aggregates/{pipeline}/{entity}",
    params(("pipeline" = String, Path, description = "The pipeline"),
        ("entity" = String, Path, description = "The entity, percent-encoded"),
        BucketParams, FenceParams),
    responses((status = 200, description = "The number of deleted values",
        body = AggregateDeletionResponse)))]
pub(crate) async fn delete_aggregate(
    State(state): State<AppState>,
    Path((pipeline, entity)): Path<(String, String)>,
    Query(query): Query<BucketParams>,
    FenceHeader(fence): FenceHeader,
) -> HandlerResult<AggregateDeletionResponse> {
    let engine = state.engine()?;
    let declared = engine.aggregates.pipeline(&pipeline)?;
    let entity = field("entity", Entity::parse(entity))?;
    let bucket = query.named(engine, declared.pipeline())?;
    let deleted = engine.aggregates.delete(declared, &entity, bucket, fence).await?;
    Ok(Json(AggregateDeletionResponse { deleted: int64(deleted) }))
}

/// Deletes the values of an entity that is called `merge`, as `deleteAggregate` does for all others.
#[utoipa::path(delete, path = "/v1/aggregates/{pipeline}/merge",
    params(("pipeline" = String, Path, description = "The pipeline"), BucketParams, FenceParams),
    responses((status = 200, description = "The number of deleted values",
        body = AggregateDeletionResponse)))]
pub(crate) async fn delete_aggregate_named_merge(
    state: State<AppState>,
    Path(pipeline): Path<String>,
    query: Query<BucketParams>,
    fence: FenceHeader,
) -> HandlerResult<AggregateDeletionResponse> {
    delete_aggregate(state, Path((pipeline, MERGE.to_owned())), query, fence).await
}

/// Which values to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AggregatePageParams {
    /// The maximum number of values in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// The `next_page` of the previous page.
    #[param(required = false, nullable = false)]
    page: Option<String>,
    /// Whether the response has the values as sketches as well; false when absent. Only for kinds that are sketches.
    #[param(required = false, nullable = false)]
    export: Option<bool>,
}

/// A page of values.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `ItemWriter` writes")]
pub(crate) struct AggregatePageResponse {
    /// The values, sorted by entity and bucket.
    aggregates: Vec<AggregateState>,
    /// The `page` of the next request; absent on the last page.
    #[schema(required = false, nullable = false)]
    next_page: Option<String>,
}

/// What follows the values of a page.
#[derive(Serialize)]
pub(super) struct PageEnd {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page: Option<String>,
}

/// Lists the values of a pipeline. A page may have fewer values than its limit, or none, although there is a next one.
#[utoipa::path(get, path = "/v1/aggregates/{pipeline}",
    params(("pipeline" = String, Path, description = "The pipeline"), AggregatePageParams),
    responses((status = 200, description = "A page of values", body = AggregatePageResponse)))]
pub(crate) async fn list_aggregates(
    State(state): State<AppState>,
    Path(pipeline): Path<String>,
    Query(query): Query<AggregatePageParams>,
) -> Result<Response, Problem> {
    let engine = state.engine()?;
    let pipeline = engine.aggregates.pipeline(&pipeline)?.pipeline();
    let export = check_export(pipeline, query.export)?;
    let limit = state.page_items(query.limit)?;
    let after = query.page.as_deref().map(parse_page).transpose()?;
    let mut writer = ItemWriter::new(&state, "aggregates", pipeline.kind.max_state_bytes())?;
    // One part is a page: what follows is the next page's.
    let items = writer.part(limit);
    writer.cover(items)?;
    let page = engine.aggregates.list(pipeline, after.as_ref(), items).await?;
    let now = engine.aggregates.now();
    let shown = Arc::clone(pipeline);
    let show = move |(entity, bucket, held)| {
        AggregateState::new(&shown, (entity, bucket), &held, now, export)
    };
    let writer = writer.write(page.values, show).await?;
    writer.finish(&PageEnd { next_page: page.next.as_ref().map(print_page) })
}

/// The number of a bucket has a fixed place, so no two keys have the same page.
fn print_page((entity, bucket): &(Entity, Bucket)) -> String {
    format!("{}.{}", bucket.0, hex::encode(entity.as_str().as_bytes()))
}

fn parse_page(page: &str) -> Result<(Entity, Bucket), Problem> {
    let (bucket, entity) = page.split_once('.').ok_or_else(unknown_page)?;
    let entity = hex::decode(entity).and_then(|bytes| String::from_utf8(bytes).ok());
    let entity = entity.and_then(|entity| Entity::parse(entity).ok());
    match (entity, bucket.parse()) {
        (Some(entity), Ok(bucket)) => Ok((entity, Bucket(bucket))),
        _ => Err(unknown_page()),
    }
}
