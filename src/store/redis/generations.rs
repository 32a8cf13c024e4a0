//! Generations on Redis: a hash a shard, and its keys by the time of their last bump.
//!
//! A fence is the place of a bump in the order of all bumps of its key's shard. Places grow with
//! the clock, so that what is born after a loss begins behind all that was given before; and every
//! script first asks whether another server process serves the shard than before (`guard.lua`).
//! Invariant: a step touches a bounded number of keys, however many a call names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

use super::link::Weight;
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::model::generations::{Generation, GenerationFence, GenerationKey};
use crate::store::{ErrorKind, GenerationStore, StoreError, StoreResult};

/// The key of the hash.
pub(super) const GENERATIONS: &str = "generations";
/// The key of the sorted set by age.
const AGES: &str = "generation_ages";

/// How many keys one script takes: what everybody else waits for.
const KEYS_A_STEP: usize = 1_000;

/// The generations.
pub(super) struct RedisGenerations {
    shards: Arc<Shards>,
    snapshot: Script,
    bump: Script,
    forget: Script,
}

/// Returns the shard of a key, in which also lies what depends on it.
pub(super) fn shard_of(shards: &Shards, key: &GenerationKey) -> usize {
    shards.of(&[key.as_str().as_bytes()])
}

/// Makes a generation of what a script answers.
pub(super) fn generation(number: i64, fence: i64) -> Generation {
    Generation { number, fence: GenerationFence(fence) }
}

/// Keys of one shard, few enough for a step, by their places in the question.
type Step = (usize, Vec<usize>);

impl RedisGenerations {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let snapshot = Script::new(concat!(
            include_str!("lua/guard.lua"),
            include_str!("lua/generation.lua"),
            include_str!("lua/snapshot_generations.lua"),
        ));
        let bump = Script::new(concat!(
            include_str!("lua/guard.lua"),
            include_str!("lua/generation.lua"),
            include_str!("lua/bump_generations.lua"),
        ));
        let forget = Script::new(concat!(
            include_str!("lua/guard.lua"),
            include_str!("lua/generation.lua"),
            include_str!("lua/forget_generations.lua"),
        ));
        Self { shards, snapshot, bump, forget }
    }

    fn steps(&self, keys: &[GenerationKey]) -> Vec<Step> {
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); self.shards.count()];
        for (index, key) in keys.iter().enumerate() {
            by_shard[shard_of(&self.shards, key)].push(index);
        }
        let steps = by_shard.into_iter().enumerate().flat_map(|(shard, indexes)| {
            let steps: Vec<Step> =
                indexes.chunks(KEYS_A_STEP).map(|some| (shard, some.to_vec())).collect();
            steps
        });
        steps.collect()
    }

    /// Runs a script on each key; gives what it answers in the order of `keys`.
    async fn run_each(
        &self,
        script: &Script,
        names: &[&str],
        keys: &[GenerationKey],
    ) -> StoreResult<Vec<Generation>> {
        let runs = self.steps(keys).into_iter().map(|(shard, indexes)| async move {
            let arguments = |command: &mut Cmd| {
                for index in &indexes {
                    command.arg(keys[*index].as_str());
                }
            };
            let answer = self.shards.run(shard, Weight::Light, script, names, arguments).await?;
            let numbers: Vec<i64> = read(answer)?;
            Ok::<_, StoreError>((indexes, numbers))
        });
        let mut found = vec![None; keys.len()];
        for (indexes, numbers) in futures_util::future::try_join_all(runs).await? {
            for (index, pair) in indexes.into_iter().zip(numbers.chunks_exact(2)) {
                found[index] = Some(generation(pair[0], pair[1]));
            }
        }
        let whole: Option<Vec<Generation>> = found.into_iter().collect();
        whole.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, "an answer is too short"))
    }

    /// Forgets what is due in one shard, step by step.
    async fn forget_in(&self, shard: usize, retention_micros: i64) -> StoreResult<u64> {
        let arguments = |command: &mut Cmd| {
            command.arg(retention_micros).arg(KEYS_A_STEP);
        };
        let names = [GENERATIONS, AGES];
        let mut forgotten = 0;
        loop {
            let run = self.shards.run(shard, Weight::Light, &self.forget, &names, arguments);
            let step: u64 = read(run.await?)?;
            forgotten += step;
            if step < KEYS_A_STEP as u64 {
                return Ok(forgotten);
            }
        }
    }
}

#[async_trait]
impl GenerationStore for RedisGenerations {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        self.run_each(&self.snapshot, &[GENERATIONS], keys).await
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        let mut places: HashMap<&GenerationKey, usize> = HashMap::with_capacity(keys.len());
        let mut once = Vec::with_capacity(keys.len());
        let mut place_of = Vec::with_capacity(keys.len());
        for key in &keys {
            let place = *places.entry(key).or_insert_with(|| {
                once.push(key.clone());
                once.len() - 1
            });
            place_of.push(place);
        }
        let bumped = self.run_each(&self.bump, &[GENERATIONS, AGES], &once).await?;
        Ok(place_of.into_iter().map(|place| bumped[place]).collect())
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        let micros = i64::try_from(retention.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX / 4);
        let shards = (0..self.shards.count()).map(|shard| self.forget_in(shard, micros));
        Ok(futures_util::future::try_join_all(shards).await?.into_iter().sum())
    }
}
