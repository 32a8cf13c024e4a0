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

pub(super) struct RedisGenerations;

impl RedisGenerations {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let _ = shards;
        Self
    }
}

#[async_trait]
impl GenerationStore for RedisGenerations {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
