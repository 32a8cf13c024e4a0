//! Locks on Redis: a shard's locks by their ends and by their names, and a hash of their release tokens.
//!
//! Invariant: which caller gets a key is decided in one script, at one time of Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::core::client::Traffic;
use super::core::expiry::Expiring;
use super::core::listing::list;
use super::core::replies::{read, sum};
use super::core::script::scripts;
use super::core::shards::{Scatter, Shards};
use super::core::time::{millis_of, time_of};
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{
    ErrorKind, LockOutcome, LockSettings, LockStore, ResourceStatus, StoreError, StoreResult,
};

/// The sorted set of the locks by their ends.
const LOCKS: &str = "locks";
/// The hash of the release tokens.
const LOCK_TOKENS: &str = "lock_tokens";
/// The sorted set of the locks in the order of their names.
const LOCK_NAMES: &str = "lock_names";

/// The most keys that one script claims: other commands wait for it.
const STEP: usize = 1_400;

scripts! {
    ACQUIRE(&[LOCKS, LOCK_TOKENS, LOCK_NAMES]) = "lua/acquire.lua";
    RELEASE(&[LOCKS, LOCK_TOKENS, LOCK_NAMES]) = "lua/release.lua";
    GET(&[LOCKS]) = "lua/get.lua";
    LIST(&[LOCKS, LOCK_NAMES]) = "lua/list.lua";
}

/// The locks.
pub(super) struct RedisLocks {
    shards: Arc<Shards>,
    expiring: Expiring,
    max_locks: usize,
}

impl RedisLocks {
    pub(super) fn new(shards: Arc<Shards>, settings: LockSettings) -> Self {
        let expiring = Expiring::new(&[LOCKS, LOCK_TOKENS, LOCK_NAMES], Duration::ZERO);
        Self { shards, expiring, max_locks: settings.max_locks }
    }

    fn shard(&self, key: &LockKey) -> usize {
        self.shards.of(&[key.kind.as_str().as_bytes(), key.key.as_bytes()])
    }
}

/// Returns the name of a lock in the sets. Kinds have no colon, so the first one ends the kind.
fn member(key: &LockKey) -> String {
    format!("{}:{}", key.kind.as_str(), key.key)
}

/// Returns where the names of the locks of a kind after the key `after` begin and end, as `ZRANGEBYLEX` takes it.
fn range(kind: LockKind, after: Option<&str>) -> (String, String) {
    let kind = kind.as_str();
    let from = after.map_or_else(|| format!("[{kind}:"), |after| format!("({kind}:{after}"));
    // A semicolon is what follows the colon that ends the kind.
    (from, format!("({kind};"))
}

/// Reads the name of a lock of `kind`.
fn key_of(kind: LockKind, member: Vec<u8>) -> StoreResult<LockKey> {
    String::from_utf8(member)
        .ok()
        .and_then(|member| {
            let key = member.strip_prefix(kind.as_str())?.strip_prefix(':')?;
            LockKey::parse(kind, key).ok()
        })
        .ok_or_else(|| StoreError::new(ErrorKind::Corrupt, "a lock's key can't be read"))
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

    async fn list(
        &self,
        kind: LockKind,
        after: Option<&str>,
        limit: usize,
    ) -> StoreResult<Vec<(LockKey, Timestamp)>> {
        let (from, to) = range(kind, after);
        let (shards, from) = (&*self.shards, from.as_bytes());
        let until = |command: &mut Cmd| {
            command.arg(&to);
        };
        // Each shard may hold the first `limit` of all, so each is asked for as many.
        let lists = (0..shards.count()).map(|shard| list(shards, shard, &LIST, from, limit, until));
        let mut found = Vec::new();
        for locks in join_all(lists).await {
            for (member, end) in locks? {
                found.push((key_of(kind, member)?, time_of(&end)?));
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        Ok(found)
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
