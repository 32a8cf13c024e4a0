//! What the store as a whole does with the cache: it removes what is over, and counts.

use redis::Cmd;

use super::entries::{BY_GENERATION, script};
use super::fills;
use crate::store::StoreResult;
use crate::store::redis::generations::GENERATIONS;
use crate::store::redis::link::Weight;
use crate::store::redis::replies::read;
use crate::store::redis::script::Script;
use crate::store::redis::shards::Shards;

/// How much one script removes: what everybody else waits for.
const REMOVED_A_STEP: u64 = 200;

/// What is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct Counts {
    /// Keys with a generation above 0.
    pub(in crate::store::redis) generations: u64,
    /// Cached values.
    pub(in crate::store::redis) values: u64,
    /// What they take, in bytes, with their keys.
    pub(in crate::store::redis) bytes: u64,
}

/// Removes cached values and turns at filling whose time is over; gives how many.
///
/// # Errors
/// When the store fails; some may be removed then.
pub(in crate::store::redis) async fn collect(shards: &Shards) -> StoreResult<u64> {
    let script = script(include_str!("../lua/collect_cached.lua"));
    let each = (0..shards.count()).map(|shard| collect_in(shards, shard, &script));
    Ok(futures_util::future::try_join_all(each).await?.into_iter().sum())
}

async fn collect_in(shards: &Shards, shard: usize, script: &Script) -> StoreResult<u64> {
    let names = [&BY_GENERATION[..], &fills::KEYS].concat();
    let arguments = |command: &mut Cmd| {
        command.arg(REMOVED_A_STEP);
    };
    let mut removed = 0;
    loop {
        let run = shards.run(shard, Weight::Light, script, &names, arguments);
        let (values, turns): (u64, u64) = read(run.await?)?;
        removed += values + turns;
        if values.max(turns) < REMOVED_A_STEP {
            return Ok(removed);
        }
    }
}

/// Counts what is held over all shards.
///
/// # Errors
/// When the store fails.
pub(in crate::store::redis) async fn count(shards: &Shards) -> StoreResult<Counts> {
    let script = Script::new(include_str!("../lua/count_cached.lua"));
    let names = [GENERATIONS, "cache"];
    let mut sum = Counts::default();
    for answer in shards.run_on_all(Weight::Light, &script, &names, |_, _| {}).await? {
        let (generations, values, bytes): (u64, u64, u64) = read(answer)?;
        sum.generations += generations;
        sum.values += values;
        sum.bytes += bytes;
    }
    Ok(sum)
}
