//! Leases: locks with a holder and a fencing token.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::HandlerResult;
use crate::http::extract::{Json, Path, Query, Role};
use crate::http::place::Place;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::http::wire::{Count, Integer, Span, Ttl, field, from_hex, given, to_hex};
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::model::time::{Timestamp, format_duration};
use crate::store::AcquireOutcome;

/// Asks for a lease.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRequest {
    /// Who asks: any text that the holder chose for itself, the same each time.
    holder: String,
    /// How long the lease lasts unless it is renewed, such as `"30s"`.
    #[schema(value_type = String, example = "30s")]
    ttl: Ttl,
    /// How long to wait in the queue when somebody else holds it, such as `"10s"`.
    #[schema(value_type = Option<String>, nullable = false, example = "10s")]
    wait: Option<Span>,
}

/// A lease as it stands, or how an attempt to get it ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseResponse {
    /// The caller holds the lease now.
    acquired: bool,
    /// Who holds it.
    holder: String,
    /// The token of this holding; only its holder is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fencing_token: Option<i64>,
    /// When it ends unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// How long a renewal lasts that names no ttl of its own.
    ttl: String,
}

impl LeaseResponse {
    fn of_holder(lease: &Lease) -> Self {
        let fencing_token = Some(lease.token.0);
        Self { acquired: true, fencing_token, ..Self::of_other(lease) }
    }

    fn of_other(lease: &Lease) -> Self {
        Self {
            acquired: false,
            holder: lease.holder.as_str().to_owned(),
            fencing_token: None,
            expires_at: lease.expires_at,
            ttl: format_duration(lease.ttl),
        }
    }
}

/// Takes a lease, or waits in a fair queue for it. Not getting it is an answer, with
/// `acquired` false and the one who holds it. Where the status says `shared: true`, the queue is
/// fair among those who wait at one replica.
#[utoipa::path(post, path = "/v1/leases/{name}/acquire", tag = "leases",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The outcome", body = LeaseResponse)))]
pub(crate) async fn acquire_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Role(bound): Role,
    place: Place,
    Json(body): Json<LeaseRequest>,
) -> HandlerResult<LeaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    let holder = field("/holder", Holder::parse(body.holder))?;
    let wait = state.wait(body.wait)?;
    if !wait.is_zero() {
        place.wait_among(&state.waiting_for_turns)?;
    }
    let engine = state.engine()?;
    engine.series.check_candidate(bound.as_ref().map(|role| &*role.0), &name)?;
    let acquire = engine.leases.acquire(&name, &holder, body.ttl.0, wait);
    let outcome = tokio::select! {
        biased;
        outcome = acquire => outcome?,
        // Who waits while the server stops asks the next server.
        () = state.stop.cancelled(), if !wait.is_zero() => return Err(Problem::stopping()),
    };
    Ok(Json(match outcome {
        AcquireOutcome::Acquired(lease) => LeaseResponse::of_holder(&lease),
        AcquireOutcome::Held(lease) => LeaseResponse::of_other(&lease),
    }))
}

/// Asks to make a lease last longer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRenewal {
    /// The token that the holder was given.
    #[schema(value_type = i64)]
    fencing_token: Integer,
    /// How long it lasts from now; the lease's own ttl when absent.
    #[schema(value_type = Option<String>, nullable = false, example = "30s")]
    ttl: Option<Ttl>,
}

/// Makes a lease last longer, for its holder.
#[utoipa::path(post, path = "/v1/leases/{name}/renew", tag = "leases",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The lease", body = LeaseResponse)))]
pub(crate) async fn renew_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<LeaseRenewal>,
) -> HandlerResult<LeaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    let token = FencingToken(body.fencing_token.0);
    let lease = state.engine()?.leases.renew(&name, token, body.ttl.map(|ttl| ttl.0)).await?;
    Ok(Json(LeaseResponse::of_holder(&lease)))
}

/// Asks to end a lease.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRelease {
    /// The token that the holder was given.
    #[schema(value_type = i64)]
    fencing_token: Integer,
}

/// That a lease has ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReleaseResponse {
    /// True: a lease that could not be released is a problem.
    released: bool,
}

/// Ends a lease, for its holder.
#[utoipa::path(post, path = "/v1/leases/{name}/release", tag = "leases",
    params(("name" = String, Path, description = "The lease's name, percent-encoded")),
    responses((status = 200, description = "The lease is free", body = ReleaseResponse)))]
pub(crate) async fn release_lease(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<LeaseRelease>,
) -> HandlerResult<ReleaseResponse> {
    let name = field("name", LeaseName::parse(name))?;
    state.engine()?.leases.release(&name, FencingToken(body.fencing_token.0)).await?;
    Ok(Json(ReleaseResponse { released: true }))
}

/// A lease that is held.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseState {
    /// The lease's name.
    name: String,
    /// Who holds it.
    holder: String,
    /// When it ends unless it is renewed.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// How long a renewal lasts that names no ttl of its own.
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

/// Reads a lease; 404 when nobody holds it. The fencing token is its holder's alone.
#[utoipa::path(get, path = "/v1/leases/{name}", tag = "leases",
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
    /// The most leases of the answer.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// `next_page` of the page before.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of leases.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeasePageResponse {
    /// The leases that are held, sorted by name.
    leases: Vec<LeaseState>,
    /// What to ask with for more; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_page: Option<String>,
}

/// Lists the leases that are held.
#[utoipa::path(get, path = "/v1/leases", tag = "leases", params(LeasePage),
    responses((status = 200, description = "A page of leases", body = LeasePageResponse)))]
pub(crate) async fn list_leases(
    State(state): State<AppState>,
    Query(query): Query<LeasePage>,
) -> HandlerResult<LeasePageResponse> {
    let limit = state.page_items(query.limit)?;
    let after = query.page.as_deref().map(parse_page).transpose()?;
    let mut found = state.engine()?.leases.list(after.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let next_page = last.map(|(name, _)| to_hex(name.as_str().as_bytes()));
    let leases = found.iter().map(|(name, lease)| LeaseState::new(name, lease)).collect();
    Ok(Json(LeasePageResponse { leases, next_page }))
}

fn parse_page(page: &str) -> Result<LeaseName, Problem> {
    from_hex(page)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|name| LeaseName::parse(name).ok())
        .ok_or_else(|| Problem::invalid("page is not a next_page that this server gave"))
}
