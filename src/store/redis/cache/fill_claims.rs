//! Fill claims: which caller makes a value that others wait for, over all replicas.
//!
//! A claim lies in the shard of the value's own key. Invariant: a key has at most one claimant at a time,
//! as long as Redis loses nothing and the number of claims is within [`MAX_CLAIMS`].

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::random::random;
use super::super::core::replies::read;
use super::super::core::script::scripts;
use super::super::core::shards::Shards;
use super::super::core::time::{millis_of, time_of};
use super::entries::id_of;
use crate::model::cache::{CacheKey, FillToken};
use crate::store::{FillOutcome, StoreResult};

/// The hash of tokens by entry, and the sorted set of entries by the end of their claim.
const FILL_CLAIMS: &str = "fill_claims";
const FILL_CLAIM_ENDS: &str = "fill_claim_ends";

scripts! {
    CLAIM(&[FILL_CLAIMS, FILL_CLAIM_ENDS]) = "lua/claim_fill.lua";
    END(&[FILL_CLAIMS, FILL_CLAIM_ENDS]) = "lua/end_fill.lua";
    PURGE(&[FILL_CLAIMS, FILL_CLAIM_ENDS]) = "lua/purge_claims.lua";
}

/// The most claims that a shard remembers. Beyond it, claims are granted without being remembered, so
/// several callers may fill the same key.
const MAX_CLAIMS: usize = 100_000;

/// The most claims that one script purges.
const PURGE_STEP: u64 = 200;

/// The fill claims.
pub(super) struct FillClaims {
    shards: Arc<Shards>,
}

impl FillClaims {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        Self { shards }
    }

    fn shard(&self, key: &CacheKey) -> usize {
        self.shards.of(&[key.namespace.as_str().as_bytes(), key.key.as_bytes()])
    }

    /// Claims the fill of a key for `ttl`, unless another caller has the claim.
    pub(super) async fn claim(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        // Random, so that a token from before a loss of data ends no later claim.
        let token = FillToken(random()?);
        let arguments = |command: &mut Cmd| {
            command.arg(id_of(key)).arg(token.to_string()).arg(millis_of(ttl)).arg(MAX_CLAIMS);
        };
        let reply = self.shards.run(self.shard(key), Traffic::Small, &CLAIM, arguments).await?;
        let (granted, ends): (bool, i64) = read(reply)?;
        let expires_at = time_of(&ends.to_string())?;
        Ok(match granted {
            true => FillOutcome::Granted { token, expires_at },
            false => FillOutcome::Held { expires_at },
        })
    }

    /// Ends the claim of a key, only that of `token` where one is given; returns whether it existed.
    pub(super) async fn end(&self, key: &CacheKey, token: Option<FillToken>) -> StoreResult<bool> {
        let token = token.map_or(String::new(), |token| token.to_string());
        let arguments = |command: &mut Cmd| {
            command.arg(id_of(key)).arg(&token);
        };
        read(self.shards.run(self.shard(key), Traffic::Small, &END, arguments).await?)
    }

    /// Purges expired claims in all shards; returns how many.
    pub(super) async fn purge(&self) -> StoreResult<u64> {
        let arguments = |command: &mut Cmd| {
            command.arg(PURGE_STEP);
        };
        self.shards.run_until_done(&PURGE, PURGE_STEP, arguments).await
    }
}
