//! The rules of checkpoints: which writes must be fenced.

use std::sync::Arc;

use super::error::{EngineError, EngineResult, unfence};
use super::roles::Roles;
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::leases::Fence;
use crate::model::time::Timestamp;
use crate::store::{CheckpointOutcome, CheckpointStore};

/// Checkpoints.
pub struct CheckpointEngine {
    store: Arc<dyn CheckpointStore>,
    roles: Arc<Roles>,
}

impl CheckpointEngine {
    pub(super) fn new(store: Arc<dyn CheckpointStore>, roles: Arc<Roles>) -> Self {
        Self { store, roles }
    }

    /// Writes a checkpoint; with `if_later` only when none is held that is as late. The caller's access token may be
    /// bound to a role.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`], [`EngineError::FenceRefused`], and failures of the store.
    pub async fn set(
        &self,
        key: CheckpointKey,
        checkpoint: Timestamp,
        if_later: bool,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<CheckpointOutcome> {
        self.roles.check_checkpoint(bound_role, fence.as_ref())?;
        unfence(self.store.set(key, checkpoint, if_later, fence).await?)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], and failures of the store.
    pub async fn get(&self, key: &CheckpointKey) -> EngineResult<Checkpoint> {
        self.store.get(key).await?.ok_or(EngineError::NotFound("checkpoint"))
    }

    /// Deletes a checkpoint.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`], [`EngineError::NotFound`], [`EngineError::FenceRefused`], and failures of the
    /// store.
    pub async fn delete(
        &self,
        key: CheckpointKey,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<()> {
        self.roles.check_checkpoint(bound_role, fence.as_ref())?;
        if unfence(self.store.delete(key, fence).await?)? {
            Ok(())
        } else {
            Err(EngineError::NotFound("checkpoint"))
        }
    }

    /// Reads the checkpoints of `org` (of all when `None`) after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> EngineResult<Vec<(CheckpointKey, Checkpoint)>> {
        Ok(self.store.list(org, after, limit).await?)
    }
}
