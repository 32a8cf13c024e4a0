//! Leases on Redis: a hash a shard, with their ends and their names in order beside it.
//!
//! What fences other shards is in `fences`. Invariant: a lease is answered as acquired only after
//! every shard was told of its token.

mod fences;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

pub(super) use self::fences::{FENCES, Passed, add_pass, pass};
use self::fences::{forget, shard_of, tell};
use super::garbage::Expiring;
use super::link::Weight;
use super::locks::{millis_of, time_of};
use super::replies::{number, read};
use super::script::Script;
use super::shards::Shards;
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::store::{AcquireOutcome, ErrorKind, LeaseStore, StoreError, StoreResult};

/// The key of the hash.
const LEASES: &str = "leases";
/// The key of the sorted set of ends.
const ENDS: &str = "lease_ends";
/// The key of the names in their order.
const NAMES: &str = "lease_names";

/// How often a grant is repeated because a shard knew a higher token: a clock went back, or Redis
/// lost what it had answered.
const GRANTS: usize = 4;

/// What becomes garbage.
const EXPIRING: Expiring = Expiring { ends: ENDS, beside: &[LEASES, NAMES] };

/// The leases.
pub(super) struct RedisLeases {
    shards: Arc<Shards>,
    acquire: Script,
    renew: Script,
    release: Script,
    get: Script,
    list: Script,
}

/// Puts a script together that reads leases.
macro_rules! reading {
    ($file:literal) => {
        Script::new(concat!(include_str!("../lua/leases/held.lua"), include_str!($file)))
    };
}

/// Puts a script together that writes leases.
macro_rules! writing {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("../lua/leases/held.lua"),
            include_str!("../lua/leases/put.lua"),
            include_str!($file)
        ))
    };
}

/// How one attempt to take a lease ended in its shard.
enum Grant {
    Acquired(Lease),
    Held(Lease),
    /// The lease is not held any more under the token that it had to be held under.
    Overtaken,
}

impl RedisLeases {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        Self {
            shards,
            acquire: writing!("../lua/leases/acquire.lua"),
            renew: writing!("../lua/leases/renew.lua"),
            release: writing!("../lua/leases/release.lua"),
            get: reading!("../lua/leases/get.lua"),
            list: reading!("../lua/leases/list.lua"),
        }
    }

    /// Takes the lease in its shard, under a token above `above`, or only if it still is held under `under`.
    async fn grant(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
        above: FencingToken,
        under: Option<FencingToken>,
    ) -> StoreResult<Grant> {
        let under = under.map_or(String::new(), |token| token.0.to_string());
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(holder.as_str());
            command.arg(millis_of(ttl)).arg(ttl.as_nanos().to_string());
            command.arg(above.0).arg(&under);
        };
        let shard = shard_of(&self.shards, name);
        let names = [LEASES, ENDS, NAMES, FENCES];
        let run = self.shards.run(shard, Weight::Light, &self.acquire, &names, arguments);
        let (outcome, lease): (String, String) = read(run.await?)?;
        match outcome.as_str() {
            "acquired" => Ok(Grant::Acquired(lease_of(&lease)?)),
            "held" => Ok(Grant::Held(lease_of(&lease)?)),
            _ => Ok(Grant::Overtaken),
        }
    }

    /// Returns every shard of a lease that was granted, and gives it a higher token as long as one of
    /// them knows one.
    async fn publish(&self, name: &LeaseName, lease: &mut Lease) -> StoreResult<()> {
        for _ in 0..GRANTS {
            let Some(known) = tell(&self.shards, name, lease.token).await? else {
                return Ok(());
            };
            let under = Some(lease.token);
            match self.grant(name, &lease.holder, lease.ttl, known, under).await? {
                Grant::Acquired(again) => *lease = again,
                // It was acquired, and its holder acquired it again meanwhile, or it is over
                // already. Every shard knows a token at least as high, which is all that counts.
                Grant::Held(_) | Grant::Overtaken => return Ok(()),
            }
        }
        Err(StoreError::new(ErrorKind::Unavailable, "other shards know ever higher tokens"))
    }

    /// Ends the lease in its shard; gives the lowest token that is accepted from now on, if it was
    /// held under `token`.
    async fn end(
        &self,
        name: &LeaseName,
        token: FencingToken,
    ) -> StoreResult<Option<FencingToken>> {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(token.0);
        };
        let shard = shard_of(&self.shards, name);
        let names = [LEASES, ENDS, NAMES, FENCES];
        let run = self.shards.run(shard, Weight::Light, &self.release, &names, arguments);
        let lowest: Option<String> = read(run.await?)?;
        lowest.map(|lowest| number(&lowest).map(FencingToken)).transpose()
    }
}

