//! The state of each shard: its epoch, its newest sequence number, its counts.

use futures_util::future::join_all;

use super::super::core::client::Traffic;
use super::super::core::replies::ReplyReader;
use super::Inner;
use super::reader::Position;
use super::scripts::STATE;
use crate::store::{StoreError, StoreResult};

/// The state of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardState {
    pub(super) epoch: u64,
    /// The newest sequence number.
    pub(super) seq: u64,
    /// Live series.
    pub(super) live: u64,
    /// Deletions that are still remembered.
    pub(super) tombstones: u64,
    /// What the live series count as.
    pub(super) bytes: u64,
    /// The bytes of the keys of these deletions.
    pub(super) tombstone_bytes: u64,
    /// Series that expired by this call.
    pub(super) expired: usize,
}

impl Inner {
    /// Reads the state of every shard.
    pub(super) async fn states(&self) -> StoreResult<Vec<ShardState>> {
        let reads = (0..self.shards.count()).map(|shard| async move {
            let reply = self.run(shard, Traffic::Small, &STATE, |_| ()).await?;
            let mut state = ShardState::read(reply.value)?;
            state.expired += reply.expired;
            Ok::<_, StoreError>(state)
        });
        // All are waited for, so that what is due expires in every shard that can be reached.
        join_all(reads).await.into_iter().collect()
    }

    /// Returns the position of the newest change of every shard.
    pub(super) async fn position(&self) -> StoreResult<Position> {
        Ok(Position::of(&self.states().await?))
    }
}

impl Position {
    /// Returns the position of the newest change of every shard.
    pub(super) fn of(states: &[ShardState]) -> Self {
        let (epochs, seqs) = states.iter().map(|state| (state.epoch, state.seq)).unzip();
        Self { epochs, seqs }
    }
}

impl ShardState {
    /// Reads the reply of `state.lua`.
    ///
    /// # Errors
    /// When it has another shape.
    pub(super) fn read(reply: redis::Value) -> StoreResult<Self> {
        let mut items = ReplyReader::new(reply)?;
        Ok(Self {
            epoch: items.epoch()?,
            seq: items.number()?,
            live: items.number()?,
            tombstones: items.number()?,
            bytes: items.number()?,
            tombstone_bytes: items.number()?,
            expired: items.number()?,
        })
    }
}
