//! What concerns the Redis store as a whole.

use std::sync::Arc;

use async_trait::async_trait;

use super::series::RedisSeries;
use super::shards::Shards;
use crate::store::{Capabilities, Operation, StoreResult, StoreStatus};

/// The store as a whole.
pub(super) struct RedisOperation {
    shards: Arc<Shards>,
    series: Arc<RedisSeries>,
}

impl RedisOperation {
    pub(super) fn new(shards: Arc<Shards>, series: Arc<RedisSeries>) -> Self {
        Self { shards, series }
    }
}

#[async_trait]
impl Operation for RedisOperation {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "redis",
            survives_restart: true,
            survives_power_cut: false,
            shared: true,
            atomic_fencing: false,
        }
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        Ok(StoreStatus::default())
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}
