//! Locks on Redis: one sorted set a shard, by the time at which they end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::garbage::Expiring;
use super::link::Weight;
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::model::locks::LockKey;
use crate::model::time::Timestamp;
use crate::store::{ErrorKind, LockOutcome, LockStore, StoreError, StoreResult};

/// The key of the sorted set.
const LOCKS: &str = "locks";

/// What becomes garbage.
const EXPIRING: Expiring = Expiring { ends: LOCKS, beside: &[] };

/// The locks.
pub(super) struct RedisLocks {
    shards: Arc<Shards>,
    acquire: Script,
    get: Script,
}

impl RedisLocks {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let acquire = Script::new(include_str!("lua/acquire_locks.lua"));
        let get = Script::new(include_str!("lua/get_lock.lua"));
        Self { shards, acquire, get }
    }

    fn shard(&self, key: &LockKey) -> usize {
        self.shards.of(&[key.kind.as_str().as_bytes(), key.key.as_bytes()])
    }
}

/// The kinds have no colon, so the first one ends the kind.
fn member(key: &LockKey) -> String {
    format!("{}:{}", key.kind.as_str(), key.key)
}

/// Returns a time to live in whole milliseconds, never shorter than it is.
pub(super) fn millis_of(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4)
}

/// Reads a time that a script gave in milliseconds.
///
/// # Errors
/// When it is none.
pub(super) fn time_of(millis: &str) -> StoreResult<Timestamp> {
    let time = millis.parse().ok().and_then(Timestamp::from_millis);
    time.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, format!("{millis:?} is no time")))
}

/// Removes locks that are over; gives how many.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn collect(shards: &Shards) -> StoreResult<u64> {
    EXPIRING.collect(shards, Duration::ZERO).await
}

/// Counts the locks that are held.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn count(shards: &Shards) -> StoreResult<u64> {
    EXPIRING.count(shards, Duration::ZERO).await
}

#[async_trait]
impl LockStore for RedisLocks {
    async fn acquire(&self, keys: Vec<LockKey>, ttl: Duration) -> StoreResult<Vec<LockOutcome>> {
        let ttl = millis_of(ttl);
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); self.shards.count()];
        for (index, key) in keys.iter().enumerate() {
            by_shard[self.shard(key)].push(index);
        }
        let keys = &keys;
        let groups = by_shard.into_iter().enumerate().filter(|(_, indexes)| !indexes.is_empty());
        let runs = groups.map(|(shard, indexes)| async move {
            let arguments = |command: &mut redis::Cmd| {
                command.arg(ttl);
                for index in &indexes {
                    command.arg(member(&keys[*index]));
                }
            };
            let run = self.shards.run(shard, Weight::Light, &self.acquire, &[LOCKS], arguments);
            let outcomes: Vec<(i64, String)> = read(run.await?)?;
            Ok::<_, StoreError>((indexes, outcomes))
        });
        let mut found = vec![None; keys.len()];
        for (indexes, outcomes) in futures_util::future::try_join_all(runs).await? {
            for (index, (acquired, expires_at)) in indexes.into_iter().zip(outcomes) {
                let expires_at = time_of(&expires_at)?;
                found[index] = Some(LockOutcome { acquired: acquired == 1, expires_at });
            }
        }
        let whole: Option<Vec<LockOutcome>> = found.into_iter().collect();
        whole.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, "an answer is too short"))
    }

    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>> {
        let arguments = |command: &mut redis::Cmd| {
            command.arg(member(key));
        };
        let shard = self.shard(key);
        let run = self.shards.run(shard, Weight::Light, &self.get, &[LOCKS], arguments);
        let held: Option<String> = read(run.await?)?;
        held.as_deref().map(time_of).transpose()
    }
}
