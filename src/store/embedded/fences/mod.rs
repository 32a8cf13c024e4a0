//! Fences: whether a lease is held under a token, checked in the same step as the write.
//!
//! What leases and all that is fenced share. A durable write checks the fence in its own command
//! ([`fenced`]). A write of series is not a command; it holds the latch of the lease meanwhile
//! ([`Fences::with_fence`]).

mod latches;
mod rows;

use std::sync::Arc;

pub(super) use self::latches::FenceLatches;
pub(super) use self::rows::{LAST_TOKEN, LeaseRow, Leases};
use super::durable::{DurableStore, Txn};
use crate::model::leases::Fence;
use crate::store::{Fenced, StoreResult};

/// Runs `write` when the fence holds, or there is none.
pub(super) fn fenced<T>(
    txn: &mut Txn<'_>,
    fence: Option<&Fence>,
    write: impl FnOnce(&mut Txn<'_>) -> T,
) -> Fenced<T> {
    match fence {
        Some(fence) if !holds(txn.get::<Leases>(&fence.lease), fence) => Fenced::Refused,
        _ => Fenced::Done(write(txn)),
    }
}

/// Returns whether `fence` holds when `lease` is what is held under its name.
fn holds(lease: Option<&LeaseRow>, fence: &Fence) -> bool {
    lease.is_some_and(|lease| lease.token == fence.token)
}

/// Fences for writes that are not commands of the durable store.
pub(super) struct Fences {
    store: Arc<DurableStore>,
    latches: Arc<FenceLatches>,
}

impl Fences {
    /// Makes the fences of a store that publishes through `latches`.
    pub(super) fn new(store: Arc<DurableStore>, latches: Arc<FenceLatches>) -> Self {
        Self { store, latches }
    }

    /// Runs `write` with whether `fence` holds, which stays so meanwhile: a takeover or a release of
    /// that lease is acknowledged only after `write` has returned.
    ///
    /// So `write` should be short. It must not call this method again.
    ///
    /// # Errors
    /// When the store is closed; `write` has not run then.
    pub(super) fn with_fence<T>(
        &self,
        fence: &Fence,
        write: impl FnOnce(bool) -> T,
    ) -> StoreResult<T> {
        // The latch comes first: a lease that is read before it could change hands in between.
        let latch = self.latches.hold(&fence.lease);
        let (tables, now) = self.store.read()?;
        let holds = holds(tables.rows::<Leases>().get(&fence.lease, now.steady), fence);
        // Not held during the write: the writer needs them for other leases.
        drop(tables);
        let outcome = write(holds);
        drop(latch);
        Ok(outcome)
    }
}
