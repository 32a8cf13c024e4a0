//! Locks on Redis: a sorted set of a shard's locks by their ends, and a hash of their release tokens.
//!
//! Invariant: which caller gets a key is decided in one script, at one time of Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::core::client::Traffic;
use super::core::expiry::Expiring;
use super::core::replies::{read, sum};
use super::core::script::scripts;
use super::core::shards::{Scatter, Shards};
use super::core::time::{millis_of, time_of};
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::locks::{LockKey, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{LockOutcome, LockSettings, LockStore, ResourceStatus, StoreResult};

/// The sorted set.
const LOCKS: &str = "locks";
/// The hash of the release tokens.
const LOCK_TOKENS: &str = "lock_tokens";

/// The most keys that one script claims: other commands wait for it.
const STEP: usize = 2_000;

scripts! {
    ACQUIRE(&[LOCKS, LOCK_TOKENS]) = "lua/acquire.lua";
    RELEASE(&[LOCKS, LOCK_TOKENS]) = "lua/release.lua";
    GET(&[LOCKS]) = "lua/get.lua";
}

/// The locks.
pub(super) struct RedisLocks {
    shards: Arc<Shards>,
    expiring: Expiring,
    max_locks: usize,
}

impl RedisLocks {
    pub(super) fn new(shards: Arc<Shards>, settings: LockSettings) -> Self {
        let expiring = Expiring::new(&[LOCKS, LOCK_TOKENS], Duration::ZERO);
        Self { shards, expiring, max_locks: settings.max_locks }
    }

    fn shard(&self, key: &LockKey) -> usize {
        self.shards.of(&[key.kind.as_str().as_bytes(), key.key.as_bytes()])
    }
}

/// Returns the name of a lock in the set. Kinds have no colon, so the first one ends the kind.
fn member(key: &LockKey) -> String {
    format!("{}:{}", key.kind.as_str(), key.key)
}

#[async_trait]
impl LockStore for RedisLocks {
    async fn acquire(
        &self,
        keys: Vec<LockKey>,
        ttl: Duration,
        token: ReleaseToken,
    ) -> StoreResult<Vec<LockOutcome>> {
        // A key that is named twice is acquired at its first position: each position is that of a key in `once`, and
        // whether it is the first.
        let mut known: HashMap<&LockKey, usize> = HashMap::with_capacity(keys.len());
        let mut once = Vec::with_capacity(keys.len());
        let mut positions = Vec::with_capacity(keys.len());
        for key in &keys {
            let next = once.len();
            let position = *known.entry(key).or_insert(next);
            positions.push((position, position == next));
            if position == next {
                once.push(key);
            }
        }
        let scatter = Scatter {
            script: &ACQUIRE,
            traffic: Traffic::Small,
            shard_of: |key: &&LockKey| self.shard(key),
            step: STEP,
            changes: true,
        };
        let acquired: Vec<(bool, String)> = self
            .shards
            .scatter(scatter, &once, |command, shard, keys| {
                command.arg(millis_of(ttl)).arg(self.shards.part_of(self.max_locks, shard));
                command.arg(token.to_string());
                keys.for_each(|key| {
                    command.arg(member(key));
                });
            })
            .await?;
        let outcomes = positions.into_iter().map(|(position, first)| {
            let (acquired, expires_at) = &acquired[position];
            Ok(LockOutcome { acquired: *acquired && first, expires_at: time_of(expires_at)? })
        });
        outcomes.collect()
    }

    async fn release(&self, key: &LockKey, token: Option<ReleaseToken>) -> StoreResult<bool> {
        let shard = self.shard(key);
        let reply = self.shards.run(shard, Traffic::Small, &RELEASE, |command| {
            command.arg(member(key)).arg(token.map_or(String::new(), String::from));
        });
        read(reply.await?)
    }

    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>> {
        let shard = self.shard(key);
        let reply = self.shards.run(shard, Traffic::Small, &GET, |command| {
            command.arg(member(key));
        });
        let end: Option<String> = read(reply.await?)?;
        end.as_deref().map(time_of).transpose()
    }
}

#[async_trait]
impl Upkeep for RedisLocks {
    async fn purge(&self) -> StoreResult<u64> {
        self.expiring.purge(&self.shards).await
    }

    fn status_part(&self) -> StatusPart {
        self.expiring.status_part()
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let status = ResourceStatus::counted("locks", sum(replies)?);
        Ok(status.limited(self.max_locks as u64).into())
    }
}
