//! The cache, many values at a time, in JSON: also for clients that can't send or read raw bytes.
//!
//! Each value is looked up and put on its own. Invariant: a response is bounded before its values are encoded, and
//! so are all such responses in memory together.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::{Refusal, address, seen, stored};
use crate::engine::cache::CacheLookup;
use crate::http::body::{BodyBudget, LARGE_BYTES};
use crate::http::extract::{Json, Path, json_response};
use crate::http::offload::offload;
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::{HandlerResult, check_batch};
use crate::http::state::AppState;
use crate::http::wire::{Base64, Integer, Ttl, field, objects};
use crate::model::cache::{ContentType, FillToken, Namespace};
use crate::model::time::Timestamp;
use crate::store::CachePut;

/// The values of one response have at most so many times the bytes that one value may have.
const LARGEST_VALUES: usize = 64;

/// About how many bytes an item of a response takes beside its key and its value.
const ITEM_BYTES: usize = 512;

/// Which values to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheGetBatchRequest {
    /// The keys.
    keys: Vec<String>,
    /// The key whose generation all these values depend on; the own key of each value when absent or null.
    generation_key: Option<String>,
}

/// What was found under one key.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheGetBatchItem {
    /// The key.
    key: String,
    /// Whether there is a value.
    found: bool,
    /// The value, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte, nullable = false)]
    value: Option<Base64>,
    /// The value's content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// Identifies the bytes and their content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    etag: Option<String>,
    /// When the value expires. It may be evicted or become stale before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    expires_at: Option<Timestamp>,
    /// Why there is no value: `absent`, `expired`, `stale` (the generation was bumped) or `evicted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    reason: Option<&'static str>,
    /// The generation that the value depends on.
    generation: i64,
    /// The fence of that generation: read the source after this response, and put the value with it.
    fence: String,
}

impl CacheGetBatchItem {
    fn new(key: String, found: CacheLookup) -> Self {
        let (value, miss) = match found.value {
            Ok(value) => (Some(value), None),
            Err(miss) => (None, Some(miss)),
        };
        Self {
            key,
            found: value.is_some(),
            content_type: value.as_ref().map(|held| held.content_type.as_str().to_owned()),
            etag: value.as_ref().map(|held| held.hash.to_string()),
            expires_at: value.as_ref().map(|held| held.expires_at),
            value: value.map(|held| Base64(held.bytes.clone())),
            reason: miss.map(|miss| miss.reason.as_str()),
            generation: found.generation.number,
            fence: found.generation.fence.to_string(),
        }
    }
}

/// The outcome of many lookups.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheGetBatchResponse {
    /// What was found, in the order of the request's keys.
    values: Vec<CacheGetBatchItem>,
}

/// Reads many values of a namespace. A key without a value is not an error: its item has the reason and the fence. When
/// the values together are larger than 64 times `cache.max_value_bytes`, the response is 413 `response_too_large`.
#[utoipa::path(post, path = "/v1/batch/cache/{namespace}/get",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded")),
    request_body = CacheGetBatchRequest,
    responses((status = 200, description = "The values", body = CacheGetBatchResponse)))]
pub(crate) async fn get_cached_values(
    State(state): State<AppState>,
    Path(namespace): Path<String>,
    budget: BodyBudget,
    Json(body): Json<CacheGetBatchRequest>,
) -> Result<Response, Problem> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    check_batch(&state, body.keys.len())?;
    let generation_key = ("/generation_key", body.generation_key.as_deref());
    let address = |(i, key): (usize, &String)| {
        address(&namespace, (&format!("/keys/{i}"), key), generation_key)
    };
    let addresses = body.keys.iter().enumerate().map(address).collect::<Result<Vec<_>, _>>()?;
    let cache = &state.engine()?.cache;
    let found = cache.get_many(&addresses).await?;
    let hits = found.iter().filter_map(|found| found.value.as_ref().ok());
    let bytes: usize = hits.map(|value| value.bytes.len()).sum();
    let limit = cache.rules().max_value_bytes.saturating_mul(LARGEST_VALUES);
    if bytes > limit {
        return Err(Problem::new(Code::ResponseTooLarge).detail(format!(
            "the values have {bytes} bytes together, more than {limit}: ask for fewer"
        )));
    }
    // A small request can name the same large value many times, so its response counts against the same budget as
    // large request bodies. Base64 makes four bytes of three; keys are written escaped.
    let keys: usize = body.keys.iter().map(|key| key.len() * 2 + ITEM_BYTES).sum();
    let text_bytes = bytes / 3 * 4 + keys;
    let share = budget.cover_response(text_bytes)?;
    let items = body.keys.into_iter().zip(found);
    let values = items.map(|(key, found)| CacheGetBatchItem::new(key, found)).collect();
    let response = CacheGetBatchResponse { values };
    let write = move || {
        let mut text = Vec::with_capacity(text_bytes);
        serde_json::to_writer(&mut text, &response).map_err(|error| {
            tracing::error!(cause = %error, "a response could not be written as JSON");
            Problem::internal()
        })?;
        share.hold(text).map(json_response)
    };
    if bytes <= LARGE_BYTES {
        return write();
    }
    offload("writing values as JSON", write).await?
}

