//! What the handlers of several resources have in common.
//!
//! Invariant: nothing here knows any of them.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::http::state::AppState;

/// What most handlers return.
pub(super) type HandlerResult<T> = Result<Json<T>, Problem>;

/// One entry was deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct DeletedResponse {
    /// Always true: the deletion of an entry that does not exist is a 404.
    deleted: bool,
}

/// Makes the response to a deletion.
pub(super) fn deleted() -> HandlerResult<DeletedResponse> {
    Ok(Json(DeletedResponse { deleted: true }))
}

/// Refuses a batch with more keys than one request may name.
///
/// # Errors
/// 400.
pub(super) fn check_batch(state: &AppState, keys: usize) -> Result<(), Problem> {
    let limit = state.settings.limits.batch_keys;
    if keys > limit {
        return Err(Problem::invalid(format!("a batch has at most {limit} keys")));
    }
    Ok(())
}

/// Returns a count as an int64, as clients expect it.
pub(super) fn int64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Cuts a list that was read with one item more than a page has; returns the page, and the last item of it when
/// there are more.
pub(super) fn cut_page<T: Clone>(mut found: Vec<T>, limit: usize) -> (Vec<T>, Option<T>) {
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).cloned();
    (found, last)
}

/// The problem of a `page` that this server did not make.
pub(super) fn unknown_page() -> Problem {
    Problem::invalid("page is not a next_page of this server")
}

/// Adds the headers of a fenced write to the document; [`crate::http::extract::FenceHeader`] reads them.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `FenceHeader` reads")]
pub(super) struct FenceParams {
    /// The name of the lease that fences this write, percent-encoded. When the lease is not held under the fencing
    /// token, the response is 412 `fence_refused` and nothing has changed. Where `GET /v1/status` reports
    /// `atomic_fencing: false`, the lease may be lost while a batch is applied. Where a part of the batch was applied
    /// then, the response is 503 `partly_applied`.
    #[param(rename = "Holdall-Lease", required = false, nullable = false)]
    lease: Option<String>,
    /// The fencing token of the lease. A request has both headers or none.
    #[param(rename = "Holdall-Fencing-Token", required = false, nullable = false)]
    token: Option<i64>,
}
