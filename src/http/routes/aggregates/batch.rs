//! Many values at a time: of many keys, over windows of buckets, and of a range of buckets.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::keys::{AggregateState, BucketState, check_export, defect, when};
use super::read::PageEnd;
use super::writer::ItemWriter;
use crate::engine::aggregates::When;
use crate::http::extract::{Json, Path};
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::{check_batch, unknown_page};
use crate::http::state::AppState;
use crate::http::wire::{Integer, field, objects};
use crate::model::Invalid;
use crate::model::aggregates::{Aggregate, Bucket, Entity};
use crate::model::merge::{Kind, QueryError, State as MergeState};
use crate::model::time::Timestamp;
use crate::store::Combined;

/// The codes of lists.
pub(super) const CODES: &[Code] = &[Code::NotFound, Code::ResponseTooLarge, Code::Unsupported];

/// The codes of windows, whose values may be too large together.
pub(super) const WINDOW_CODES: &[Code] =
    &[Code::NotFound, Code::ResponseTooLarge, Code::MergeRefused, Code::Unsupported];

/// A key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregateKeyItem {
    /// The entity.
    entity: String,
    /// The number of the bucket; that of the present when neither `bucket` nor `at` is there.
    #[schema(value_type = Option<i64>, required = false, nullable = false)]
    bucket: Option<Integer>,
    /// A time in the bucket.
    #[schema(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    at: Option<Timestamp>,
    /// Elements (texts and numbers) that are looked up in the value. Only for sets and Bloom filters.
    #[serde(default)]
    #[schema(required = false)]
    contains: Vec<Value>,
}

/// Which values to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregateGetBatchRequest {
    /// The keys.
    #[serde(deserialize_with = "objects")]
    keys: Vec<AggregateKeyItem>,
    /// Whether the response has the values as sketches as well; false when absent. Only for kinds that are sketches.
    #[schema(nullable = false)]
    export: Option<bool>,
}

/// What was found under a key.
#[derive(Serialize, ToSchema)]
pub(crate) struct AggregateGetBatchItem {
    /// The entity.
    entity: String,
    /// Whether there is a value.
    found: bool,
    /// The value; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    aggregate: Option<AggregateState>,
    /// For each element of the key's `contains`, in their order, whether it is in the value. (A Bloom filter may be
    /// wrong when it says so, and never when it denies it.)
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    contains: Vec<bool>,
}

/// What was found under many keys.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `ItemWriter` writes")]
pub(crate) struct AggregateGetBatchResponse {
    /// An item for each key, in the order of the request.
    values: Vec<AggregateGetBatchItem>,
}

/// An object without members.
#[derive(Serialize)]
struct Nothing {}

/// Reads many values of a pipeline, in the order of the request. A key without a value is not an error.
#[utoipa::path(post, path = "/v1/batch/aggregates/{pipeline}/get",
    params(("pipeline" = String, Path, description = "The pipeline")),
    request_body = AggregateGetBatchRequest,
    responses((status = 200, description = "The values", body = AggregateGetBatchResponse)))]
pub(crate) async fn get_aggregates(
    State(state): State<AppState>,
    Path(pipeline): Path<String>,
    Json(body): Json<AggregateGetBatchRequest>,
) -> Result<Response, Problem> {
    let engine = state.engine()?;
    let pipeline = engine.aggregates.pipeline(&pipeline)?.pipeline();
    check_batch(&state, body.keys.len())?;
    let export = check_export(pipeline, body.export)?;
    let kind = &pipeline.kind;
    let key = |(index, item): (usize, AggregateKeyItem)| {
        let pointer = |field: &str| format!("/keys/{index}/{field}");
        let when = field(&pointer("bucket"), when(item.at, item.bucket.map(|bucket| bucket.0)))?;
        let bucket = field(&pointer("bucket"), engine.aggregates.bucket(pipeline, when))?;
        let entity = field(&pointer("entity"), Entity::parse(item.entity))?;
        // Elements that can't be looked up are refused, whether there is a value or not.
        look_up(kind, &kind.empty(), &item.contains).map_err(|error| match error {
            QueryError::Invalid(why) => Problem::invalid_at(&pointer("contains"), &why),
            QueryError::OtherKind(error) => defect(error),
        })?;
        Ok(((entity, bucket), item.contains))
    };
    let keys = body.keys.into_iter().enumerate().map(key).collect::<Result<Vec<_>, Problem>>()?;
    let (keys, mut elements): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let now = engine.aggregates.now();
    let mut writer = ItemWriter::new(&state, "values", kind.max_state_bytes())?;
    for part in keys.chunks(writer.part(keys.len()).max(1)) {
        writer.cover(part.len())?;
        let found = engine.aggregates.get_many(pipeline, part).await?;
        let items = part.iter().cloned().zip(found).zip(elements.drain(..part.len()));
        let items: Vec<_> = items.map(|((key, held), elements)| (key, held, elements)).collect();
        let shown = Arc::clone(pipeline);
        let show = move |(key, held, elements): (Key, Option<Aggregate>, Vec<Value>)| {
            let entity = key.0.as_str().to_owned();
            let contains = match &held {
                Some(held) => look_up(&shown.kind, &held.state, &elements),
                None => Ok(vec![false; elements.len()]),
            };
            let contains = contains.map_err(|_| Problem::internal())?;
            let state = |held| AggregateState::new(&shown, key, &held, now, export);
            let aggregate = held.map(state).transpose()?;
            Ok(AggregateGetBatchItem { entity, found: aggregate.is_some(), aggregate, contains })
        };
        writer = writer.write(items, show).await?;
    }
    writer.finish(&Nothing {})
}

