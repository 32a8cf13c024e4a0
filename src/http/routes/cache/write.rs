//! Writes to the cache, one value at a time, as raw bytes.
//!
//! Invariant: no value is put without what was read of the generation before it was made.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::lookup::RawBytes;
use super::request::{Refusal, address, seen, stored};
use crate::http::body::{BodyLimit, read_whole};
use crate::http::extract::{Json, Path, Query, one};
use crate::http::problem::{Code, Problem};
use crate::http::routes::shared::{DeletedResponse, HandlerResult, deleted};
use crate::http::state::AppState;
use crate::http::wire::{Number, Ttl, field, given};
use crate::model::cache::{CacheKey, ContentType, FillToken, Namespace};
use crate::model::time::Timestamp;
use crate::store::CachePut;

/// The codes of putting one value.
pub(super) const CODES: &[Code] = &[
    Code::GenerationMoved,
    Code::ValueTooLarge,
    Code::TooManyNamespaces,
    Code::GenerationRequired,
];

/// The conditions of a put, and how long the value lives.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CachePutParams {
    /// The fence that was read before the value was made. Either this or `generation` is required.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    fence: Option<String>,
    /// The number of the generation, instead of a fence. Prefer the fence: a key that was removed in the meantime may
    /// have the same number again.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 0)]
    generation: Option<Number>,
    /// The key whose generation the value depends on; the value's own key when absent.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    generation_key: Option<String>,
    /// How long the value lives, such as `10m`; `cache.ttl` when absent.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "10m")]
    ttl: Option<Ttl>,
    /// The token of the fill claim. The put ends the claim, also when the value is refused.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    fill: Option<String>,
}

/// The outcome of a put.
#[derive(Serialize, ToSchema)]
pub(crate) struct CachePutResponse {
    /// Identifies the bytes and their content type: the header `ETag` without its quotes.
    etag: String,
    /// When the value expires. It may be evicted or become stale before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Puts a value, unless its generation was bumped after the fence was read. The body is any bytes, at most
/// `cache.max_value_bytes`, of any Content-Type.
#[utoipa::path(put, path = "/v1/cache/{namespace}/{key}",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded"), CachePutParams),
    request_body(content = inline(RawBytes), description = "The value",
        content_type = "application/octet-stream"),
    responses((status = 200, description = "The value was stored", body = CachePutResponse)))]
pub(crate) async fn put_cached_value(
    State(state): State<AppState>,
    Path((namespace, key)): Path<(String, String)>,
    Query(query): Query<CachePutParams>,
    request: Request<Body>,
) -> HandlerResult<CachePutResponse> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    let generation_key = ("generation_key", query.generation_key.as_deref());
    let address = address(&namespace, ("key", &key), generation_key)?;
    let seen = seen(query.fence.as_deref(), query.generation.map(|number| number.0), "")?;
    let fill = query.fill.as_deref().map(FillToken::parse).transpose();
    let fill = field("fill", fill)?;
    let content_type = content_type(request.headers())?;
    let cache = &state.engine()?.cache;
    let limit_bytes = cache.rules().max_value_bytes;
    let limit = BodyLimit { sent_bytes: limit_bytes, decoded_bytes: limit_bytes };
    let pace = state.body_pace();
    let body = match read_whole(request, limit, &state.budget, pace).await {
        Ok(body) => body,
        Err(problem) => {
            cache.give_up(&address.key, fill).await;
            // The body is the value.
            return Err(match problem.code() {
                Code::BodyTooLarge => Refusal::TooLarge { limit_bytes }.into(),
                _ => problem,
            });
        }
    };
    // The body may lie in a larger buffer, which the value would keep alive without being counted for it.
    let bytes = Bytes::copy_from_slice(&body.bytes);
    let ttl = query.ttl.map_or(cache.rules().ttl, |ttl| ttl.0);
    let outcome = cache.put(CachePut { address, seen, bytes, content_type, ttl, fill }).await?;
    let value = stored(outcome)?;
    Ok(Json(CachePutResponse { etag: value.hash.to_string(), expires_at: value.expires_at }))
}

fn content_type(headers: &HeaderMap) -> Result<ContentType, Problem> {
    let Some(value) = one(headers, CONTENT_TYPE.as_str())? else {
        return Ok(ContentType::default());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    field("Content-Type", ContentType::parse(&text))
}

/// Deletes a value, and ends the fill claim of its key. A claimant that gives up does this, so that the next caller can
/// try at once; the response is then 404, since there is no value.
#[utoipa::path(delete, path = "/v1/cache/{namespace}/{key}",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded")),
    responses((status = 200, description = "The value was deleted", body = DeletedResponse)))]
pub(crate) async fn delete_cached_value(
    State(state): State<AppState>,
    Path((namespace, key)): Path<(String, String)>,
) -> HandlerResult<DeletedResponse> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    let key = field("key", CacheKey::parse(namespace, key))?;
    state.engine()?.cache.delete(&key).await?;
    deleted()
}