/// The values to put.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CachePutBatchRequest {
    /// The values.
    #[serde(deserialize_with = "objects")]
    values: Vec<CachePutBatchItem>,
}

/// A value to put.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CachePutBatchItem {
    /// The key.
    key: String,
    /// The value, in base64.
    #[schema(value_type = String, format = Byte)]
    value: Base64,
    /// The value's content type; `application/octet-stream` when absent.
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// How long the value lives, such as `"10m"`; `cache.ttl` when absent.
    #[schema(value_type = Option<String>, nullable = false, example = "10m")]
    ttl: Option<Ttl>,
    /// The fence that was read before the value was made.
    #[schema(nullable = false)]
    fence: Option<String>,
    /// The number of the generation, instead of a fence.
    #[schema(value_type = Option<i64>, nullable = false, minimum = 0)]
    generation: Option<Integer>,
    /// The key whose generation the value depends on; the value's own key when absent.
    #[schema(nullable = false)]
    generation_key: Option<String>,
    /// The token of the fill claim. The put ends the claim, also when the value is refused.
    #[schema(nullable = false)]
    fill: Option<String>,
}

impl CachePutBatchItem {
    /// Reads the item at this index of a request.
    fn parse(
        self,
        index: usize,
        namespace: &Namespace,
        default_ttl: Duration,
    ) -> Result<CachePut, Problem> {
        let at = format!("/values/{index}/");
        let fill = self.fill.as_deref().map(FillToken::parse).transpose();
        let content_type = self.content_type.as_deref().map(ContentType::parse).transpose();
        let key_at = format!("{at}key");
        let generation_at = format!("{at}generation_key");
        let generation_key = (generation_at.as_str(), self.generation_key.as_deref());
        Ok(CachePut {
            address: address(namespace, (&key_at, &self.key), generation_key)?,
            seen: seen(self.fence.as_deref(), self.generation.map(|number| number.0), &at)?,
            bytes: self.value.0,
            content_type: field(&format!("{at}content_type"), content_type)?.unwrap_or_default(),
            ttl: self.ttl.map_or(default_ttl, |ttl| ttl.0),
            fill: field(&format!("{at}fill"), fill)?,
        })
    }
}

/// A value that was not stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheRefusal {
    /// The key.
    key: String,
    /// The problem code that a put of this value alone would get, such as `generation_moved`.
    code: &'static str,
    /// An explanation for people.
    detail: String,
    /// With `generation_moved`: the current generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    generation: Option<i64>,
    /// With `generation_moved`: the fence of that generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fence: Option<String>,
}

/// The outcome of each put.
#[derive(Serialize, ToSchema)]
pub(crate) struct CachePutBatchResponse {
    /// The keys whose values were stored, in the order of the request.
    stored: Vec<String>,
    /// The values that were not stored, with the reasons.
    refused: Vec<CacheRefusal>,
}

/// Puts many values of a namespace, each separately. An invalid request changes nothing. When the store fails, some
/// values may be stored, and the fill claims of the others last until they expire.
#[utoipa::path(post, path = "/v1/batch/cache/{namespace}/put",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded")),
    responses((status = 200, description = "The outcomes", body = CachePutBatchResponse)))]
pub(crate) async fn put_cached_values(
    State(state): State<AppState>,
    Path(namespace): Path<String>,
    Json(body): Json<CachePutBatchRequest>,
) -> HandlerResult<CachePutBatchResponse> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    check_batch(&state, body.values.len())?;
    let cache = &state.engine()?.cache;
    let ttl = cache.rules().ttl;
    let items = body.values.into_iter().enumerate();
    let puts = items.map(|(i, item)| item.parse(i, &namespace, ttl));
    let puts = puts.collect::<Result<Vec<_>, _>>()?;
    let mut response = CachePutBatchResponse { stored: Vec::new(), refused: Vec::new() };
    for put in puts {
        let key = put.address.key.key.clone();
        match stored(cache.put(put).await?) {
            Ok(_) => response.stored.push(key),
            Err(refusal) => response.refused.push(CacheRefusal::new(key, &refusal)),
        }
    }
    Ok(Json(response))
}

impl CacheRefusal {
    fn new(key: String, refusal: &Refusal) -> Self {
        let now = match refusal {
            Refusal::Moved(now) => Some(now),
            Refusal::TooLarge { .. } | Refusal::TooManyNamespaces => None,
        };
        let (code, detail) = refusal.code_and_detail();
        Self {
            key,
            code: code.as_str(),
            detail,
            generation: now.map(|now| now.number),
            fence: now.map(|now| now.fence.to_string()),
        }
    }
}
