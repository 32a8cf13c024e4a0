//! Reads the status of every shard with one script for each: what all resources report, and the check of the epoch.
//!
//! It knows a resource by its part of the script only. Invariant: one call for each shard, however many resources there
//! are, unless a part says that it has to run again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::client::Traffic;
use super::epoch_check::EpochCheck;
use super::replies::{malformed, read};
use super::script::Script;
use super::shards::Shards;
use super::upkeep::StatusPart;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The most times that the script is run on a shard: each time purges what one script may.
const MAX_ROUNDS: usize = 1_000_000;

/// The reader of the status of all shards.
pub(crate) struct StatusReader {
    shards: Arc<Shards>,
    script: Script,
    arguments: Vec<String>,
    parts: usize,
}

impl StatusReader {
    /// Makes one script of the parts of all resources.
    pub(crate) fn new(shards: Arc<Shards>, parts: &[StatusPart]) -> Self {
        let keys: Vec<&'static str> = parts.iter().flat_map(|part| part.keys).copied().collect();
        let epoch_check = include_str!("lua/epoch_check.lua");
        Self {
            shards,
            script: Script::new("status", &keys, &[epoch_check, &text_of(parts)]),
            arguments: parts.iter().flat_map(|part| part.arguments.clone()).collect(),
            parts: parts.len(),
        }
    }

    /// Reads all shards, and checks their epochs; returns for each part the replies of all shards.
    ///
    /// # Errors
    /// As [`Shards::run`], if it fails for any of them.
    pub(crate) async fn read(&self, epoch_check: &EpochCheck) -> StoreResult<Vec<Vec<Value>>> {
        let started = Instant::now();
        let reads = (0..self.shards.count()).map(|shard| self.read_shard(shard, epoch_check));
        // All are waited for, so that what is due expires in every shard that can be reached.
        let replies = join_all(reads).await.into_iter().collect::<StoreResult<Vec<_>>>()?;
        let mut by_part = vec![Vec::with_capacity(replies.len()); self.parts];
        let mut epochs = Vec::with_capacity(replies.len());
        for (epoch, of_shard) in replies {
            epochs.push(epoch);
            for (part, reply) in by_part.iter_mut().zip(of_shard) {
                part.push(reply);
            }
        }
        epoch_check.compare(started, epochs);
        Ok(by_part)
    }

    /// Returns the shard's epoch, and the reply of each part.
    async fn read_shard(
        &self,
        shard: usize,
        epoch_check: &EpochCheck,
    ) -> StoreResult<(String, Vec<Value>)> {
        let arguments = |command: &mut Cmd| {
            command.arg(&self.arguments);
        };
        for _ in 0..MAX_ROUNDS {
            let sent = Instant::now();
            let reply = self.shards.run(shard, Traffic::Small, &self.script, arguments).await?;
            let mut replies: Vec<Value> = read(reply)?;
            if replies.len() != self.parts + 1 {
                return Err(malformed(&replies.len()));
            }
            if replies.iter().any(|reply| matches!(reply, Value::SimpleString(_))) {
                continue;
            }
            let epoch = epoch_check.note(shard, sent, replies.pop().unwrap_or(Value::Nil))?;
            return Ok((epoch, replies));
        }
        let why = "entries expire faster than redis purges them";
        Err(StoreError::new(ErrorKind::Throttled, why))
    }
}

/// Returns what the script does behind the check of the epoch: each part is a function, which gets its own keys and
/// arguments behind `info` and the head. The last reply is the epoch, since a part may start another one.
fn text_of(parts: &[StatusPart]) -> String {
    let mut text = String::from("local replies = {}\n");
    let (mut key, mut argument) = (2, 2);
    for (index, part) in parts.iter().enumerate() {
        let (next_key, next_argument) = (key + part.keys.len(), argument + part.arguments.len());
        let body = part.text.join("\n");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "replies[{}] = (function(KEYS, ARGV)\n{body}\nend)(\n\
             {{ KEYS[1], unpack(KEYS, {key}, {}) }}, {{ ARGV[1], unpack(ARGV, {argument}, {}) }})\n",
            index + 1,
            next_key - 1,
            next_argument - 1,
        );
        (key, argument) = (next_key, next_argument);
    }
    let epoch = include_str!("lua/read_epoch.lua");
    let _ =
        write!(text, "replies[{}] = (function()\n{epoch}\nend)()\nreturn replies", parts.len() + 1);
    text
}
