//! What concerns the Redis store as a whole.

use std::sync::Arc;

use async_trait::async_trait;

use super::cache::{collect, count};
use super::guard::Guard;
use super::series::RedisSeries;
use super::shards::Shards;
use crate::store::{Capabilities, Operation, StoreResult, StoreStatus};

/// The store as a whole.
pub(super) struct RedisOperation {
    shards: Arc<Shards>,
    series: Arc<RedisSeries>,
    guard: Guard,
}

impl RedisOperation {
    pub(super) fn new(shards: Arc<Shards>, series: Arc<RedisSeries>) -> Self {
        let guard = Guard::new(Arc::clone(&shards));
        Self { shards, series, guard }
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
        self.guard.check().await.map(drop).map_err(|error| error.to_string())
    }

    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        collect(&self.shards).await
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        let cached = count(&self.shards).await?;
        Ok(StoreStatus {
            generations: cached.generations,
            cached_values: cached.values,
            cached_bytes: cached.bytes,
            ..StoreStatus::default()
        })
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}
