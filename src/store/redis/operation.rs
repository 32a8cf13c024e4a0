//! What concerns the Redis store as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::guard::Guard;
use super::series::RedisSeries;
use super::shards::Shards;
use super::{cache, checkpoints, leases, locks};
use crate::store::{
    Capabilities, ClientStatus, ErrorKind, Operation, ResourceStatus, StoreError, StoreResult,
    StoreStatus,
};

/// The store as a whole.
pub(super) struct RedisOperation {
    shards: Arc<Shards>,
    series: Arc<RedisSeries>,
    guard: Guard,
    checkpoint_retention: Duration,
    closed: AtomicBool,
    policy_checked: AtomicBool,
}

impl RedisOperation {
    pub(super) fn new(
        shards: Arc<Shards>,
        series: Arc<RedisSeries>,
        checkpoint_retention: Duration,
    ) -> Self {
        let guard = Guard::new(Arc::clone(&shards));
        Self {
            shards,
            series,
            guard,
            checkpoint_retention,
            closed: AtomicBool::new(false),
            policy_checked: AtomicBool::new(false),
        }
    }

    fn check_open(&self) -> StoreResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
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
            atomic_batches: false,
            shards: self.shards.count(),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        self.check_open().map_err(|error| error.detail)?;
        let checked = self.guard.check().await;
        checked.map(drop).map_err(|error| format!("redis: {}", error.detail))
    }

    async fn check_backend(&self) -> StoreResult<()> {
        self.guard.check().await?;
        if !self.policy_checked.load(Ordering::Acquire) {
            self.guard.check_policy().await?;
            self.policy_checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// There are no buffered writes here.
    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        self.check_open()?;
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        self.check_open()?;
        let shards = &self.shards;
        let removed = [
            crate::store::SeriesStore::expire(&*self.series).await? as u64,
            locks::collect(shards).await?,
            leases::collect(shards).await?,
            checkpoints::collect(shards, self.checkpoint_retention).await?,
            cache::collect(shards).await?,
        ];
        Ok(removed.iter().sum())
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        self.check_open()?;
        let shards = &self.shards;
        let (series, locks, leases, checkpoints, cached) = tokio::try_join!(
            self.series.counts(),
            locks::count(shards),
            leases::count(shards),
            checkpoints::count(shards, self.checkpoint_retention),
            cache::count(shards),
        )?;
        Ok(StoreStatus {
            resources: vec![
                ResourceStatus::counted("series", series.live),
                ResourceStatus::counted("series_tombstones", series.tombstones),
                ResourceStatus::counted("locks", locks),
                ResourceStatus::counted("leases", leases),
                ResourceStatus::counted("checkpoints", checkpoints),
                ResourceStatus::counted("generations", cached.generations),
                ResourceStatus {
                    resource: "cache",
                    entries: cached.values,
                    bytes: Some(cached.bytes),
                },
            ],
            ..StoreStatus::default()
        })
    }

    fn client_status(&self) -> Option<ClientStatus> {
        Some(self.shards.link().status())
    }

    async fn close(&self) -> StoreResult<()> {
        self.closed.store(true, Ordering::Release);
        self.shards.close();
        Ok(())
    }
}
