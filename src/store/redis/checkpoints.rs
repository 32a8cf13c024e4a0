//! Not built yet.
#![allow(unused, reason = "not built yet")]
use super::shards::Shards;
use crate::model::{
    batch::*, cache::*, checkpoints::*, cursor::*, generations::*, leases::*, selector::*,
    series::*, time::*,
};
use crate::store::*;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(super) struct RedisCheckpoints;

impl RedisCheckpoints {
    pub(super) fn new(shards: Arc<Shards>, retention: std::time::Duration) -> Self {
        let _ = shards;
        let _ = retention;
        Self
    }
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
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
