//! Leases: locks with a holder and a fencing token.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::shared::{HandlerResult, cut_page, unknown_page};
use crate::http::admission::{RequestClass, RunningPermit, WaitFor};
use crate::http::extract::{Json, Path, Query, Whose};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Resource, read, write};
use crate::http::state::AppState;
use crate::http::wire::{Count, Integer, Span, Ttl, field, given};
use crate::model::hex;
use crate::model::leases::{Claimant, FencingToken, Holder, Lease, LeaseName};
use crate::model::time::{Timestamp, format_duration};
use crate::store::AcquireOutcome;

/// Returns the rows of leases.
pub(super) fn resource() -> Resource {
    Resource::new("leases", "Locks with a holder and a fencing token")
        .route(write(routes!(acquire_lease)).body().class(RequestClass::Wait).fails(&[
            Code::GuardRefused,
            Code::Stopping,
            Code::TooManyLeases,
        ]))
        .route(
            write(routes!(renew_lease))
                .class(RequestClass::Renewal)
                .body()
                .fails(&[Code::LeaseNotHeld]),
        )
        .route(
            write(routes!(release_lease))
                .class(RequestClass::Renewal)
                .body()
                .fails(&[Code::LeaseNotHeld]),
        )
        .route(read(routes!(get_lease)).fails(&[Code::NotFound]))
        .route(read(routes!(list_leases)).compressed())
}

/// Asks for a lease.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseAcquireRequest {
    /// The holder's name: any text that the client chooses. It is no secret, and proves nothing.
    holder: String,
    /// How long the lease lasts unless it is renewed, such as `"30s"`.
    #[schema(value_type = String, example = "30s")]
    ttl: Ttl,
    /// How long to wait in the queue while the lease is held, such as `"10s"`.
    #[schema(value_type = Option<String>, nullable = false, example = "10s")]
    wait: Option<Span>,
    /// Whether to replace an earlier incarnation of this holder: takes the lease over at once if it is held under the
    /// same holder's name and the same access token. False when absent.
    #[serde(default)]
    takeover: bool,
}

/// A lease, and whether the caller holds it.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseResponse {
    /// Whether the caller holds the lease.
    acquired: bool,
    /// Who holds it.
    holder: String,
    /// The fencing token of this grant; absent when the caller does not hold the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fencing_token: Option<i64>,
    /// When it expires unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The ttl of renewals that name none.
    ttl: String,
}

impl LeaseResponse {
    fn to_holder(lease: &Lease) -> Self {
        let fencing_token = Some(lease.token.0);
        Self { acquired: true, fencing_token, ..Self::to_other(lease) }
    }

    fn to_other(lease: &Lease) -> Self {
        Self {
            acquired: false,
            holder: lease.holder.as_str().to_owned(),
            fencing_token: None,
            expires_at: lease.expires_at,
            ttl: format_duration(lease.ttl),
        }
    }
}

/// Acquires a lease, or waits for it in a fair queue. When it is still held at the end, the response is 200 with
/// `acquired` false and the name of the holder, also if that is the name in the request. With `takeover`, a holder that
/// was restarted replaces its earlier incarnation: it gets a new fencing token, and the earlier one is no longer valid.
/// A token that is bound to another role than the leader's can't acquire the
/// leader lease. Where `GET /v1/status` reports `shared: true`, the queue is fair only among the requests that wait at
/// the same replica.
#[utoipa::path(post, path = "/v1/leases/{name}/acquire",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The outcome", body = LeaseResponse)))]
pub(crate) async fn acquire_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Whose(caller): Whose,
    permit: RunningPermit,
    Json(body): Json<LeaseAcquireRequest>,
) -> HandlerResult<LeaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    let holder = field("/holder", Holder::parse(body.holder))?;
    let access = caller.as_ref().map_or(String::new(), |caller| caller.name.as_ref().to_owned());
    let claimant = Claimant { holder, access };
    let wait = state.wait(body.wait)?;
    if !wait.is_zero() {
        permit.wait_for(WaitFor::LeaseOrValue)?;
    }
    let bound_role = caller.as_ref().and_then(|caller| caller.role.as_ref()).map(|role| &*role.0);
    let leases = &state.engine()?.leases;
    let acquire = leases.acquire(&name, &claimant, body.ttl.0, wait, body.takeover, bound_role);
    let outcome = tokio::select! {
        biased;
        outcome = acquire => outcome?,
        // The client repeats the request, and reaches the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => return Err(Problem::stopping()),
    };
    Ok(Json(match outcome {
        AcquireOutcome::Acquired(lease) => LeaseResponse::to_holder(&lease),
        AcquireOutcome::Held(lease) => LeaseResponse::to_other(&lease),
    }))
}

