//! Lookups in the cache, one value at a time, as raw bytes.
//!
//! Invariant: a response with a value makes every cache on its way revalidate the value before it serves it, and makes
//! browsers treat it as nothing but data.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::request::address;
use super::tags::{KnownParams, KnownTags};
use crate::engine::cache::{CacheRules, FillRequest, Miss};
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::extract::{Path, Query};
use crate::http::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::http::wire::{Span, Ttl, field, given};
use crate::model::Invalid;
use crate::model::cache::{CachedValue, Namespace};
use crate::model::generations::Generation;
use crate::model::time::{Timestamp, format_duration};

/// How many headers a response with a value has: room is made for all of them at once.
const HIT_HEADERS: usize = 8;

const GENERATION: HeaderName = HeaderName::from_static("holdall-generation");
const FENCE: HeaderName = HeaderName::from_static("holdall-fence");
const MISS: HeaderName = HeaderName::from_static("holdall-miss");
const FILL: HeaderName = HeaderName::from_static("holdall-fill");
const FILL_EXPIRES_AT: HeaderName = HeaderName::from_static("holdall-fill-expires-at");

/// Why a lookup found no value, and what a put needs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheMiss {
    /// The reason: `absent`, `expired`, `stale` (the generation was bumped) or `evicted`.
    reason: &'static str,
    /// The generation that the value will depend on.
    generation: i64,
    /// The fence of that generation: read the source after this response, and put the value with it.
    fence: String,
    /// The token of the fill claim, if the caller got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fill: Option<String>,
    /// When the fill claim expires, if the caller got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    fill_expires_at: Option<Timestamp>,
}

impl CacheMiss {
    fn new(miss: &Miss, generation: &Generation) -> Self {
        Self {
            reason: miss.reason.as_str(),
            generation: generation.number,
            fence: generation.fence.to_string(),
            fill: miss.fill.map(|fill| fill.token.to_string()),
            fill_expires_at: miss.fill.map(|fill| fill.expires_at),
        }
    }
}

/// Any bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes bodies that are not JSON")]
pub(crate) struct RawBytes(Vec<u8>);

/// What to look up, and whether to request the fill claim.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CacheLookup {
    /// The key whose generation the value depends on; the value's own key when absent.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    generation_key: Option<String>,
    /// How long to wait for the value while another caller has the fill claim, such as `10s`. A lookup with `wait` or
    /// `fill` requests the fill claim.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "10s")]
    wait: Option<Span>,
    /// How long the fill claim lasts, if the caller gets it, such as `30s`: at most `cache.max_fill_ttl`;
    /// `cache.fill_ttl` when absent.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "30s")]
    fill: Option<Ttl>,
}

/// Reads a value. The response has the bytes and the Content-Type of the put. Without a valid value, the response is
/// 404 `cache_miss`, with the reason and the fence for a put. With `wait` or `fill`, one caller at a time gets the fill
/// claim (the right to make the value), and others that name `wait` wait for the value.
#[utoipa::path(get, path = "/v1/cache/{namespace}/{key}",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded"), CacheLookup,
        KnownParams),
    responses(
        (status = 200, description = "The value, with the Content-Type of the put",
            body = inline(RawBytes), content_type = "application/octet-stream",
            headers(("ETag" = String, description = "Identifies the bytes and their content type"),
                ("Holdall-Generation" = i64, description = "The generation that the value depends on"),
                ("Holdall-Fence" = String, description = "The fence of that generation"))),
        (status = 304, description = "The client has this value: `If-None-Match` names its ETag")))]
pub(crate) async fn get_cached_value(
    State(state): State<AppState>,
    Path((namespace, key)): Path<(String, String)>,
    Query(query): Query<CacheLookup>,
    permit: RunningPermit,
    known: KnownTags,
) -> Result<Response<Body>, Problem> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    let generation_key = ("generation_key", query.generation_key.as_deref());
    let address = address(&namespace, ("key", &key), generation_key)?;
    let wait = state.wait(query.wait)?;
    let cache = &state.engine()?.cache;
    let ttl = fill_ttl(cache.rules(), query.fill)?;
    let asks_to_fill = query.wait.is_some() || query.fill.is_some();
    let fill = asks_to_fill.then_some(FillRequest { ttl, wait });
    // Only a lookup that really waits takes one of the permits to wait: hits are served although too many requests
    // wait for one slow value.
    let lookup = cache.get_waiting(&address, fill, || permit.wait_for(WaitFor::LeaseOrValue));
    let found = tokio::select! {
        biased;
        found = lookup => found?,
        // The client repeats the request, and reaches the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => return Err(Problem::stopping()),
    };
    match found.value {
        Ok(value) => Ok(hit(&value, &found.generation, &known)),
        Err(miss) => Err(missed(&miss, &found.generation)),
    }
}

/// Returns how long a fill claim lasts that `fill` asks for.
fn fill_ttl(rules: &CacheRules, fill: Option<Ttl>) -> Result<Duration, Problem> {
    let ttl = fill.map_or(rules.fill_ttl, |ttl| ttl.0);
    let longest = rules.max_fill_ttl;
    let why = || Invalid::new(format!("a fill claim lasts at most {}", format_duration(longest)));
    field("fill", if ttl <= longest { Ok(ttl) } else { Err(why()) })
}

fn hit(value: &CachedValue, generation: &Generation, known: &KnownTags) -> Response<Body> {
    let hash = value.hash.to_string();
    let known = known.has(&hash);
    let body = if known { Body::empty() } else { Body::from(value.bytes.clone()) };
    let mut response = Response::new(body);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.reserve(HIT_HEADERS);
    set(headers, CONTENT_TYPE, value.content_type.as_str());
    set(headers, ETAG, &format!("\"{hash}\""));
    // Any cache may keep the value, but must ask here whether it is still valid before it serves it.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    // What clients put must not run as a page of this origin.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(GENERATION, generation.number.into());
    set(headers, FENCE, &generation.fence.to_string());
    response
}

fn missed(miss: &Miss, generation: &Generation) -> Problem {
    let body = CacheMiss::new(miss, generation);
    let mut headers = HeaderMap::new();
    // No cache on the way may serve a miss to later requests.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    // The headers say the same as the body, for clients that read raw bytes.
    headers.insert(MISS, HeaderValue::from_static(body.reason));
    headers.insert(GENERATION, body.generation.into());
    set(&mut headers, FENCE, &body.fence);
    if let Some(fill) = &miss.fill {
        set(&mut headers, FILL, &fill.token.to_string());
        set(&mut headers, FILL_EXPIRES_AT, &fill.expires_at.to_string());
    }
    let problem = Problem::new(Code::CacheMiss).detail("there is no valid value");
    problem.member("miss", &body).headers(headers)
}

/// Sets a header. The model admits only characters that a header can carry.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => tracing::error!(header = %name, "a header's value can't be sent"),
    }
}
