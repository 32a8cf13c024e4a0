//! The handlers, one file per resource, with the wire types beside them.
//!
//! A handler reads, asks the engine, and wraps; it decides nothing itself. Its name in camel
//! case is its operationId.

pub(crate) mod cache;
pub(crate) mod cache_batches;
pub(crate) mod cache_writes;
pub(crate) mod checkpoints;
pub(crate) mod documents;
pub(crate) mod generations;
pub(crate) mod health;
pub(crate) mod leases;
pub(crate) mod locks;
pub(crate) mod metrics;
pub(crate) mod operation;
pub(crate) mod series;
pub(crate) mod series_changes;

use super::extract::Json;
use super::problem::Problem;
use super::state::AppState;

/// What most handlers give.
pub(crate) type HandlerResult<T> = Result<Json<T>, Problem>;

/// That one thing was deleted.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedResponse {
    /// True: what was not there is a problem.
    deleted: bool,
}

/// Refuses a batch of more keys than one request may name.
fn check_batch(state: &AppState, keys: usize) -> Result<(), Problem> {
    let most = state.settings.limits.batch_keys;
    if keys > most {
        return Err(Problem::invalid(format!("a batch has at most {most} keys")));
    }
    Ok(())
}

/// Makes a count an int64, as clients expect it.
fn int64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Adds the headers of a fenced write to the document; [`super::extract::FenceHeader`] reads them.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `FenceHeader` reads")]
pub(crate) struct FenceParams {
    /// The lease that fences this write, percent-encoded. When it is not held under the token, the
    /// answer is 412 `fence_refused` and nothing has changed. Where the status says
    /// `atomic_fencing: false`, a batch in whose middle the lease ends or changes hands gets that
    /// answer too, and what was written before that stays.
    #[param(rename = "Holdall-Lease", required = false, nullable = false)]
    lease: Option<String>,
    /// The fencing token that the lease's holder was given.
    #[param(rename = "Holdall-Fencing-Token", required = false, nullable = false)]
    token: Option<i64>,
}
