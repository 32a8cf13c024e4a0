//! What concerns the Redis store as a whole. It knows resources by their upkeep only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::core::epoch_check::EpochCheck;
use super::core::shards::Shards;
use super::core::status::StatusReader;
use super::core::upkeep::{Report, Upkeep};
use crate::store::{Capabilities, ClientStatus, Operation, StoreResult, StoreStatus};

/// The store as a whole.
pub(super) struct RedisOperation {
    shards: Arc<Shards>,
    resources: Vec<Arc<dyn Upkeep>>,
    epoch_check: EpochCheck,
    status: StatusReader,
    memory_policy_checked: AtomicBool,
}

impl RedisOperation {
    pub(super) fn new(shards: Arc<Shards>, resources: Vec<Arc<dyn Upkeep>>) -> Self {
        let parts: Vec<_> = resources.iter().map(|resource| resource.status_part()).collect();
        Self {
            status: StatusReader::new(Arc::clone(&shards), &parts),
            epoch_check: EpochCheck::new(Arc::clone(&shards)),
            shards,
            resources,
            memory_policy_checked: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Operation for RedisOperation {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "redis",
            survives_restart: true,
            survives_power_cut: false,
            survives_failover: false,
            shared: true,
            atomic_fencing: false,
            atomic_batches: false,
            // With one shard, its quota is the budget.
            exact_budget: self.shards.count() == 1,
            shards: self.shards.count(),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let checked = self.epoch_check.check().await;
        checked.map_err(|error| format!("redis: {}", error.with_causes()))
    }

    async fn check_wanted(&self) {
        self.epoch_check.wanted().await;
    }

    async fn check_backend(&self) -> StoreResult<()> {
        self.epoch_check.check_if_old().await?;
        if !self.memory_policy_checked.load(Ordering::Acquire) {
            self.epoch_check.check_memory_policy().await?;
            self.memory_policy_checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// There are no buffered writes here.
    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        self.shards.check_open()?;
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        let (mut purged, mut failed) = (0, None);
        // One resource, or one shard, that fails must not let the others grow.
        for resource in &self.resources {
            match resource.purge().await {
                Ok(count) => purged += count,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(purged), Err)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        let replies = self.status.read(&self.epoch_check).await?;
        let mut status = StoreStatus::default();
        for (resource, replies) in self.resources.iter().zip(replies) {
            let Report { resources, newest } = resource.report(replies)?;
            status.resources.extend(resources);
            status.newest = status.newest.or(newest);
        }
        Ok(status)
    }

    fn client_status(&self) -> Option<ClientStatus> {
        Some(self.shards.client().status())
    }

    async fn close(&self) -> StoreResult<()> {
        self.shards.close();
        Ok(())
    }
}
