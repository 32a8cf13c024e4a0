//! What is over and still lies there: counted as gone at once, removed in small steps.
//!
//! Invariant: one script removes a bounded number, so that nobody waits behind it.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Cmd;

use super::link::Weight;
use super::locks::millis_of;
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::store::StoreResult;

/// How many one script removes.
const STEP: u64 = 1_000;

static COLLECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/collect.lua")));
static COUNT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/count.lua")));

/// Things with an end, or with a time from which their life is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiring {
    /// The key of a sorted set: the thing, and that time in milliseconds.
    pub(super) ends: &'static str,
    /// Keys of hashes and sorted sets that hold more of the same things under the same names.
    pub(super) beside: &'static [&'static str],
}

impl Expiring {
    /// Removes, in every shard, what was over `life` after its time; gives how much.
    ///
    /// # Errors
    /// When Redis can't be reached, does not answer in time, or refuses.
    pub(super) async fn collect(&self, shards: &Shards, life: Duration) -> StoreResult<u64> {
        let names: Vec<&str> = [self.ends].iter().chain(self.beside).copied().collect();
        let names = &names;
        let runs = (0..shards.count()).map(|shard| async move {
            let arguments = |command: &mut Cmd| {
                command.arg(millis_of(life)).arg(STEP);
            };
            let mut removed = 0;
            loop {
                let run = shards.run(shard, Weight::Light, &COLLECT, names, arguments);
                let step: u64 = read(run.await?)?;
                removed += step;
                if step < STEP {
                    return Ok(removed);
                }
            }
        });
        Ok(try_join_all(runs).await?.into_iter().sum())
    }

    /// Counts, in all shards, what is not over `life` after its time.
    ///
    /// # Errors
    /// When Redis can't be reached, does not answer in time, or refuses.
    pub(super) async fn count(&self, shards: &Shards, life: Duration) -> StoreResult<u64> {
        let arguments = |_, command: &mut Cmd| {
            command.arg(millis_of(life));
        };
        let mut count = 0;
        for answer in shards.run_on_all(Weight::Light, &COUNT, &[self.ends], arguments).await? {
            count += read::<u64>(answer)?;
        }
        Ok(count)
    }
}
