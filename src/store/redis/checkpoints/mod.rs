//! Checkpoints on Redis: a hash a shard, with their keys by time of writing and in order beside it. All
//! checkpoints of an org lie in one shard.
//!
//! Invariant: the retention is not part of what is stored, so that a changed one holds for all.

mod record;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};

use self::record::{checkpoint_of, key_of, member, range};
use super::core::client::Traffic;
use super::core::expiry::Expiring;
use super::core::fences::{FENCES, Pass, add_pass, pass, run_fenced};
use super::core::listing::list;
use super::core::replies::{read, sum};
use super::core::script::{Script, scripts};
use super::core::shards::Shards;
use super::core::time::{NANOS_PER_MILLI, millis_of};
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::leases::Fence;
use crate::model::time::Timestamp;
use crate::store::{
    CheckpointOutcome, CheckpointSettings, CheckpointStore, ErrorKind, Fenced, ResourceStatus,
    StoreError, StoreResult,
};

/// The hash of checkpoints by key.
const CHECKPOINTS: &str = "checkpoints";
/// The sorted set of keys by the time of the last write.
const CHECKPOINT_WRITES: &str = "checkpoint_writes";
/// The sorted set of keys in their order.
const CHECKPOINT_KEYS: &str = "checkpoint_keys";

/// The keys of the scripts that write. `fences` is the last one.
const ALL_KEYS: &[&str] = &[CHECKPOINTS, CHECKPOINT_WRITES, CHECKPOINT_KEYS, FENCES];

scripts! {
    SET(ALL_KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/live.lua", "lua/set.lua";
    GET(&[CHECKPOINTS]) = "lua/live.lua", "lua/get.lua";
    DELETE(ALL_KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/live.lua", "lua/delete.lua";
    LIST(&[CHECKPOINTS, CHECKPOINT_KEYS]) = "lua/live.lua", "lua/list.lua";
}

/// The checkpoints.
pub(super) struct RedisCheckpoints {
    shards: Arc<Shards>,
    /// How long after its last write a checkpoint expires.
    retention: Duration,
    max_checkpoints: usize,
    expiring: Expiring,
}

impl RedisCheckpoints {
    pub(super) fn new(shards: Arc<Shards>, settings: CheckpointSettings) -> Self {
        let CheckpointSettings { retention, max_checkpoints } = settings;
        let keys = &[CHECKPOINT_WRITES, CHECKPOINTS, CHECKPOINT_KEYS];
        Self { shards, retention, max_checkpoints, expiring: Expiring::new(keys, retention) }
    }

    fn shard(&self, org: &str) -> usize {
        self.shards.of(&[b"checkpoint", org.as_bytes()])
    }

    /// Runs a script that writes, under a pass.
    async fn write(
        &self,
        shard: usize,
        script: &Script,
        pass: Option<Arc<Pass>>,
        arguments: impl Fn(&mut Cmd) + Copy,
    ) -> StoreResult<Fenced<Value>> {
        let run = |pass: Option<Arc<Pass>>| async move {
            let all = |command: &mut Cmd| {
                add_pass(command, shard, pass.as_deref());
                arguments(command);
            };
            self.shards.run(shard, Traffic::Small, script, all).await
        };
        run_fenced(&self.shards, shard, pass, run).await
    }
}

#[async_trait]
impl CheckpointStore for RedisCheckpoints {
    async fn set(
        &self,
        key: CheckpointKey,
        checkpoint: Timestamp,
        if_later: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<CheckpointOutcome>> {
        let Fenced::Done(pass) = pass(&self.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let nanos = checkpoint.as_nanos();
        let shard = self.shard(&key.org);
        let most = self.shards.part_of(self.max_checkpoints, shard);
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(member(&key));
            command.arg(nanos.div_euclid(NANOS_PER_MILLI)).arg(nanos.rem_euclid(NANOS_PER_MILLI));
            command.arg(u8::from(if_later)).arg(most);
        };
        let Fenced::Done(reply) = self.write(shard, &SET, pass, arguments).await? else {
            return Ok(Fenced::Refused);
        };
        let (outcome, stored): (String, String) = read(reply)?;
        Ok(Fenced::Done(match outcome.as_str() {
            "stored" => CheckpointOutcome::Stored(checkpoint_of(&stored)?),
            _ => CheckpointOutcome::NotLater(checkpoint_of(&stored)?),
        }))
    }

    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>> {
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(member(key));
        };
        let shard = self.shard(&key.org);
        let reply = self.shards.run(shard, Traffic::Small, &GET, arguments).await?;
        let stored: Option<String> = read(reply)?;
        stored.as_deref().map(checkpoint_of).transpose()
    }

    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        let Fenced::Done(pass) = pass(&self.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(member(&key));
        };
        let shard = self.shard(&key.org);
        match self.write(shard, &DELETE, pass, arguments).await? {
            Fenced::Done(reply) => Ok(Fenced::Done(read(reply)?)),
            Fenced::Refused => Ok(Fenced::Refused),
        }
    }

    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>> {
        let (from, to) = range(org, after);
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(&to);
        };
        let shards = org.map_or(0..self.shards.count(), |org| {
            let shard = self.shard(org);
            shard..shard + 1
        });
        let mut found = Vec::new();
        let lists = shards.map(|shard| list(&self.shards, shard, &LIST, &from, limit, arguments));
        for checkpoints in join_all(lists).await {
            for (member, record) in checkpoints? {
                let key = key_of(&member).ok_or_else(|| {
                    StoreError::new(ErrorKind::Corrupt, "a checkpoint's key can't be read")
                })?;
                found.push((key, checkpoint_of(&record)?));
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        Ok(found)
    }
}

#[async_trait]
impl Upkeep for RedisCheckpoints {
    async fn purge(&self) -> StoreResult<u64> {
        self.expiring.purge(&self.shards).await
    }

    fn status_part(&self) -> StatusPart {
        self.expiring.status_part()
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let status = ResourceStatus::counted("checkpoints", sum(replies)?);
        Ok(status.limited(self.max_checkpoints as u64).into())
    }
}
