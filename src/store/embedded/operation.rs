//! The embedded backend as a whole: readiness, flush, purge, status, end.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::blocking::off_thread;
use super::buffered::Flusher;
use super::cache::EmbeddedCache;
use super::durable::DurableStore;
use super::series::EmbeddedSeries;
use super::sqlite::{FolderLock, SyncMode};
use crate::store::{Capabilities, Operation, SeriesStore, StoreResult, StoreStatus};

/// Everything that is opened, as one store.
pub(super) struct EmbeddedOperation {
    pub(super) on_disk: bool,
    pub(super) sync: SyncMode,
    pub(super) durable: Arc<DurableStore>,
    pub(super) flusher: Arc<Flusher>,
    pub(super) series: Arc<EmbeddedSeries>,
    pub(super) cache: Arc<EmbeddedCache>,
    /// Released when both files are closed.
    pub(super) lock: Mutex<Option<Arc<FolderLock>>>,
}

#[async_trait]
impl Operation for EmbeddedOperation {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: if self.on_disk { "embedded" } else { "memory" },
            survives_restart: self.on_disk,
            survives_power_cut: self.on_disk && self.sync == SyncMode::Full,
            survives_failover: true,
            shared: false,
            atomic_fencing: true,
            atomic_batches: true,
            exact_budget: true,
            shards: 1,
        }
    }

    async fn ready(&self) -> Result<(), String> {
        if self.lock.lock().as_ref().is_some_and(|lock| !lock.is_in_place()) {
            return Err("the folder of the store was deleted while it was in use".to_owned());
        }
        self.durable.ready().await?;
        self.flusher.ready()
    }

    async fn lost(&self) -> String {
        self.durable.lost().await
    }

    async fn flush_wanted(&self) {
        self.flusher.wanted().await;
    }

    async fn flush(&self) -> StoreResult<u64> {
        let flusher = Arc::clone(&self.flusher);
        off_thread(move || flusher.flush()).await
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        let expired = self.series.expire().await?;
        Ok(self.durable.purge().await? + expired as u64)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        let (durable, flusher) = (Arc::clone(&self.durable), Arc::clone(&self.flusher));
        let (series, cache) = (Arc::clone(&self.series), Arc::clone(&self.cache));
        // The tables are locked for a moment each: async threads must not wait for that.
        off_thread(move || {
            let durable = durable.status()?;
            let buffered = flusher.status();
            let mut resources = series.status().to_vec();
            resources.extend(durable.resources);
            resources.push(cache.status());
            Ok(StoreStatus {
                resources,
                newest: None,
                unflushed: buffered.unflushed,
                oldest_unflushed: buffered.oldest_unflushed,
                flush_failures: buffered.flush_failures,
                commit_failures: durable.commit_failures,
                commits: durable.commits,
                committed_writes: durable.committed_writes,
            })
        })
        .await
    }

    async fn close(&self) -> StoreResult<()> {
        self.series.close();
        let flusher = Arc::clone(&self.flusher);
        // Both files are closed, even if the first fails.
        let buffered = off_thread(move || flusher.close()).await;
        let durable = self.durable.close().await;
        self.lock.lock().take();
        buffered.and(durable)
    }
}