/// The key of a value.
type Key = (Entity, Bucket);

fn look_up(kind: &Kind, state: &MergeState, elements: &[Value]) -> Result<Vec<bool>, QueryError> {
    elements.iter().map(|element| kind.contains(state, element)).collect()
}

/// Which buckets to combine, and of which entities.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregateWindowRequest {
    /// The entities.
    entities: Vec<String>,
    /// How many buckets to combine, the newest included.
    #[schema(value_type = i64, minimum = 1)]
    buckets: Integer,
    /// The number of the newest bucket; that of the present when neither `bucket` nor `at` is there.
    #[schema(value_type = Option<i64>, required = false, nullable = false)]
    bucket: Option<Integer>,
    /// A time in the newest bucket.
    #[schema(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    at: Option<Timestamp>,
}

/// The combined value of an entity.
#[derive(Serialize, ToSchema)]
pub(crate) struct AggregateWindowItem {
    /// The entity.
    entity: String,
    /// How many of the buckets have a value.
    buckets_found: i64,
    /// The combined value; absent when no bucket has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    value: Option<Value>,
}

/// The combined values of many entities.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `ItemWriter` writes")]
pub(crate) struct AggregateWindowResponse {
    /// An item for each entity, in the order of the request.
    windows: Vec<AggregateWindowItem>,
    /// The oldest bucket that was combined.
    oldest: BucketState,
    /// The newest bucket that was combined.
    newest: BucketState,
}

/// What follows the windows.
#[derive(Serialize)]
struct WindowEnd {
    oldest: Option<BucketState>,
    newest: Option<BucketState>,
}

/// Combines the newest buckets of one or many entities: the newest is that of the present, which is not over yet, or the
/// one that the request names. Buckets without a value change nothing. Values that can't be combined, since the total
/// overflows for instance, are 422 `merge_refused`.
#[utoipa::path(post, path = "/v1/batch/aggregates/{pipeline}/window",
    params(("pipeline" = String, Path, description = "The pipeline")),
    request_body = AggregateWindowRequest,
    responses((status = 200, description = "The combined values", body = AggregateWindowResponse)))]
pub(crate) async fn get_aggregate_windows(
    State(state): State<AppState>,
    Path(pipeline): Path<String>,
    Json(body): Json<AggregateWindowRequest>,
) -> Result<Response, Problem> {
    let engine = state.engine()?;
    let pipeline = engine.aggregates.pipeline(&pipeline)?.pipeline();
    check_windowed(pipeline.window.is_some())?;
    check_batch(&state, body.entities.len())?;
    let buckets = window_buckets(&state, body.buckets.0, body.entities.len())?;
    let when = field("/bucket", when(body.at, body.bucket.map(|bucket| bucket.0)))?;
    let newest = field("/bucket", engine.aggregates.bucket(pipeline, when))?;
    let entity = |(index, entity): (usize, String)| {
        field(&format!("/entities/{index}"), Entity::parse(entity))
    };
    let entities = body.entities.into_iter().enumerate().map(entity);
    let entities = entities.collect::<Result<Vec<_>, _>>()?;
    let now = engine.aggregates.now();
    let mut writer = ItemWriter::new(&state, "windows", pipeline.kind.max_state_bytes())?;
    for part in entities.chunks(writer.part(entities.len()).max(1)) {
        writer.cover(part.len())?;
        let found = engine.aggregates.window(pipeline, part, newest, buckets).await?;
        let items = part.iter().zip(found).map(|(entity, found)| match found {
            Ok(combined) => Ok((entity.clone(), combined)),
            Err(why) => Err(Problem::new(Code::MergeRefused).detail(why.to_string())),
        });
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let shown = Arc::clone(pipeline);
        let show = move |(entity, combined): (Entity, Option<Combined>)| {
            let value = |combined: &Combined| shown.kind.value(&combined.state, now);
            Ok(AggregateWindowItem {
                entity: entity.as_str().to_owned(),
                buckets_found: combined.as_ref().map_or(0, |combined| combined.found.into()),
                value: combined.as_ref().map(value).transpose().map_err(defect)?,
            })
        };
        writer = writer.write(items, show).await?;
    }
    let oldest = newest.back(buckets.saturating_sub(1));
    let shown = |bucket| BucketState::new(pipeline, bucket);
    writer.finish(&WindowEnd { oldest: shown(oldest), newest: shown(newest) })
}

