//! Checkpoints on Redis: a hash a shard, with their ages and their keys in order beside it. All of an
//! org lie in one shard.
//!
//! Invariant: keys are written so that their bytes order as org and repo do, and two of them are
//! never the same. The retention is no part of what is stored, so that a changed one holds for all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::Cmd;

use super::garbage::Expiring;
use super::leases::{FENCES, add_pass, pass};
use super::link::Weight;
use super::locks::{millis_of, time_of};
use super::replies::{number, read};
use super::script::Script;
use super::shards::Shards;
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::leases::Fence;
use crate::model::time::Timestamp;
use crate::store::{
    CheckpointOutcome, CheckpointStore, ErrorKind, Fenced, StoreError, StoreResult,
};

/// The key of the hash.
const CHECKPOINTS: &str = "checkpoints";
/// The key of the sorted set of the times at which they were written.
const AGES: &str = "checkpoint_ages";
/// The key of the keys in their order.
const KEYS: &str = "checkpoint_keys";

/// What becomes garbage.
const EXPIRING: Expiring = Expiring { ends: AGES, beside: &[CHECKPOINTS, KEYS] };

const NANOS_PER_MILLI: i64 = 1_000_000;

/// The checkpoints.
pub(super) struct RedisCheckpoints {
    shards: Arc<Shards>,
    /// How long after its write a checkpoint expires.
    retention: Duration,
    set: Script,
    get: Script,
    delete: Script,
    list: Script,
}

/// Puts a script together that reads checkpoints.
macro_rules! reading {
    ($file:literal) => {
        Script::new(concat!(include_str!("lua/checkpoints/standing.lua"), include_str!($file)))
    };
}

/// Puts a script together that writes checkpoints.
macro_rules! writing {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("lua/fence.lua"),
            include_str!("lua/checkpoints/standing.lua"),
            include_str!($file)
        ))
    };
}

impl RedisCheckpoints {
    pub(super) fn new(shards: Arc<Shards>, retention: Duration) -> Self {
        Self {
            shards,
            retention,
            set: writing!("lua/checkpoints/set.lua"),
            get: reading!("lua/checkpoints/get.lua"),
            delete: writing!("lua/checkpoints/delete.lua"),
            list: reading!("lua/checkpoints/list.lua"),
        }
    }

    fn shard(&self, org: &str) -> usize {
        self.shards.of(&[b"checkpoint", org.as_bytes()])
    }
}

/// What stands between org and repo. An org's own zero bytes are followed by [`ESCAPE`], so that no
/// org holds this, and it orders before everything that an org can go on with.
const BETWEEN: [u8; 2] = [0, 0];
const ESCAPE: u8 = 0xFF;

/// Returns what the keys of an org begin with.
fn prefix(org: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(org.len() + BETWEEN.len());
    for byte in org.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(ESCAPE);
        }
    }
    bytes.extend(BETWEEN);
    bytes
}

fn member(key: &CheckpointKey) -> Vec<u8> {
    let mut bytes = prefix(&key.org);
    bytes.extend(key.repo.bytes());
    bytes
}

/// Reads what [`member`] wrote; `None` when it did not write this.
fn key_of(member: &[u8]) -> Option<CheckpointKey> {
    let mut org = Vec::new();
    let mut rest = member;
    loop {
        match *rest {
            [0, ESCAPE, ref after @ ..] => {
                org.push(0);
                rest = after;
            }
            [0, 0, ref repo @ ..] => {
                let repo = String::from_utf8(repo.to_vec()).ok()?;
                return Some(CheckpointKey { org: String::from_utf8(org).ok()?, repo });
            }
            [0, ..] | [] => return None,
            [byte, ref after @ ..] => {
                org.push(byte);
                rest = after;
            }
        }
    }
}

/// Reads a checkpoint as the scripts write it.
fn checkpoint_of(record: &str) -> StoreResult<Checkpoint> {
    let wrong = || StoreError::new(ErrorKind::Corrupt, format!("{record:?} is no checkpoint"));
    let [millis, nanos, written] = record.split(' ').collect::<Vec<&str>>()[..] else {
        return Err(wrong());
    };
    // The first millisecond of all time is cut off, and its start can't be held.
    let whole = i128::from(number(millis)?) * i128::from(NANOS_PER_MILLI);
    let at = i64::try_from(whole + i128::from(number(nanos)?)).map_err(|_| wrong())?;
    Ok(Checkpoint { checkpoint: Timestamp::from_nanos(at), written_at: time_of(written)? })
}

/// Returns the first place behind `bytes` in the order of bytes, as ZRANGEBYLEX has it.
fn behind(bytes: &[u8]) -> Vec<u8> {
    [b"(", bytes].concat()
}

/// Removes checkpoints that are past the retention; gives how many.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn collect(shards: &Shards, retention: Duration) -> StoreResult<u64> {
    EXPIRING.collect(shards, retention).await
}

