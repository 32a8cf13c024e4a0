//! Entries that expire: not counted from the moment on, purged in small steps.
//!
//! Invariant: one script removes a bounded number of entries, so that no other command waits for long.

use std::time::Duration;

use redis::Cmd;

use super::script::Script;
use super::shards::Shards;
use super::time::millis_of;
use super::upkeep::StatusPart;
use crate::store::StoreResult;

/// The most entries that one script removes.
const STEP: u64 = 1_000;

/// The entries of one resource, in all shards, that expire some time after a time that is stored.
#[derive(Debug)]
pub(crate) struct Expiring {
    /// How long after the stored time an entry expires; zero where that is its end.
    after: Duration,
    purge: Script,
    times: &'static [&'static str],
}

impl Expiring {
    /// Describes entries by their keys: first a sorted set of the entries by their times in milliseconds,
    /// then the hashes and sorted sets that hold the same entries under the same names.
    pub(crate) fn new(keys: &'static [&'static str], after: Duration) -> Self {
        let times = keys.split_at(keys.len().min(1)).0;
        Self { after, purge: Script::new("purge", keys, &[include_str!("lua/purge.lua")]), times }
    }

    /// Purges what has expired, in all shards; returns how many entries.
    ///
    /// # Errors
    /// As [`Shards::run`].
    pub(crate) async fn purge(&self, shards: &Shards) -> StoreResult<u64> {
        let arguments = |command: &mut Cmd| {
            command.arg(millis_of(self.after)).arg(STEP);
        };
        shards.run_until_done(&self.purge, STEP, arguments).await
    }

    /// Returns what counts the live entries of a shard.
    pub(crate) fn status_part(&self) -> StatusPart {
        StatusPart {
            keys: self.times,
            text: &[include_str!("lua/count_live.lua")],
            arguments: vec![millis_of(self.after).to_string()],
        }
    }
}
