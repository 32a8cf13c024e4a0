//! Granting and ending a lease in its own shard, and announcing a grant to the others.
//!
//! Invariant: the token of a grant is above all tokens of the lease that any shard knew when the grant
//! was announced.

use std::time::Duration;

use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::fences::{FENCES, LEASES, announce, lease_shard};
use super::super::core::replies::{number, read};
use super::super::core::script::scripts;
use super::super::core::time::millis_of;
use super::RedisLeases;
use super::record::lease_of;
use crate::model::hex;
use crate::model::leases::{Claimant, FencingToken, Lease, LeaseName};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The sorted set of leases by their ends.
pub(super) const LEASE_ENDS: &str = "lease_ends";
/// The sorted set of leases in the order of their names.
pub(super) const LEASE_NAMES: &str = "lease_names";

/// The keys of the scripts that issue tokens. `fences` is the last one.
const KEYS: &[&str] = &[LEASES, LEASE_ENDS, LEASE_NAMES, FENCES];

scripts! {
    ACQUIRE(KEYS) =
        "../core/lua/lease.lua", "lua/write.lua", "lua/next_token.lua", "lua/acquire.lua";
    RELEASE(KEYS) =
        "../core/lua/lease.lua", "lua/write.lua", "lua/next_token.lua", "lua/release.lua";
}

/// How often a grant is repeated because a shard knew a higher token: a clock went back, or Redis
/// lost what it had acknowledged.
const GRANTS: usize = 4;

/// How one attempt to take a lease ended in its shard.
pub(super) enum Grant {
    /// The caller holds the lease.
    Acquired(Lease),
    /// It is held.
    Held(Lease),
    /// The lease is not held as it had to be: under that token, or by the claimant that takes it over.
    Overtaken,
}

/// When a lease is granted.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// It is free.
    Free,
    /// The same claimant holds it.
    HeldByClaimant,
    /// It is held under this token; the new one is above the other.
    HeldUnder(FencingToken, FencingToken),
}

impl RedisLeases {
    /// Grants the lease in its shard.
    pub(super) async fn grant(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
        when: When,
    ) -> StoreResult<Grant> {
        let (above, under) = match when {
            When::Free | When::HeldByClaimant => (0, String::new()),
            When::HeldUnder(token, above) => (above.0, token.0.to_string()),
        };
        let takeover = u8::from(matches!(when, When::HeldByClaimant));
        let access = format!("-{}", hex::encode(claimant.access.as_bytes()));
        let shard = lease_shard(&self.shards, name);
        let most = self.shards.part_of(self.max_leases, shard);
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(claimant.holder.as_str());
            command.arg(millis_of(ttl)).arg(ttl.as_nanos().to_string());
            command.arg(above).arg(&under).arg(&access).arg(takeover).arg(most);
        };
        let reply = self.shards.run(shard, Traffic::Small, &ACQUIRE, arguments).await?;
        let (outcome, lease): (String, String) = read(reply)?;
        match outcome.as_str() {
            "acquired" => Ok(Grant::Acquired(lease_of(&lease)?)),
            "held" => Ok(Grant::Held(lease_of(&lease)?)),
            _ => Ok(Grant::Overtaken),
        }
    }

    /// Grants the lease, and announces it.
    pub(super) async fn grant_and_publish(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
        when: When,
    ) -> StoreResult<Grant> {
        let mut lease = match self.grant(name, claimant, ttl, when).await? {
            Grant::Acquired(lease) => lease,
            other => return Ok(other),
        };
        if let Err(error) = self.publish(name, claimant, &mut lease).await {
            // The caller gets an error and will not release the lease, so the grant is taken back.
            // Where that fails as well, the lease ends by its ttl.
            drop(self.end(name, lease.token).await);
            return Err(error);
        }
        Ok(Grant::Acquired(lease))
    }

    /// Announces a granted lease to every shard. As long as one of them knows a higher token, the lease
    /// is granted again above that one, and announced again.
    async fn publish(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        lease: &mut Lease,
    ) -> StoreResult<()> {
        for _ in 0..GRANTS {
            let Some(known) = announce(&self.shards, name, lease.token).await? else {
                // Every shard knows this token now, and no lower one may be the last that it knows later.
                for shard in 0..self.shards.count() {
                    self.shards.seen(shard).note_token(lease.token.0);
                }
                return Ok(());
            };
            let when = When::HeldUnder(lease.token, known);
            match self.grant(name, claimant, lease.ttl, when).await? {
                Grant::Acquired(again) => *lease = again,
                // This grant was valid, and meanwhile its holder acquired the lease again, or it
                // expired. Every shard knows a token at least as high, which is what the
                // invariant of fences asks for.
                Grant::Held(_) | Grant::Overtaken => return Ok(()),
            }
        }
        let why = "other shards keep knowing higher fencing tokens";
        Err(StoreError::new(ErrorKind::Unavailable, why))
    }

    /// Ends the lease in its shard; returns the lowest token that is accepted from now on, if it was
    /// held under `token`.
    pub(super) async fn end(
        &self,
        name: &LeaseName,
        token: FencingToken,
    ) -> StoreResult<Option<FencingToken>> {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(token.0);
        };
        let shard = lease_shard(&self.shards, name);
        let reply = self.shards.run(shard, Traffic::Small, &RELEASE, arguments).await?;
        let lowest: Option<String> = read(reply)?;
        lowest.map(|lowest| number(&lowest).map(FencingToken)).transpose()
    }
}
