//! The contract of checkpoints. What holds for all resources is said in the parent module.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Fenced, StoreResult};
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::leases::Fence;
use crate::model::settings;
use crate::model::time::Timestamp;

/// `[checkpoints]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct CheckpointSettings {
    /// How long a checkpoint lives from its last write.
    #[serde(deserialize_with = "settings::duration")]
    pub retention: Duration,
    /// The most live checkpoints.
    #[serde(deserialize_with = "settings::count")]
    pub max_checkpoints: usize,
}

/// How a write of a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointOutcome {
    /// It was stored.
    Stored(Checkpoint),
    /// A later one is stored and `if_later` was requested; nothing was changed.
    NotLater(Checkpoint),
}

/// Checkpoints. They expire with the configured retention, counted from their last write.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Writes a checkpoint; with `if_later` only when no later one is stored.
    async fn set(
        &self,
        key: CheckpointKey,
        checkpoint: Timestamp,
        if_later: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<CheckpointOutcome>>;

    /// Reads a checkpoint.
    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>>;

    /// Deletes a checkpoint; returns whether it existed.
    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>>;

    /// Reads the checkpoints of `org` (of all when `None`), sorted by key, after
    /// `after`, at most `limit`.
    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>>;
}
