//! Leases on Redis: a hash a shard, with the leases by their ends and by their names beside it.
//!
//! How other shards are fenced is in `core::fences`. Invariant: an acquisition is acknowledged only
//! after its token was announced to every shard.

pub(super) mod grants;
mod record;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};

use self::grants::{Grant, LEASE_ENDS, LEASE_NAMES, When};
use self::record::{lease_of, name_of};
use super::core::client::Traffic;
use super::core::expiry::Expiring;
use super::core::fences::{LEASES, announce, forget, lease_shard};
use super::core::listing::list;
use super::core::replies::{read, sum};
use super::core::script::scripts;
use super::core::shards::Shards;
use super::core::time::millis_of;
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::leases::{Claimant, FencingToken, Lease, LeaseName};
use crate::store::{
    AcquireOutcome, ErrorKind, LeaseSettings, LeaseStore, ResourceStatus, StoreError, StoreResult,
};

scripts! {
    RENEW(&[LEASES, LEASE_ENDS, LEASE_NAMES]) =
        "../core/lua/lease.lua", "lua/write.lua", "lua/renew.lua";
    GET(&[LEASES]) = "../core/lua/lease.lua", "lua/get.lua";
    LIST(&[LEASES, LEASE_NAMES]) = "../core/lua/lease.lua", "lua/list.lua";
}

/// The leases.
pub(super) struct RedisLeases {
    shards: Arc<Shards>,
    expiring: Expiring,
    max_leases: usize,
}

impl RedisLeases {
    pub(super) fn new(shards: Arc<Shards>, settings: LeaseSettings) -> Self {
        let expiring = Expiring::new(&[LEASE_ENDS, LEASES, LEASE_NAMES], Duration::ZERO);
        Self { shards, expiring, max_leases: settings.max_leases }
    }
}

#[async_trait]
impl LeaseStore for RedisLeases {
    async fn acquire(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        match self.grant_and_publish(name, claimant, ttl, When::Free).await? {
            Grant::Acquired(lease) => Ok(AcquireOutcome::Acquired(lease)),
            Grant::Held(lease) => Ok(AcquireOutcome::Held(lease)),
            Grant::Overtaken => {
                let why = "a first grant was overtaken, which only repeated ones can be";
                Err(StoreError::new(ErrorKind::Internal, why))
            }
        }
    }

    async fn take_over(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<Option<Lease>> {
        Ok(match self.grant_and_publish(name, claimant, ttl, When::HeldByClaimant).await? {
            Grant::Acquired(lease) => Some(lease),
            Grant::Held(_) | Grant::Overtaken => None,
        })
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(token.0);
            match ttl {
                Some(ttl) => command.arg(millis_of(ttl)).arg(ttl.as_nanos().to_string()),
                None => command.arg("").arg(""),
            };
        };
        let shard = lease_shard(&self.shards, name);
        let reply = self.shards.run(shard, Traffic::Small, &RENEW, arguments).await?;
        let lease: Option<String> = read(reply)?;
        lease.as_deref().map(lease_of).transpose()
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        let Some(lowest) = self.end(name, token).await? else { return Ok(false) };
        // A shard that knows a higher token refuses the released one as well.
        announce(&self.shards, name, lowest).await?;
        Ok(true)
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str());
        };
        let shard = lease_shard(&self.shards, name);
        let reply = self.shards.run(shard, Traffic::Small, &GET, arguments).await?;
        let lease: Option<String> = read(reply)?;
        lease.as_deref().map(lease_of).transpose()
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        let from = after.map_or("-".to_owned(), |after| format!("({}", after.as_str()));
        let (shards, from) = (&*self.shards, from.as_bytes());
        // Each shard may hold the first `limit` of all, so each is asked for as many.
        let lists =
            (0..shards.count()).map(|shard| list(shards, shard, &LIST, from, limit, |_| ()));
        let mut found = Vec::new();
        for leases in join_all(lists).await {
            for (name, lease) in leases? {
                found.push((name_of(name)?, lease_of(&lease)?));
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        Ok(found)
    }
}

#[async_trait]
impl Upkeep for RedisLeases {
    /// Purges expired leases, and fences that are so old that no pass can meet them.
    async fn purge(&self) -> StoreResult<u64> {
        // A shard that fails for one must not keep the other from being purged.
        let leases = self.expiring.purge(&self.shards).await;
        let fences = forget(&self.shards).await;
        Ok(leases? + fences?)
    }

    fn status_part(&self) -> StatusPart {
        self.expiring.status_part()
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let status = ResourceStatus::counted("leases", sum(replies)?);
        Ok(status.limited(self.max_leases as u64).into())
    }
}
