//! The cache, many values at a time, in JSON: also for clients that can't send or read raw bytes.
//!
//! Each value is looked up and put for itself. Invariant: an answer is bounded before its values
//! are encoded, and so are all answers that lie in memory together.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cache::address;
use super::cache_writes::seen;
use super::{HandlerResult, check_batch};
use crate::engine::EngineError;
use crate::engine::cache::CacheLookup;
use crate::http::body::LARGE_BYTES;
use crate::http::extract::{Json, Path};
use crate::http::middleware::keep_until_sent;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Base64, Integer, Ttl, field};
use crate::model::cache::{ContentType, FillToken, Namespace};
use crate::model::time::Timestamp;
use crate::store::CachePut;

/// The values of one answer take at most so many times the bytes that one value may have.
const MOST_LARGEST_VALUES: usize = 64;

/// Asks for many values.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheBatch {
    /// The keys.
    keys: Vec<String>,
    /// The key whose generation all these values depend on; each value's own key when absent or
    /// null.
    generation_key: Option<String>,
}

/// What was found under one key.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheBatchItem {
    /// The key.
    key: String,
    /// There is a value.
    found: bool,
    /// The value, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte, nullable = false)]
    value: Option<Base64>,
    /// What the value is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// Names the bytes and their content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    etag: Option<String>,
    /// When the value ends, if nothing ends it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    expires_at: Option<Timestamp>,
    /// Why there is none: `absent`, `expired`, `stale` or `evicted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    reason: Option<&'static str>,
    /// The generation that the value depends on.
    generation: i64,
    /// Its fence: what is made from the source after this answer may be put under it.
    fence: String,
}

impl CacheBatchItem {
    fn new(key: String, answer: CacheLookup) -> Self {
        let (value, miss) = match answer.value {
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
            generation: answer.generation.number,
            fence: answer.generation.fence.to_string(),
        }
    }
}

/// Many values.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheBatchResponse {
    /// What was found, in the order of the request's keys.
    values: Vec<CacheBatchItem>,
}

/// Reads many values of a namespace. Finding none under a key is no problem here. Values that
/// together have more than 64 times `cache.max_value_bytes` are refused as `answer_too_large`.
#[utoipa::path(post, path = "/v1/cache/{namespace}/get", tag = "cache",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded")),
    request_body = CacheBatch,
    responses((status = 200, description = "The values", body = CacheBatchResponse)))]
pub(crate) async fn get_cached_values(
    State(state): State<AppState>,
    Path(namespace): Path<String>,
    Json(body): Json<CacheBatch>,
) -> Result<Response, Problem> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    check_batch(&state, body.keys.len())?;
    let generation_key = ("/generation_key", body.generation_key.as_deref());
    let address = |(i, key): (usize, &String)| {
        address(&namespace, (&format!("/keys/{i}"), key), generation_key)
    };
    let addresses = body.keys.iter().enumerate().map(address).collect::<Result<Vec<_>, _>>()?;
    let cache = &state.engine()?.cache;
    let answers = cache.get_many(&addresses).await?;
    let found = answers.iter().filter_map(|answer| answer.value.as_ref().ok());
    let bytes: usize = found.map(|value| value.bytes.len()).sum();
    let most = cache.rules().max_value_bytes.saturating_mul(MOST_LARGEST_VALUES);
    if bytes > most {
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large");
        return Err(problem.detail(format!(
            "the values have {bytes} bytes together, more than {most}: ask for fewer"
        )));
    }
    // The same large value may stand in it many times: a small request, a large answer.
    let share = state.budget.cover_answer(bytes / 3 * 4)?;
    let items = body.keys.into_iter().zip(answers);
    let values = items.map(|(key, answer)| CacheBatchItem::new(key, answer)).collect();
    let write = move || keep_until_sent(Json(CacheBatchResponse { values }).into_response(), share);
    if bytes <= LARGE_BYTES {
        return Ok(write());
    }
    // Encoding takes milliseconds; nobody should wait for it.
    tokio::task::spawn_blocking(write).await.map_err(|error| {
        tracing::error!(cause = %error, "writing values as JSON failed");
        Problem::internal()
    })
}

/// Puts many values.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CachePutBatch {
    /// The values.
    values: Vec<CachePutItem>,
}

/// A value to put.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CachePutItem {
    /// The key.
    key: String,
    /// The value, in base64.
    #[schema(value_type = String, format = Byte)]
    value: Base64,
    /// What the value is; `application/octet-stream` when absent.
    #[schema(nullable = false)]
    content_type: Option<String>,
    /// How long the value lives, such as `"10m"`; `cache.ttl` when absent.
    #[schema(value_type = Option<String>, nullable = false, example = "10m")]
    ttl: Option<Ttl>,
    /// The fence that was read before the value was made.
    #[schema(nullable = false)]
    fence: Option<String>,
    /// Instead of a fence the generation's number.
    #[schema(value_type = Option<i64>, nullable = false, minimum = 0)]
    generation: Option<Integer>,
    /// The key whose generation the value depends on; the value's own key when absent.
    #[schema(nullable = false)]
    generation_key: Option<String>,
    /// The turn at making the value, which this put ends, whatever becomes of it.
    #[schema(nullable = false)]
    fill: Option<String>,
}

impl CachePutItem {
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

/// A value that was not put.
#[derive(Serialize, ToSchema)]
pub(crate) struct CacheRefusal {
    /// The key.
    key: String,
    /// Why, in a stable word such as `generation_moved`.
    code: &'static str,
    /// Why, in a sentence for people.
    detail: String,
    /// The generation as it stands, where it has moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    generation: Option<i64>,
    /// Its fence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fence: Option<String>,
}

/// What became of the values.
#[derive(Serialize, ToSchema)]
pub(crate) struct CachePutBatchResponse {
    /// The keys whose values are held, in the order of the request.
    stored: Vec<String>,
    /// The values that are not.
    refused: Vec<CacheRefusal>,
}

/// Puts many values of a namespace, each for itself. A request that is not what it should be
/// changes nothing; when the store fails, some values may be held, and the turns that the others
/// name end by their time.
#[utoipa::path(post, path = "/v1/cache/{namespace}/put", tag = "cache",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded")),
    responses((status = 200, description = "What became of them", body = CachePutBatchResponse)))]
pub(crate) async fn put_cached_values(
    State(state): State<AppState>,
    Path(namespace): Path<String>,
    Json(body): Json<CachePutBatch>,
) -> HandlerResult<CachePutBatchResponse> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    check_batch(&state, body.values.len())?;
    let cache = &state.engine()?.cache;
    let ttl = cache.rules().ttl;
    let items = body.values.into_iter().enumerate();
    let puts = items.map(|(i, item)| item.parse(i, &namespace, ttl));
    let puts = puts.collect::<Result<Vec<_>, _>>()?;
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for put in puts {
        let key = put.address.key.key.clone();
        match cache.put(put).await {
            Ok(_) => stored.push(key),
            Err(EngineError::Store(error)) => return Err(error.into()),
            Err(error) => refused.push(refusal(key, error)),
        }
    }
    Ok(Json(CachePutBatchResponse { stored, refused }))
}

fn refusal(key: String, error: EngineError) -> CacheRefusal {
    let now = match &error {
        EngineError::GenerationMoved(now) => Some(*now),
        _ => None,
    };
    let (code, detail) = Problem::from(error).into_code_and_detail();
    let generation = now.map(|now| now.number);
    CacheRefusal { key, code, detail, generation, fence: now.map(|now| now.fence.to_string()) }
}
