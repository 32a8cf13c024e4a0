//! The contract of leases. What holds for all resources is said in the parent module.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::StoreResult;
use crate::model::leases::{Claimant, FencingToken, Lease, LeaseName};
use crate::model::settings;

/// `[leases]`, as far as the store needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct LeaseSettings {
    /// The most leases that are held.
    #[serde(deserialize_with = "settings::count")]
    pub max_leases: usize,
}

/// How an attempt to acquire a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireOutcome {
    /// The caller holds the lease.
    Acquired(Lease),
    /// It is held, by another holder or under an earlier grant.
    Held(Lease),
}

/// Leases. A fencing token is greater than all that were issued before it, for ever.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes the lease when it is free. While it is held, nobody gets it, also not a claimant of the same name: two
    /// clients may have chosen the same one.
    async fn acquire(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome>;

    /// Takes the lease over when it is held by the same claimant: under a new token, so that the claimant's earlier
    /// incarnation is fenced off. `None` when it is free, or held by another holder or under another access token.
    async fn take_over(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<Option<Lease>>;

    /// Extends the lease to `ttl` from now (its own ttl when `None`); `None` when it is not held
    /// under `token` now.
    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>>;

    /// Ends the lease; `false` when it is not held under `token` now.
    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool>;

    /// Reads a lease; `None` when it is free.
    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>>;

    /// Reads all leases that are held, sorted by name, after `after`, at most `limit`.
    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>>;
}