fn check_windowed(is_windowed: bool) -> Result<(), Problem> {
    if is_windowed { Ok(()) } else { Err(Problem::invalid("the pipeline has no window")) }
}

/// Checks how many buckets a window has, and all windows of a request together.
fn window_buckets(state: &AppState, buckets: i64, entities: usize) -> Result<u32, Problem> {
    let most = state.settings.limits.window_buckets;
    let count = u32::try_from(buckets).ok().filter(|count| *count > 0);
    let total = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(entities.max(1)));
    match (count, total) {
        (Some(count), Some(total)) if total <= most => Ok(count),
        _ => {
            let why = format!("must be from 1 to {most}, over all entities of the request");
            Err(Problem::invalid_at("/buckets", &Invalid::new(why)))
        }
    }
}

/// Which values of an entity to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregateRangeRequest {
    /// The entity.
    entity: String,
    /// A time in the first bucket; from the oldest bucket on when neither `from` nor `from_bucket` is there.
    #[schema(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    from: Option<Timestamp>,
    /// The number of the first bucket.
    #[schema(value_type = Option<i64>, required = false, nullable = false)]
    from_bucket: Option<Integer>,
    /// A time in the last bucket; up to the newest bucket when neither `to` nor `to_bucket` is there.
    #[schema(value_type = Option<String>, format = DateTime, required = false, nullable = false)]
    to: Option<Timestamp>,
    /// The number of the last bucket.
    #[schema(value_type = Option<i64>, required = false, nullable = false)]
    to_bucket: Option<Integer>,
    /// The maximum number of buckets in the response.
    #[schema(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Integer>,
    /// The `next_page` of the previous page.
    #[schema(nullable = false)]
    page: Option<String>,
}

/// Reads the values of an entity in a range of buckets, from the oldest on. Buckets without a value are left out.
#[utoipa::path(post, path = "/v1/batch/aggregates/{pipeline}/range",
    params(("pipeline" = String, Path, description = "The pipeline")),
    request_body = AggregateRangeRequest,
    responses((status = 200, description = "A page of values", body = super::read::AggregatePageResponse)))]
pub(crate) async fn get_aggregate_range(
    State(state): State<AppState>,
    Path(pipeline): Path<String>,
    Json(body): Json<AggregateRangeRequest>,
) -> Result<Response, Problem> {
    let engine = state.engine()?;
    let pipeline = engine.aggregates.pipeline(&pipeline)?.pipeline();
    check_windowed(pipeline.window.is_some())?;
    let entity = field("/entity", Entity::parse(body.entity))?;
    let limit = state.page_items(body.limit.map(|limit| limit.count()).transpose()?)?;
    let end = |pointer: &str, at, bucket: Option<Integer>, open| match field(
        pointer,
        when(at, bucket.map(|bucket| bucket.0)),
    )? {
        When::Now => Ok(open),
        when => field(pointer, engine.aggregates.bucket(pipeline, when)),
    };
    let from = end("/from_bucket", body.from, body.from_bucket, Bucket(i64::MIN))?;
    let to = end("/to_bucket", body.to, body.to_bucket, Bucket(i64::MAX))?;
    let page = body.page.map(|page| page.parse().map_err(|_| unknown_page())).transpose()?;
    let from = page.map_or(from, |page| from.max(Bucket(page)));
    let mut writer = ItemWriter::new(&state, "aggregates", pipeline.kind.max_state_bytes())?;
    // One part is a page: what follows is the next page's.
    let items = writer.part(limit);
    writer.cover(items)?;
    let mut found = engine.aggregates.range(pipeline, &entity, from, to, items + 1).await?;
    let next = (found.len() > items).then(|| found.pop()).flatten();
    let (now, shown) = (engine.aggregates.now(), Arc::clone(pipeline));
    let show = move |(bucket, held): (Bucket, Aggregate)| {
        AggregateState::new(&shown, (entity.clone(), bucket), &held, now, false)
    };
    let writer = writer.write(found, show).await?;
    writer.finish(&PageEnd { next_page: next.map(|(bucket, _)| bucket.0.to_string()) })
}