/// Reads a lease as the scripts write it.
fn lease_of(record: &str) -> StoreResult<Lease> {
    let wrong = || StoreError::new(ErrorKind::Corrupt, format!("{record:?} is no lease"));
    let mut parts = record.splitn(5, ' ');
    let mut next = || parts.next().ok_or_else(wrong);
    let token = FencingToken(number(next()?)?);
    let expires_at = time_of(next()?)?;
    next()?;
    let nanos: u128 = next()?.parse().map_err(|_| wrong())?;
    let second = 1_000_000_000;
    let seconds = u64::try_from(nanos / second).map_err(|_| wrong())?;
    let rest = u32::try_from(nanos % second).map_err(|_| wrong())?;
    let holder = Holder::parse(next()?).map_err(|_| wrong())?;
    Ok(Lease { holder, token, expires_at, ttl: Duration::new(seconds, rest) })
}

fn name_of(name: String) -> StoreResult<LeaseName> {
    LeaseName::parse(name).map_err(|error| StoreError::new(ErrorKind::Corrupt, error.to_string()))
}

/// Removes leases that are over, and fences that are so old that nothing can meet them; gives how many.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn collect(shards: &Shards) -> StoreResult<u64> {
    Ok(EXPIRING.collect(shards, Duration::ZERO).await? + forget(shards).await?)
}

/// Counts the leases that are held.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn count(shards: &Shards) -> StoreResult<u64> {
    EXPIRING.count(shards, Duration::ZERO).await
}

#[async_trait]
impl LeaseStore for RedisLeases {
    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        let mut lease = match self.grant(name, holder, ttl, FencingToken(0), None).await? {
            Grant::Acquired(lease) => lease,
            Grant::Held(lease) => return Ok(AcquireOutcome::Held(lease)),
            Grant::Overtaken => {
                return Err(StoreError::new(ErrorKind::Internal, "nothing was to be overtaken"));
            }
        };
        if let Err(error) = self.publish(name, &mut lease).await {
            // Nobody was told that they hold it, so nobody would release it.
            drop(self.end(name, lease.token).await);
            return Err(error);
        }
        Ok(AcquireOutcome::Acquired(lease))
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
        let shard = shard_of(&self.shards, name);
        let names = [LEASES, ENDS, NAMES];
        let run = self.shards.run(shard, Weight::Light, &self.renew, &names, arguments);
        let lease: Option<String> = read(run.await?)?;
        lease.as_deref().map(lease_of).transpose()
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        let Some(lowest) = self.end(name, token).await? else { return Ok(false) };
        // A shard that knows a higher token refuses the released one as well.
        tell(&self.shards, name, lowest).await?;
        Ok(true)
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str());
        };
        let shard = shard_of(&self.shards, name);
        let run = self.shards.run(shard, Weight::Light, &self.get, &[LEASES], arguments);
        let lease: Option<String> = read(run.await?)?;
        lease.as_deref().map(lease_of).transpose()
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        let from = after.map_or("-".to_owned(), |after| format!("({}", after.as_str()));
        let arguments = |_, command: &mut Cmd| {
            command.arg(&from).arg(limit);
        };
        let names = [LEASES, NAMES];
        let answers = self.shards.run_on_all(Weight::Light, &self.list, &names, arguments);
        let mut found = Vec::new();
        for answer in answers.await? {
            let leases: Vec<(String, String)> = read(answer)?;
            for (name, lease) in leases {
                found.push((name_of(name)?, lease_of(&lease)?));
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        Ok(found)
    }
}
