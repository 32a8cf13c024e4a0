//! Fences: each shard remembers, for each lease, the lowest fencing token that may still write in it.
//!
//! A lease lies in one shard, the data that it protects in others. So a fenced write has two steps: the
//! lease's shard issues a pass, and the script that writes compares the pass with the fences of its own
//! shard. Taking or releasing a lease announces the new token to all shards first. A shard that may have lost
//! an announcement is in a new epoch, and takes no pass from before it. Invariant: once an acquisition or a release
//! was acknowledged, no write under an earlier token happens in any shard, as long as the lease's shard knows it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::client::Traffic;
use super::replies::{malformed, number, read};
use super::script::scripts;
use super::seen::SeenEpoch;
use super::shards::Shards;
use crate::model::leases::{Fence, FencingToken, LeaseName};
use crate::store::{ErrorKind, Fenced, StoreError, StoreResult};

/// The hash of leases by their name, in the lease's own shard.
pub(crate) const LEASES: &str = "leases";

/// The sorted set of the lowest tokens: the last key of each script that includes `lua/fence.lua`.
pub(crate) const FENCES: &str = "fences";

scripts! {
    ISSUE_PASS(&[LEASES]) = "lua/lease.lua", "lua/issue_pass.lua";
    ANNOUNCE_TOKEN(&[FENCES]) = "lua/announce_token.lua";
    FORGET_FENCES(&[FENCES]) = "lua/forget_fences.lua";
}

/// How long a pass is valid at most. A process that slept longer between the two steps is refused, so
/// shards need not remember fences for ever.
const PASS: Duration = Duration::from_secs(60);

/// How long shards remember a fence: far longer than any pass is valid, however their clocks differ.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// The most fences that one script forgets.
const STEP: u64 = 1_000;

/// How often a write is sent, with a new pass each time, while its shard starts new epochs.
const ATTEMPTS: usize = 4;

/// The proof that a fence held, which lets a write through for a short time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pass {
    name: LeaseName,
    token: FencingToken,
    /// When the pass expires, in milliseconds since 1970.
    ends_ms: i64,
    /// The epoch of each shard that was known before the pass was issued; empty where none was.
    epochs: Vec<String>,
}

/// Gets a pass for a write: `Refused` when the lease is not held under the fence's token now, and no pass
/// for a write without a fence.
///
/// # Errors
/// As [`Shards::run`].
pub(crate) async fn pass(
    shards: &Shards,
    fence: Option<&Fence>,
) -> StoreResult<Fenced<Option<Arc<Pass>>>> {
    let Some(fence) = fence else { return Ok(Fenced::Done(None)) };
    // Before the pass is issued: an acquisition after that is announced to these epochs, or to later ones.
    let epochs = (0..shards.count()).map(|shard| shards.seen(shard).epoch()).collect();
    let arguments = |command: &mut Cmd| {
        command.arg(fence.lease.as_str()).arg(fence.token.0).arg(PASS.as_millis().to_string());
    };
    let shard = lease_shard(shards, &fence.lease);
    let reply = shards.run(shard, Traffic::Small, &ISSUE_PASS, arguments).await?;
    let Some(ends) = read::<Option<String>>(reply)? else { return Ok(Fenced::Refused) };
    let (name, token) = (fence.lease.clone(), fence.token);
    Ok(Fenced::Done(Some(Arc::new(Pass { name, token, ends_ms: number(&ends)?, epochs }))))
}

/// Runs a script that includes `lua/fence.lua` on a shard: `run` sends it with the arguments of [`add_pass`]. Where the
/// shard has begun a new epoch since the pass was issued, the script did nothing, and is run again with a new pass.
///
/// # Errors
/// As `run` and [`pass`].
pub(crate) async fn run_fenced<F>(
    shards: &Shards,
    shard: usize,
    pass: Option<Arc<Pass>>,
    run: impl Fn(Option<Arc<Pass>>) -> F,
) -> StoreResult<Fenced<Value>>
where
    F: Future<Output = StoreResult<Value>>,
{
    let mut current = pass;
    for _ in 0..ATTEMPTS {
        let reply = run(current.clone()).await?;
        let (Some(pass), Value::SimpleString(refusal)) = (&current, &reply) else {
            return Ok(Fenced::Done(reply));
        };
        if refusal == "REFUSED" {
            return Ok(Fenced::Refused);
        }
        let parts = refusal.strip_prefix("OUTDATED ").and_then(|parts| parts.split_once(' '));
        let (epoch, started) = parts.ok_or_else(|| malformed(refusal))?;
        let started = number(started)?;
        shards.seen(shard).note_epoch(SeenEpoch { epoch: epoch.to_owned(), started, seq: 0 });
        let fence = Fence { lease: pass.name.clone(), token: pass.token };
        match self::pass(shards, Some(&fence)).await? {
            Fenced::Done(renewed) => current = renewed,
            Fenced::Refused => return Ok(Fenced::Refused),
        }
    }
    let why = "a shard keeps starting new epochs: several redis processes take turns";
    Err(StoreError::new(ErrorKind::Unavailable, why))
}

/// Adds the three arguments that `fence_refusal` takes: lease, token, end of the pass and epoch of the shard. An empty
/// lease stands for a write without a fence.
pub(crate) fn add_pass(command: &mut Cmd, shard: usize, pass: Option<&Pass>) {
    match pass {
        Some(pass) => {
            let end_and_epoch = format!("{} {}", pass.ends_ms, pass.epochs[shard]);
            command.arg(pass.name.as_str()).arg(pass.token.0).arg(end_and_epoch)
        }
        None => command.arg("").arg("").arg(""),
    };
}

/// Returns the shard of a lease.
pub(crate) fn lease_shard(shards: &Shards, name: &LeaseName) -> usize {
    shards.of(&[b"lease", name.as_str().as_bytes()])
}

/// Announces to every shard but the lease's own, which knows, that it must accept no token below
/// `lowest` from now on. Returns the highest token that any of them knew, if that is higher.
///
/// # Errors
/// When it failed for any shard.
pub(crate) async fn announce(
    shards: &Shards,
    name: &LeaseName,
    lowest: FencingToken,
) -> StoreResult<Option<FencingToken>> {
    let own = lease_shard(shards, name);
    let others = (0..shards.count()).filter(|shard| *shard != own);
    let announced = others.map(|shard| async move {
        let arguments = |command: &mut Cmd| {
            command.arg(name.as_str()).arg(lowest.0);
        };
        let reply = shards.run(shard, Traffic::Small, &ANNOUNCE_TOKEN, arguments).await?;
        let known: Option<String> = read(reply)?;
        known.map(|known| number(&known).map(FencingToken)).transpose()
    });
    let known = join_all(announced).await.into_iter().collect::<StoreResult<Vec<_>>>()?;
    Ok(known.into_iter().flatten().max())
}

/// Makes every shard forget the fences that are so old that no pass can meet them; returns how many.
///
/// # Errors
/// As [`Shards::run`].
pub(crate) async fn forget(shards: &Shards) -> StoreResult<u64> {
    let arguments = |command: &mut Cmd| {
        command.arg(MEMORY.as_micros().to_string()).arg(STEP);
    };
    shards.run_until_done(&FORGET_FENCES, STEP, arguments).await
}
