//! Lookups in the cache, one value at a time, as raw bytes. Writes, and many at a time, are in the
//! files beside.
//!
//! Invariant: an answer with a value tells every cache in between to ask again before it gives
//! the value to anybody, and browsers to take it for nothing but data.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::engine::EngineError;
use crate::engine::cache::{CacheRules, FillWish, Miss};
use crate::http::extract::{Path, Query};
use crate::http::place::Place;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Span, Ttl, field, given};
use crate::model::Invalid;
use crate::model::cache::{CacheKey, CachedValue, Namespace};
use crate::model::generations::{Generation, GenerationKey};
use crate::model::time::{Timestamp, format_duration};
use crate::store::CacheAddress;

/// How many headers an answer with a value has: room is made for all of them at once.
const HIT_HEADERS: usize = 8;

const GENERATION: HeaderName = HeaderName::from_static("holdall-generation");
const FENCE: HeaderName = HeaderName::from_static("holdall-fence");
const MISS: HeaderName = HeaderName::from_static("holdall-miss");
const FILL: HeaderName = HeaderName::from_static("holdall-fill");
const FILL_EXPIRES_AT: HeaderName = HeaderName::from_static("holdall-fill-expires-at");

/// Why a lookup found nothing, and what is needed to put a value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheMiss {
    /// Why: `absent`, `expired`, `stale` or `evicted`.
    reason: &'static str,
    /// The generation that the value will depend on.
    generation: i64,
    /// Its fence: what is made from the source after this answer may be put under it.
    fence: String,
    /// Names the caller's turn at making the value, where the caller got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fill: Option<String>,
    /// When somebody else may get a turn.
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
#[expect(dead_code, reason = "describes bodies that are no JSON")]
pub(crate) struct RawBytes(Vec<u8>);

/// Builds the address of a value from what stands at two places of the request; without a
/// generation's key the value's own key is it.
pub(super) fn address(
    namespace: &Namespace,
    (key_at, key): (&str, &str),
    (generation_at, generation_key): (&str, Option<&str>),
) -> Result<CacheAddress, Problem> {
    let generation_key = generation_key.unwrap_or(key);
    let key = field(key_at, CacheKey::parse(namespace.clone(), key))?;
    let generation_key = field(generation_at, GenerationKey::parse(generation_key))?;
    Ok(CacheAddress { key, generation_key })
}

/// What to look up, and whether to take part in making it.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CacheLookup {
    /// The key whose generation the value depends on; the value's own key when absent.
    #[serde(default, deserialize_with = "given")]
    #[param(required = false, nullable = false)]
    generation_key: Option<String>,
    /// How long to wait for somebody else who makes the value, such as `10s`. Whoever names this
    /// or `fill` takes part in making it.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "10s")]
    wait: Option<Span>,
    /// How long the caller's turn lasts, if it gets one, such as `30s`; `cache.fill_ttl` when
    /// absent, and at most `cache.max_fill_ttl`.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<String>, required = false, nullable = false, example = "30s")]
    fill: Option<Ttl>,
}

/// Adds the header of a conditional lookup to the document; [`knows`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `knows` reads")]
pub(crate) struct KnownParams {
    /// The `ETag` of the value that the caller has, quoted; a list, or `*`.
    #[param(rename = "If-None-Match", required = false, nullable = false)]
    if_none_match: Option<String>,
}

/// Reads a value, as the bytes and with the Content-Type that it was put with. Finding none is a
/// problem `cache_miss` that says why and gives the fence for a put; with `wait` or `fill` one
/// caller at a time gets the turn at making the value, and the others may wait for it.
#[utoipa::path(get, path = "/v1/cache/{namespace}/{key}", tag = "cache",
    params(("namespace" = String, Path, description = "The namespace, percent-encoded"),
        ("key" = String, Path, description = "The value's key, percent-encoded"), CacheLookup,
        KnownParams),
    responses(
        (status = 200, description = "The value, of the content type that it was put with",
            body = inline(RawBytes), content_type = "application/octet-stream",
            headers(("ETag" = String, description = "Names the bytes and their content type"),
                ("Holdall-Generation" = i64, description = "The generation it depends on"),
                ("Holdall-Fence" = String, description = "The fence of that generation"))),
        (status = 304, description = "The value is what If-None-Match names")))]
