//! Generations on Redis: a hash a shard, and its keys by the time of their last bump.
//!
//! A fence is the sequence number of a bump in the order of all bumps of its key's shard. These numbers
//! grow with the clock, so that a shard that lost data starts above all that were returned before; and
//! every script first checks whether another server process serves the shard (`epoch_check.lua`).
//! Invariant: a step touches a bounded number of keys, however many a call names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::core::client::Traffic;
use super::core::generation::{GENERATIONS, generation_of, shard_of};
use super::core::replies::sum;
use super::core::script::{Script, scripts};
use super::core::shards::{Scatter, Shards};
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::generations::{Generation, GenerationKey};
use crate::store::{GenerationSettings, GenerationStore, ResourceStatus, StoreResult};

/// The sorted set of keys by the time of their last bump.
const GENERATION_BUMPS: &str = "generation_bumps";

/// The most keys that one script takes: other commands wait for it.
const STEP: usize = 1_000;

scripts! {
    SNAPSHOT(&[GENERATIONS]) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/snapshot.lua";
    BUMP(&[GENERATIONS, GENERATION_BUMPS]) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/bump.lua";
    FORGET(&[GENERATIONS, GENERATION_BUMPS]) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/forget.lua";
}

/// The generations.
pub(super) struct RedisGenerations {
    shards: Arc<Shards>,
    max_generations: usize,
}

impl RedisGenerations {
    pub(super) fn new(shards: Arc<Shards>, settings: GenerationSettings) -> Self {
        Self { shards, max_generations: settings.max_generations }
    }

    /// Runs a script on all keys, which it `changes` or only reads; returns their generations in the order of `keys`.
    async fn run_each(
        &self,
        script: &Script,
        changes: bool,
        keys: &[GenerationKey],
    ) -> StoreResult<Vec<Generation>> {
        let scatter = Scatter {
            script,
            traffic: Traffic::Small,
            shard_of: |key: &GenerationKey| shard_of(&self.shards, key),
            step: STEP,
            changes,
        };
        let generations: Vec<(i64, i64)> = self
            .shards
            .scatter(scatter, keys, |command, shard, keys| {
                if changes {
                    command.arg(self.shards.part_of(self.max_generations, shard));
                }
                keys.for_each(|key| {
                    command.arg(key.as_str());
                });
            })
            .await?;
        for (key, (_, fence)) in keys.iter().zip(&generations) {
            // No fence is above the last bump of its shard.
            self.shards.seen(shard_of(&self.shards, key)).note_bump(*fence);
        }
        Ok(generations.into_iter().map(generation_of).collect())
    }
}

#[async_trait]
impl GenerationStore for RedisGenerations {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        self.run_each(&SNAPSHOT, false, keys).await
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        // A key that is named twice is raised once: `positions` maps each key of the call to `once`.
        let mut known: HashMap<&GenerationKey, usize> = HashMap::with_capacity(keys.len());
        let mut once = Vec::with_capacity(keys.len());
        let mut positions = Vec::with_capacity(keys.len());
        for key in &keys {
            let position = *known.entry(key).or_insert_with(|| {
                once.push(key.clone());
                once.len() - 1
            });
            positions.push(position);
        }
        let bumped = self.run_each(&BUMP, true, &once).await?;
        Ok(positions.into_iter().map(|position| bumped[position]).collect())
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        let micros = i64::try_from(retention.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX / 4);
        let arguments = |command: &mut Cmd| {
            command.arg(micros).arg(STEP);
        };
        self.shards.run_until_done(&FORGET, STEP as u64, arguments).await
    }
}

#[async_trait]
impl Upkeep for RedisGenerations {
    /// Generations don't expire: [`GenerationStore::cleanup`] removes them.
    async fn purge(&self) -> StoreResult<u64> {
        Ok(0)
    }

    fn status_part(&self) -> StatusPart {
        let text = &[include_str!("lua/count.lua")];
        StatusPart { keys: &[GENERATIONS], text, arguments: Vec::new() }
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let status = ResourceStatus::counted("generations", sum(replies)?);
        Ok(status.limited(self.max_generations as u64).into())
    }
}
