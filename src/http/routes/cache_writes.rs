//! Writes to the cache, one value at a time, as raw bytes.
//!
//! Invariant: nothing is put without what was seen of the generation before it was made.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cache::{RawBytes, address};
use super::{DeletedResponse, HandlerResult};
use crate::http::body::{BodyLimit, read_whole};
use crate::http::extract::{Json, Path, Query};
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Number, Ttl, field, given};
use crate::model::Invalid;
use crate::model::cache::{CacheKey, ContentType, FillToken, Namespace};
use crate::model::generations::{GenerationFence, Seen};
use crate::model::time::Timestamp;
use crate::store::CachePut;

/// Under what to put a value.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CachePutParams {
    /// The fence that was read before the value was made.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    fence: Option<String>,
    /// Instead of a fence the generation's number. A key that was forgotten in between and bumped
    /// anew may show the same one again.
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
    /// The turn at making the value, which this put ends, whatever becomes of it.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    fill: Option<String>,
}

/// Reads what was seen of a generation: a fence, or a number. What it says of a mistake points at
/// the fields behind `at`.
pub(super) fn seen(fence: Option<&str>, number: Option<i64>, at: &str) -> Result<Seen, Problem> {
    match (fence, number) {
        (Some(fence), None) => {
            field(&format!("{at}fence"), GenerationFence::parse(fence)).map(Seen::Fence)
        }
        (None, Some(number @ 0..)) => Ok(Seen::Number(number)),
        (None, Some(_)) => {
            field(&format!("{at}generation"), Err(Invalid::new("a generation is at least 0")))
        }
        (Some(_), Some(_)) => field(
            &format!("{at}fence"),
            Err(Invalid::new("fence and generation exclude each other: the fence is enough")),
        ),
        (None, None) => {
            let why = "a value is put under the fence, or the generation, that was read before it was made";
            let problem = Problem::new(StatusCode::PRECONDITION_REQUIRED, "generation_required");
            Err(problem.detail(why).at(format!("{at}fence"), why))
        }
    }
}

/// What a put gives.
#[derive(Serialize, ToSchema)]
pub(crate) struct CachePutResponse {
    /// Names the bytes and their content type, as the header `ETag` does, without its quotes.
    etag: String,
    /// When the value ends, if nothing ends it before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Puts a value, unless the generation has moved since it was seen. The body is any bytes, of
/// at most `cache.max_value_bytes`, and of any Content-Type.
#[utoipa::path(put, path = "/v1/cache/{namespace}/{key}", tag = "cache",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded"), CachePutParams),
    request_body(content = inline(RawBytes), description = "The value",
        content_type = "application/octet-stream"),
    responses((status = 200, description = "The value is held", body = CachePutResponse)))]
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
    let most = cache.rules().max_value_bytes;
    let limit = BodyLimit { sent_bytes: most, decoded_bytes: most };
    let patience = state.settings.timeouts.body;
    let body = match read_whole(request, limit, &state.budget, patience).await {
        Ok(body) => body,
        Err(problem) => {
            cache.give_up(&address.key, fill).await;
            return Err(problem);
        }
    };
    // What arrived may lie in a larger buffer, which the value must not keep alive uncounted.
    let bytes = Bytes::copy_from_slice(&body.bytes);
    let ttl = query.ttl.map_or(cache.rules().ttl, |ttl| ttl.0);
    let value = cache.put(CachePut { address, seen, bytes, content_type, ttl, fill }).await?;
    Ok(Json(CachePutResponse { etag: value.hash.to_string(), expires_at: value.expires_at }))
}

fn content_type(headers: &HeaderMap) -> Result<ContentType, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(ContentType::default()) };
    let text = String::from_utf8_lossy(value.as_bytes());
    field("Content-Type", ContentType::parse(&text))
}

/// Drops a value. It also ends the turn at making it: whoever gives up lets the next one try.
#[utoipa::path(delete, path = "/v1/cache/{namespace}/{key}", tag = "cache",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded")),
    responses((status = 200, description = "It is gone", body = DeletedResponse)))]
pub(crate) async fn delete_cached_value(
    State(state): State<AppState>,
    Path((namespace, key)): Path<(String, String)>,
) -> HandlerResult<DeletedResponse> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    let key = field("key", CacheKey::parse(namespace, key))?;
    state.engine()?.cache.delete(&key).await?;
    Ok(Json(DeletedResponse { deleted: true }))
}
