//! Lists of a shard in the order of their keys, in steps of bounded work.
//!
//! Expired entries keep their keys until they are purged, so a script may have to look at many before it finds
//! one that is live. Invariant: a script looks at [`STEP`] keys at most; the next one continues behind them.

use redis::Cmd;

use super::client::Traffic;
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::store::StoreResult;

/// The most keys that one script looks at.
const STEP: usize = 1_000;

/// Lists at most `limit` entries of a shard from `from` on, as `ZRANGEBYLEX` takes it. The script gets what `arguments`
/// adds, and then where to begin, the most entries, the most keys to look at. It returns where to continue, empty at
/// the end, and keys with their entries, flat.
///
/// # Errors
/// As [`Shards::run`].
pub(crate) async fn list(
    shards: &Shards,
    shard: usize,
    script: &Script,
    from: &[u8],
    limit: usize,
    arguments: impl Fn(&mut Cmd),
) -> StoreResult<Vec<(Vec<u8>, String)>> {
    let mut found: Vec<(Vec<u8>, String)> = Vec::new();
    let mut from = from.to_vec();
    while found.len() < limit {
        let all = |command: &mut Cmd| {
            arguments(command);
            command.arg(&from).arg(limit - found.len()).arg(STEP);
        };
        let reply = shards.run(shard, Traffic::Small, script, all).await?;
        let (next, entries): (Vec<u8>, Vec<(Vec<u8>, String)>) = read(reply)?;
        found.extend(entries);
        if next.is_empty() {
            break;
        }
        from = next;
    }
    Ok(found)
}
