//! Whose turn it is to make a value that others wait for, over all replicas.
//!
//! Invariant: at most one turn for a key at a time, as long as Redis loses nothing.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::entries::id_of;
use crate::model::cache::{CacheKey, FillToken};
use crate::store::redis::link::Weight;
use crate::store::redis::locks::{millis_of, time_of};
use crate::store::redis::replies::read;
use crate::store::redis::script::Script;
use crate::store::redis::shards::Shards;
use crate::store::{ErrorKind, FillOutcome, StoreError, StoreResult};

/// The keys of a shard that hold its turns.
pub(super) const KEYS: [&str; 2] = ["fills", "fill_ends"];

/// So many turns are remembered in a shard; who asks beyond that gets a turn that nobody else
/// knows of.
const TURNS: usize = 100_000;

/// The turns.
pub(super) struct Fills {
    shards: Arc<Shards>,
    claim: Script,
    end: Script,
}

impl Fills {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let claim = Script::new(include_str!("../lua/claim_fill.lua"));
        let end = Script::new(include_str!("../lua/end_fill.lua"));
        Self { shards, claim, end }
    }

    fn shard(&self, key: &CacheKey) -> usize {
        self.shards.of(&[key.namespace.as_str().as_bytes(), key.key.as_bytes()])
    }

    /// Takes the turn for `ttl`, unless somebody has it.
    pub(super) async fn claim(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        // Random, so that a token of an earlier life ends nobody's turn.
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::new(ErrorKind::Internal, error.to_string()))?;
        let token = FillToken(u64::from_ne_bytes(random));
        let arguments = |command: &mut Cmd| {
            command.arg(id_of(key)).arg(token.to_string()).arg(millis_of(ttl)).arg(TURNS);
        };
        let run = self.shards.run(self.shard(key), Weight::Light, &self.claim, &KEYS, arguments);
        let (granted, ends): (bool, i64) = read(run.await?)?;
        let expires_at = time_of(&ends.to_string())?;
        Ok(match granted {
            true => FillOutcome::Granted { token, expires_at },
            false => FillOutcome::Held { expires_at },
        })
    }

    /// Ends the turn at a key, that of `token` only where one is given; tells whether it was
    /// there.
    pub(super) async fn end(&self, key: &CacheKey, token: Option<FillToken>) -> StoreResult<bool> {
        let token = token.map_or(String::new(), |token| token.to_string());
        let arguments = |command: &mut Cmd| {
            command.arg(id_of(key)).arg(&token);
        };
        let run = self.shards.run(self.shard(key), Weight::Light, &self.end, &KEYS, arguments);
        read(run.await?)
    }
}
