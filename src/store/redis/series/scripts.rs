//! The scripts of series, and how they are run.
//!
//! Invariant: a reply means that everything that was due on the shard became a deletion before.

use redis::{Cmd, Value};

use super::super::core::client::Traffic;
use super::super::core::fences::FENCES;
use super::super::core::script::{Script, scripts};
use super::super::core::shards::Shards;
use super::super::core::upkeep::StatusPart;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The keys of all scripts on series, in the order that `lua/begin.lua` describes them.
const KEYS: &[&str] =
    &["series", "series_log", "series_updates", "tombstones", "tombstone_log", FENCES];

scripts! {
    APPLY(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/begin.lua", "lua/roles.lua",
        "lua/apply.lua";
    CHECK(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/begin.lua", "lua/check.lua";
    COUNT(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/begin.lua", "lua/count.lua";
    DELTA(KEYS) = "../core/lua/epoch_check.lua", "lua/begin.lua", "lua/delta.lua";
    GET(KEYS) = "../core/lua/epoch_check.lua", "lua/begin.lua", "lua/get.lua";
    OTHERS(KEYS) =
        "../core/lua/epoch_check.lua", "lua/begin.lua", "lua/roles.lua", "lua/others.lua";
    DELETE(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/begin.lua", "lua/roles.lua",
        "lua/delete.lua";
    STATE(KEYS) = "../core/lua/epoch_check.lua", "lua/begin.lua", "lua/state.lua";
}

/// The most times that a script is run to purge what is due: more series can't be due at once.
const MAX_ROUNDS: usize = 1_000_000;

/// The limits that scripts on series apply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// 0 keeps series for ever.
    pub(super) retention_ms: i64,
    /// How far a sample may be ahead of the clock and win.
    pub(super) max_future_skew_ms: i64,
    /// The most deletions that one shard remembers.
    pub(super) max_tombstones: usize,
    /// The most series of all shards; see [`Self::quota`].
    pub(super) max_series: usize,
    /// The most bytes of the series of all shards; see [`Self::byte_quota`].
    pub(super) max_bytes: usize,
    /// How many shards there are.
    pub(super) shards: usize,
}

impl Limits {
    /// Returns the most series of a shard: its part of the budget. The quotas of all shards add up to
    /// the budget, so no race can exceed it.
    pub(super) fn quota(&self, shard: usize) -> usize {
        self.part_of(self.max_series, shard)
    }

    /// Returns the most bytes of a shard's series, as [`Self::quota`].
    pub(super) fn byte_quota(&self, shard: usize) -> usize {
        self.part_of(self.max_bytes, shard)
    }

    /// Returns the most deletions that a shard remembers, and the most bytes of their keys, as scripts take them.
    fn tombstones(&self, shard: usize) -> String {
        format!("{} {}", self.max_tombstones, self.byte_quota(shard) / 4)
    }

    fn part_of(&self, budget: usize, shard: usize) -> usize {
        let shards = self.shards.max(1);
        budget / shards + usize::from(shard < budget % shards)
    }
}

/// Returns what reads the state of a shard, as [`STATE`] does, beside what other resources report. It has to run again
/// where more is due than it may delete.
pub(super) fn status_part(limits: Limits) -> StatusPart {
    // One list for all shards: the last shard's quota is the least of all.
    let tombstones = limits.tombstones(limits.shards.saturating_sub(1));
    StatusPart {
        keys: KEYS,
        text: &[include_str!("lua/begin.lua"), include_str!("lua/state.lua")],
        arguments: vec![limits.retention_ms.to_string(), tombstones],
    }
}

/// The reply of a script, and how many series expired before it did its work.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) value: Value,
    pub(super) expired: usize,
}

/// Runs a script of series on a shard, as often as it takes to purge what is due.
///
/// # Errors
/// As [`Shards::run`].
pub(super) async fn run(
    shards: &Shards,
    limits: Limits,
    shard: usize,
    traffic: Traffic,
    script: &Script,
    arguments: impl Fn(&mut Cmd),
) -> StoreResult<Reply> {
    let mut expired = 0;
    for _ in 0..MAX_ROUNDS {
        let arguments = |command: &mut Cmd| {
            command.arg(limits.retention_ms).arg(limits.tombstones(shard));
            arguments(command);
        };
        let value = shards.run(shard, traffic, script, arguments).await?;
        let due = match &value {
            Value::SimpleString(text) => text.strip_prefix("DUE ").map(str::parse::<usize>),
            _ => None,
        };
        match due {
            None => return Ok(Reply { value, expired }),
            // The script purged as many as one script may, and did not do its own work.
            Some(count) => expired += count.unwrap_or(0),
        }
    }
    let why = "series expire faster than redis purges them";
    Err(StoreError::new(ErrorKind::Throttled, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quotas_of_all_shards_add_up_to_the_budget() {
        for shards in [1, 3, 16] {
            for max_series in [0, 1, 15, 16, 17, 100, 1_000_003] {
                let limits = Limits {
                    retention_ms: 0,
                    max_future_skew_ms: 0,
                    max_tombstones: 0,
                    max_series,
                    max_bytes: 7 * max_series,
                    shards,
                };
                for (quota, budget) in [
                    (Limits::quota as fn(&Limits, usize) -> usize, max_series),
                    (Limits::byte_quota, 7 * max_series),
                ] {
                    let quotas: Vec<usize> = (0..shards).map(|n| quota(&limits, n)).collect();
                    assert_eq!(quotas.iter().sum::<usize>(), budget);
                    let least = quotas.iter().min().map(|least| least + 1);
                    assert!(quotas.iter().max() <= least.as_ref());
                }
            }
        }
    }
}