/// Asks to renew a lease.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRenewRequest {
    /// The fencing token that the holder got from the acquisition.
    #[schema(value_type = i64)]
    fencing_token: Integer,
    /// How long the lease lasts from now on; the last ttl of the lease when absent.
    #[schema(value_type = Option<String>, nullable = false, example = "30s")]
    ttl: Option<Ttl>,
}

/// Renews a lease: it lasts for its ttl from now on. Only the holder knows the fencing token that this needs.
#[utoipa::path(post, path = "/v1/leases/{name}/renew",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The lease", body = LeaseResponse)))]
pub(crate) async fn renew_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<LeaseRenewRequest>,
) -> HandlerResult<LeaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    let token = FencingToken(body.fencing_token.0);
    let renewed = state.engine()?.leases.renew(&name, token, body.ttl.map(|ttl| ttl.0)).await?;
    let lease = renewed.ok_or_else(not_held)?;
    Ok(Json(LeaseResponse::to_holder(&lease)))
}

/// Asks to release a lease.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseReleaseRequest {
    /// The fencing token that the holder got from the acquisition.
    #[schema(value_type = i64)]
    fencing_token: Integer,
}

/// A lease was released.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseReleaseResponse {
    /// Always true: a lease that can't be released is a 409.
    released: bool,
}

/// Releases a lease, so that it is free. Only the holder knows the fencing token that this needs.
#[utoipa::path(post, path = "/v1/leases/{name}/release",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The lease is free", body = LeaseReleaseResponse)))]
pub(crate) async fn release_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<LeaseReleaseRequest>,
) -> HandlerResult<LeaseReleaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    let token = FencingToken(body.fencing_token.0);
    if !state.engine()?.leases.release(&name, token).await? {
        return Err(not_held());
    }
    Ok(Json(LeaseReleaseResponse { released: true }))
}

fn not_held() -> Problem {
    Problem::new(Code::LeaseNotHeld).detail("the lease is not held under this fencing token")
}

/// A lease that is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseState {
    /// The lease's name.
    name: String,
    /// Who holds it.
    holder: String,
    /// When it expires unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The ttl of renewals that name none.
    ttl: String,
}

impl LeaseState {
    fn new(name: &LeaseName, lease: &Lease) -> Self {
        Self {
            name: name.as_str().to_owned(),
            holder: lease.holder.as_str().to_owned(),
            expires_at: lease.expires_at,
            ttl: format_duration(lease.ttl),
        }
    }
}

/// Reads a lease; 404 when it is not held. The response has no fencing token: only the holder gets it.
#[utoipa::path(get, path = "/v1/leases/{name}",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The lease", body = LeaseState)))]
pub(crate) async fn get_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> HandlerResult<LeaseState> {
    let name = field("name", LeaseName::parse(name))?;
    let lease = state.engine()?.leases.get(&name).await?;
    Ok(Json(LeaseState::new(&name, &lease)))
}

/// Which leases to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeasePage {
    /// The maximum number of leases in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// The `next_page` of the previous page.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of leases.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeasePageResponse {
    /// The leases that are held, sorted by name.
    leases: Vec<LeaseState>,
    /// The `page` of the next request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_page: Option<String>,
}

/// Lists the leases that are held.
#[utoipa::path(get, path = "/v1/leases", params(LeasePage),
    responses((status = 200, description = "A page of leases", body = LeasePageResponse)))]
pub(crate) async fn list_leases(
    State(state): State<AppState>,
    Query(query): Query<LeasePage>,
) -> HandlerResult<LeasePageResponse> {
    let limit = state.page_items(query.limit)?;
    let after = query.page.as_deref().map(parse_page).transpose()?;
    let found = state.engine()?.leases.list(after.as_ref(), limit + 1).await?;
    let (found, last) = cut_page(found, limit);
    let next_page = last.map(|(name, _)| hex::encode(name.as_str().as_bytes()));
    let leases = found.iter().map(|(name, lease)| LeaseState::new(name, lease)).collect();
    Ok(Json(LeasePageResponse { leases, next_page }))
}

fn parse_page(page: &str) -> Result<LeaseName, Problem> {
    hex::decode(page)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|name| LeaseName::parse(name).ok())
        .ok_or_else(unknown_page)
}
