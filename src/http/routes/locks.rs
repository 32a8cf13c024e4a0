//! Locks: keys that one caller acquires, until their ttl ends.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::shared::{HandlerResult, check_batch, cut_page, unknown_page};
use crate::http::extract::{Json, Path, Query, ReleaseTokenHeader, Whose};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, read, write};
use crate::http::state::AppState;
use crate::http::wire::{Count, Ttl, field, given};
use crate::model::hex;
use crate::model::locks::{LockKey, LockKind};
use crate::model::time::Timestamp;

/// Returns the rows of locks.
pub(super) fn resource() -> Resource {
    Resource::new("locks", "Keys that one caller acquires, until their ttl ends")
        .schema::<LockKindName>()
        .route(write(routes!(acquire_lock)).body().fails(ACQUIRE))
        .route(write(routes!(acquire_locks)).body().fails(BATCH_CODES))
        .route(write(routes!(release_lock)).fails(RELEASE))
        .route(read(routes!(get_lock)).fails(UNKNOWN_KIND))
        .route(read(routes!(list_locks)).compressed().fails(UNKNOWN_KIND))
}

const UNKNOWN_KIND: &[Code] = &[Code::NotFound];
const ACQUIRE: &[Code] = &[Code::NotFound, Code::TooManyLocks];
const RELEASE: &[Code] = &[Code::NotFound, Code::LockNotHeld];
const BATCH_CODES: &[Code] = &[Code::NotFound, Code::PartlyApplied, Code::TooManyLocks];

/// Asks for one lock.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockRequest {
    /// How long the lock lasts, such as `"30s"`; longer than zero.
    #[schema(value_type = String, example = "30s")]
    ttl: Ttl,
}

/// The outcome of an attempt to acquire a lock.
#[derive(Serialize, ToSchema)]
pub(crate) struct LockResponse {
    /// Whether the caller acquired the lock.
    acquired: bool,
    /// What releases the lock early; absent when the caller did not acquire it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    release_token: Option<String>,
    /// When the lock expires, whoever holds it.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Acquires a lock. When it is held already, the response is 200 with `acquired` false. This also happens when a
/// request is repeated after a lost response or a 5xx, and the first attempt acquired the lock. Only the response to the
/// caller that acquired it has the lock's release token.
#[utoipa::path(post, path = "/v1/locks/{kind}/{key}",
    params(("kind" = LockKindName, Path, description = "What the lock is for"),
        ("key" = String, Path, description = "The lock's key, percent-encoded")),
    responses((status = 200, description = "The outcome", body = LockResponse)))]
pub(crate) async fn acquire_lock(
    State(state): State<AppState>,
    Path((kind, key)): Path<(String, String)>,
    Json(body): Json<LockRequest>,
) -> HandlerResult<LockResponse> {
    let key = field("key", LockKey::parse(parse_kind(&kind)?, key))?;
    let acquisition = state.engine()?.locks.acquire(vec![key], body.ttl.0).await?;
    let outcome = acquisition.outcomes.first().ok_or_else(Problem::internal)?;
    Ok(Json(LockResponse {
        acquired: outcome.acquired,
        release_token: acquisition.release_token.map(String::from),
        expires_at: outcome.expires_at,
    }))
}

/// Asks for many locks of one kind.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockBatchRequest {
    /// The keys; a key that occurs twice is acquired once.
    keys: Vec<String>,
    /// How long each lock lasts, such as `"30s"`; longer than zero.
    #[schema(value_type = String, example = "30s")]
    ttl: Ttl,
}

/// The locks of a batch that the caller acquired.
#[derive(Serialize, ToSchema)]
pub(crate) struct LockBatchResponse {
    /// The keys of the acquired locks, in the order of the request.
    acquired: Vec<String>,
    /// What releases each of the acquired locks early, one by one; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    release_token: Option<String>,
}

/// Acquires all locks of a batch that are free, in one step. Where `GET /v1/status` reports `atomic_batches: false`,
/// each lock still goes to one caller only, but the locks are not acquired at one moment. After a 5xx some of them may
/// be held until they expire; 503 `partly_applied` says of how many keys that was decided.
#[utoipa::path(post, path = "/v1/locks/{kind}",
    params(("kind" = LockKindName, Path, description = "What the locks are for")),
    responses((status = 200, description = "The locks that the caller acquired", body = LockBatchResponse)))]
pub(crate) async fn acquire_locks(
    State(state): State<AppState>,
    Path(kind): Path<String>,
    Json(body): Json<LockBatchRequest>,
) -> HandlerResult<LockBatchResponse> {
    let kind = parse_kind(&kind)?;
    check_batch(&state, body.keys.len())?;
    let parse = |(i, key): (usize, &String)| {
        LockKey::parse(kind, key.as_str())
            .map_err(|why| Problem::invalid_at(&format!("/keys/{i}"), &why))
    };
    let keys = body.keys.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    let acquisition = state.engine()?.locks.acquire(keys, body.ttl.0).await?;
    let outcomes = body.keys.into_iter().zip(acquisition.outcomes);
    Ok(Json(LockBatchResponse {
        acquired: outcomes.filter(|(_, outcome)| outcome.acquired).map(|(key, _)| key).collect(),
        release_token: acquisition.release_token.map(String::from),
    }))
}