/// Counts the checkpoints that stand.
///
/// # Errors
/// When Redis can't be reached, does not answer in time, or refuses.
pub(super) async fn count(shards: &Shards, retention: Duration) -> StoreResult<u64> {
    EXPIRING.count(shards, retention).await
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
        let Fenced::Done(passed) = pass(&self.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let nanos = checkpoint.as_nanos();
        let arguments = |command: &mut Cmd| {
            add_pass(command, passed.as_ref());
            command.arg(millis_of(self.retention)).arg(member(&key));
            command.arg(nanos.div_euclid(NANOS_PER_MILLI)).arg(nanos.rem_euclid(NANOS_PER_MILLI));
            command.arg(u8::from(if_later));
        };
        let names = [CHECKPOINTS, AGES, KEYS, FENCES];
        let shard = self.shard(&key.org);
        let run = self.shards.run(shard, Weight::Light, &self.set, &names, arguments);
        let (outcome, stands): (String, String) = read(run.await?)?;
        Ok(match outcome.as_str() {
            "refused" => Fenced::Refused,
            "stored" => Fenced::Done(CheckpointOutcome::Stored(checkpoint_of(&stands)?)),
            _ => Fenced::Done(CheckpointOutcome::NotLater(checkpoint_of(&stands)?)),
        })
    }

    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>> {
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(member(key));
        };
        let shard = self.shard(&key.org);
        let run = self.shards.run(shard, Weight::Light, &self.get, &[CHECKPOINTS], arguments);
        let stands: Option<String> = read(run.await?)?;
        stands.as_deref().map(checkpoint_of).transpose()
    }

    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        let Fenced::Done(passed) = pass(&self.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let arguments = |command: &mut Cmd| {
            add_pass(command, passed.as_ref());
            command.arg(millis_of(self.retention)).arg(member(&key));
        };
        let names = [CHECKPOINTS, AGES, KEYS, FENCES];
        let shard = self.shard(&key.org);
        let run = self.shards.run(shard, Weight::Light, &self.delete, &names, arguments);
        let outcome: String = read(run.await?)?;
        Ok(match outcome.as_str() {
            "refused" => Fenced::Refused,
            outcome => Fenced::Done(outcome == "deleted"),
        })
    }

    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>> {
        let after = after.map(member);
        let first = org.map(prefix);
        let from = match (&after, &first) {
            (Some(after), Some(first)) if after < first => behind(first),
            (Some(after), _) => behind(after),
            (None, Some(first)) => behind(first),
            (None, None) => b"-".to_vec(),
        };
        // Behind all that begin with it: the last byte of what stands between, and one.
        let to = first.map_or(b"+".to_vec(), |mut first| {
            first.pop();
            first.push(1);
            behind(&first)
        });
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.retention)).arg(&from).arg(&to).arg(limit);
        };
        let arguments = &arguments;
        let shards = org.map_or(0..self.shards.count(), |org| {
            let shard = self.shard(org);
            shard..shard + 1
        });
        let runs = shards.map(|shard| {
            let names = &[CHECKPOINTS, KEYS];
            self.shards.run(shard, Weight::Light, &self.list, names, arguments)
        });
        let mut found = Vec::new();
        for answer in try_join_all(runs).await? {
            let checkpoints: Vec<(Vec<u8>, String)> = read(answer)?;
            for (member, record) in checkpoints {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn keys_read_back_and_order_as_their_bytes(
            a in ("[\0\u{1}ab\u{ff}]{1,4}", "[\0\u{1}ab\u{ff}]{1,4}"),
            b in ("[\0\u{1}ab\u{ff}]{1,4}", "[\0\u{1}ab\u{ff}]{1,4}"),
        ) {
            let [a, b] = [a, b].map(|(org, repo)| CheckpointKey { org, repo });
            prop_assert_eq!(key_of(&member(&a)), Some(a.clone()));
            prop_assert_eq!(member(&a).cmp(&member(&b)), a.cmp(&b));
            let within = member(&b).starts_with(&prefix(&a.org));
            prop_assert_eq!(within, a.org == b.org);
        }

        #[test]
        fn times_read_back_to_the_nanosecond(nanos: i64) {
            let (millis, rest) =
                (nanos.div_euclid(NANOS_PER_MILLI), nanos.rem_euclid(NANOS_PER_MILLI));
            let read = checkpoint_of(&format!("{millis} {rest} 5")).expect("valid");
            prop_assert_eq!(read.checkpoint.as_nanos(), nanos);
        }
    }

    #[test]
    fn what_is_damaged_is_an_error_and_no_guess() {
        for record in ["", "1 2", "1 2 3 4", "x 2 3", "1 2 x"] {
            assert!(checkpoint_of(record).is_err(), "{record:?}");
        }
        for member in [&b"org"[..], b"", b"org\0", b"org\0\x01repo", b"\xff\0\0repo"] {
            assert_eq!(key_of(member), None, "{member:?}");
        }
    }
}
