//! Fences: every shard knows of each lease the lowest token that may still write in it.
//!
//! A lease lies in one shard, what it guards in others. So a fenced write has two steps: its lease's
//! shard gives it a pass, and the script that writes asks its own shard's memory of fences. Whoever
//! takes a lease tells every shard before it answers. Invariant: once an acquire or a release has
//! been answered, no write under an earlier token happens in any shard.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Cmd;

use crate::model::leases::{Fence, FencingToken, LeaseName};
use crate::store::redis::link::Weight;
use crate::store::redis::replies::{number, read};
use crate::store::redis::script::Script;
use crate::store::redis::shards::Shards;
use crate::store::{Fenced, StoreResult};

/// The key of the memory, the last one of every script that begins with `lua/fence.lua`.
pub(in crate::store::redis) const FENCES: &str = "fences";

/// How long a pass holds at most. A process that slept longer on its way from the lease's shard to
/// the one that it writes in is refused, so that shards need not remember fences for ever.
const PASS: Duration = Duration::from_secs(60);

/// How long shards remember a fence: far longer than any pass holds, whatever their clocks.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

static CHECK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("../lua/leases/held.lua"),
        include_str!("../lua/leases/check.lua")
    ))
});
static TELL: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../lua/leases/tell.lua")));
static FORGET: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../lua/leases/forget.lua")));

/// What lets a write pass for a short time: its lease was held under its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) struct Passed {
    name: LeaseName,
    token: FencingToken,
    /// When the pass is over, in milliseconds since 1970.
    ends_ms: i64,
}

/// Asks the lease's shard for a pass; `None` when the lease is not held under the fence's token now.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
async fn check(shards: &Shards, fence: &Fence) -> StoreResult<Option<Passed>> {
    let arguments = |command: &mut Cmd| {
        command.arg(fence.lease.as_str()).arg(fence.token.0).arg(PASS.as_millis().to_string());
    };
    let shard = shard_of(shards, &fence.lease);
    let run = shards.run(shard, Weight::Light, &CHECK, &[super::LEASES], arguments);
    let ends: Option<String> = read(run.await?)?;
    let Some(ends) = ends else { return Ok(None) };
    Ok(Some(Passed { name: fence.lease.clone(), token: fence.token, ends_ms: number(&ends)? }))
}

/// Does as [`check`] where there is a fence: `Refused`, or the pass of a write that has a fence.
///
/// # Errors
/// As [`check`].
pub(in crate::store::redis) async fn pass(
    shards: &Shards,
    fence: Option<&Fence>,
) -> StoreResult<Fenced<Option<Passed>>> {
    let Some(fence) = fence else { return Ok(Fenced::Done(None)) };
    let passed = check(shards, fence).await?;
    Ok(passed.map_or(Fenced::Refused, |passed| Fenced::Done(Some(passed))))
}

/// Adds the three arguments that `fence_refused` takes: the lease, the token, the end of the pass.
pub(in crate::store::redis) fn add_pass(command: &mut Cmd, passed: Option<&Passed>) {
    match passed {
        Some(passed) => {
            command.arg(passed.name.as_str()).arg(passed.token.0).arg(passed.ends_ms);
        }
        None => {
            command.arg("").arg("").arg("");
        }
    }
}

/// Returns the shard of a lease.
pub(super) fn shard_of(shards: &Shards, name: &LeaseName) -> usize {
    shards.of(&[b"lease", name.as_str().as_bytes()])
}

/// Returns every shard but the lease's own, which knows: no token below `lowest` is accepted from now
/// on. Gives the highest token that any of them knew, if that is higher.
///
/// # Errors
/// When any shard was not told.
pub(super) async fn tell(
    shards: &Shards,
    name: &LeaseName,
    lowest: FencingToken,
) -> StoreResult<Option<FencingToken>> {
    let own = shard_of(shards, name);
    let others = (0..shards.count()).filter(|shard| *shard != own);
    let told = others.map(|shard| async move {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(lowest.0);
        };
        let run = shards.run(shard, Weight::Light, &TELL, &[FENCES], arguments);
        let known: Option<String> = read(run.await?)?;
        known.map(|known| number(&known).map(FencingToken)).transpose()
    });
    Ok(try_join_all(told).await?.into_iter().flatten().max())
}

/// Lets every shard forget fences that are so old that no pass can meet them; gives how many.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn forget(shards: &Shards) -> StoreResult<u64> {
    let arguments = |_, command: &mut Cmd| {
        command.arg(MEMORY.as_micros().to_string());
    };
    let mut forgotten = 0;
    for answer in shards.run_on_all(Weight::Light, &FORGET, &[FENCES], arguments).await? {
        forgotten += read::<u64>(answer)?;
    }
    Ok(forgotten)
}