/// Adds the header of a release to the document; [`ReleaseTokenHeader`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `ReleaseTokenHeader` reads")]
pub(crate) struct ReleaseParams {
    /// The `release_token` of the response that said that the lock was acquired.
    #[param(rename = "Holdall-Release-Token", required = false, nullable = false)]
    token: Option<String>,
}

/// A lock was released.
#[derive(Serialize, ToSchema)]
pub(crate) struct LockReleaseResponse {
    /// Always true: a lock that can't be released is a 409.
    released: bool,
}

/// Releases a lock before it expires, so that it is free. Only the caller that acquired it knows the release token that
/// this needs. When the lock has expired, or somebody else acquired it since, the response is 409 and nothing has
/// changed. An access token with the scopes `write` and `admin` may release any lock, without the header.
#[utoipa::path(delete, path = "/v1/locks/{kind}/{key}",
    params(("kind" = LockKindName, Path, description = "What the lock is for"),
        ("key" = String, Path, description = "The lock's key, percent-encoded"), ReleaseParams),
    responses((status = 200, description = "The lock is free", body = LockReleaseResponse)))]
pub(crate) async fn release_lock(
    State(state): State<AppState>,
    Path((kind, key)): Path<(String, String)>,
    ReleaseTokenHeader(token): ReleaseTokenHeader,
    Whose(caller): Whose,
) -> HandlerResult<LockReleaseResponse> {
    let key = field("key", LockKey::parse(parse_kind(&kind)?, key))?;
    let is_admin = caller.is_some_and(|caller| caller.is_admin);
    if token.is_none() && !is_admin {
        return Err(Problem::forbidden(
            "without Holdall-Release-Token, only an access token with the scope \"admin\" may release a lock",
        ));
    }
    if !state.engine()?.locks.release(&key, token).await? {
        return Err(Problem::new(Code::LockNotHeld).detail(Code::LockNotHeld.meaning()));
    }
    Ok(Json(LockReleaseResponse { released: true }))
}

/// The state of a lock.
#[derive(Serialize, ToSchema)]
pub(crate) struct LockState {
    /// Whether the lock is held.
    held: bool,
    /// When it expires, if it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    expires_at: Option<Timestamp>,
}

/// Reads whether a lock is held. The lock may expire before the response arrives.
#[utoipa::path(get, path = "/v1/locks/{kind}/{key}",
    params(("kind" = LockKindName, Path, description = "What the lock is for"),
        ("key" = String, Path, description = "The lock's key, percent-encoded")),
    responses((status = 200, description = "The lock", body = LockState)))]
pub(crate) async fn get_lock(
    State(state): State<AppState>,
    Path((kind, key)): Path<(String, String)>,
) -> HandlerResult<LockState> {
    let key = field("key", LockKey::parse(parse_kind(&kind)?, key))?;
    let expires_at = state.engine()?.locks.get(&key).await?;
    Ok(Json(LockState { held: expires_at.is_some(), expires_at }))
}

/// Which locks to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LockPage {
    /// The maximum number of locks in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// The `next_page` of the previous page.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A lock that is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldLock {
    /// The lock's key.
    key: String,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// A page of locks.
#[derive(Serialize, ToSchema)]
pub(crate) struct LockPageResponse {
    /// The locks that are held, sorted by key.
    locks: Vec<HeldLock>,
    /// The `page` of the next request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_page: Option<String>,
}

/// Lists the locks of a kind that are held. A lock that is held while all pages are read is on one of them; one that is
/// acquired or released meanwhile may be. The response has no release tokens: only the caller that acquired a lock gets
/// its token.
#[utoipa::path(get, path = "/v1/locks/{kind}",
    params(("kind" = LockKindName, Path, description = "What the locks are for"), LockPage),
    responses((status = 200, description = "A page of locks", body = LockPageResponse)))]
pub(crate) async fn list_locks(
    State(state): State<AppState>,
    Path(kind): Path<String>,
    Query(query): Query<LockPage>,
) -> HandlerResult<LockPageResponse> {
    let kind = parse_kind(&kind)?;
    let limit = state.page_items(query.limit)?;
    let after = query.page.as_deref().map(|page| parse_page(kind, page)).transpose()?;
    let after = after.as_ref().map(|after| after.key.as_str());
    let found = state.engine()?.locks.list(kind, after, limit + 1).await?;
    let (found, last) = cut_page(found, limit);
    let next_page = last.map(|(key, _)| hex::encode(key.key.as_bytes()));
    let held = found.into_iter().map(|(key, expires_at)| HeldLock { key: key.key, expires_at });
    Ok(Json(LockPageResponse { locks: held.collect(), next_page }))
}

fn parse_page(kind: LockKind, page: &str) -> Result<LockKey, Problem> {
    hex::decode(page)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|key| LockKey::parse(kind, key).ok())
        .ok_or_else(unknown_page)
}

/// What a lock is for.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes what `parse_kind` reads")]
pub(crate) enum LockKindName {
    /// A job that must run once.
    Job,
    /// A message that must be handled once.
    Dedup,
}

fn parse_kind(kind: &str) -> Result<LockKind, Problem> {
    [LockKind::Job, LockKind::Dedup]
        .into_iter()
        .find(|known| known.as_str() == kind)
        .ok_or_else(|| Problem::not_found("the kinds of locks are job and dedup"))
}