pub(crate) async fn get_cached_value(
    State(state): State<AppState>,
    Path((namespace, key)): Path<(String, String)>,
    Query(query): Query<CacheLookup>,
    place: Place,
    known: KnownTags,
) -> Result<Response<Body>, Problem> {
    let namespace = field("namespace", Namespace::parse(namespace))?;
    let generation_key = ("generation_key", query.generation_key.as_deref());
    let address = address(&namespace, ("key", &key), generation_key)?;
    let wait = state.wait(query.wait)?;
    let takes_part = query.wait.is_some() || query.fill.is_some();
    // Only who really waits takes a place among those who do: hits are answered all the same when
    // too many wait for one slow value.
    let may_wait = || {
        let taken = place.wait_among(&state.waiting_for_turns);
        taken.map_err(|_| EngineError::TooManyWaiting)
    };
    let cache = &state.engine()?.cache;
    let ttl = turn_ttl(cache.rules(), query.fill)?;
    let wish = takes_part.then_some(FillWish { ttl, wait });
    let lookup = cache.get_waiting(&address, wish, may_wait);
    let answer = tokio::select! {
        biased;
        answer = lookup => answer?,
        // Who waits while the server stops asks the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => return Err(Problem::stopping()),
    };
    match answer.value {
        Ok(value) => Ok(hit(&value, &answer.generation, &known)),
        Err(miss) => Err(not_there(&miss, &answer.generation)),
    }
}

/// Returns how long a turn lasts that was asked for with `fill`.
fn turn_ttl(rules: &CacheRules, fill: Option<Ttl>) -> Result<Duration, Problem> {
    let ttl = fill.map_or(rules.fill_ttl, |ttl| ttl.0);
    let longest = rules.max_fill_ttl;
    let why = || Invalid::new(format!("a turn lasts at most {}", format_duration(longest)));
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
    // To be kept by whoever likes, but only given after asking here whether it still is true.
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

fn not_there(miss: &Miss, generation: &Generation) -> Problem {
    let told = CacheMiss::new(miss, generation);
    let mut headers = HeaderMap::new();
    // Nobody in between may give a miss to those who ask later.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    headers.insert(MISS, HeaderValue::from_static(told.reason));
    headers.insert(GENERATION, told.generation.into());
    set(&mut headers, FENCE, &told.fence);
    if let Some(fill) = &miss.fill {
        set(&mut headers, FILL, &fill.token.to_string());
        set(&mut headers, FILL_EXPIRES_AT, &fill.expires_at.to_string());
    }
    Problem::cache_miss(told, headers)
}

/// Sets a header. Its value is of characters that a header can carry, since the model lets no
/// others through.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => tracing::error!(header = %name, "a header's value can't be sent"),
    }
}

/// What the client has already: the lines of `If-None-Match`.
pub(crate) struct KnownTags(Vec<HeaderValue>);

impl KnownTags {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Returns whether this value is among it: a buffered comparison (RFC 9110, 13.1.2). Our own tags
    /// hold no comma, so that cutting foreign ones at theirs does no harm.
    fn has(&self, hash: &str) -> bool {
        let lines = self.0.iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            tag == "*" || inner == Some(hash)
        })
    }
}

impl FromRequestParts<AppState> for KnownTags {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        let asked = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, line.parse().expect("a header"));
            }
            KnownTags::of(&headers).has("0a1b")
        };
        for lines in [
            &["\"0a1b\""][..],
            &["W/\"0a1b\""],
            &["*"],
            &["\"x\" , W/\"y\",\"0a1b\""],
            &["\"x,y\", \"0a1b\""],
            &["\"x\"", "\"0a1b\""],
        ] {
            assert!(asked(lines), "{lines:?}");
        }
        for lines in [&[][..], &["0a1b"], &["\"0a1\""], &["w/\"0a1b\""], &["\"*\""], &[""]] {
            assert!(!asked(lines), "{lines:?}");
        }
    }
}
