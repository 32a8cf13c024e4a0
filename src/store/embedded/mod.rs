//! The embedded backend: two SQLite files and what is held in memory; also, without
//! files, the `memory` backend.
//!
//! `durable.db` holds the durable data (locks, leases, checkpoints, generations), `buffered.db` the buffered
//! (series). Cached values are in memory only.

mod buffered;
mod cache;
mod checkpoints;
mod durable;
mod generations;
mod leases;
mod locks;
mod series;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::cache::EmbeddedCache;
use self::durable::DurableStore;
use self::series::EmbeddedSeries;
use self::sqlite::FolderLock;
pub use self::sqlite::{OpenError, SyncMode};
use super::{
    CacheSettings, Capabilities, ErrorKind, Operation, ResourceStatus, SeriesStore, StoreError,
    StoreResult, StoreStatus, Stores,
};
use crate::clock::{SharedClock, SystemClock};
use crate::model::time::Timestamp;

/// The settings of the embedded backend.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The folder of the files; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// See [`SyncMode`].
    pub sync: SyncMode,
    /// A series that was not updated for this long expires.
    pub series_retention: Duration,
    /// The most live series.
    pub max_series: usize,
    /// The most deletions that are remembered for cursors.
    pub max_tombstones: usize,
    /// A checkpoint that was not written for this long expires.
    pub checkpoint_retention: Duration,
    /// So many buffered writes are brought to disk without waiting for the flush interval.
    pub flush_threshold: usize,
    /// How much is cached.
    pub cache: CacheSettings,
}

impl EmbeddedSettings {
    /// Returns settings for a store without files, roomy enough for tests and throw-away runs.
    pub fn in_memory() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            path: None,
            sync: SyncMode::Normal,
            series_retention: DAY,
            max_series: 1_000_000,
            max_tombstones: 100_000,
            checkpoint_retention: DAY,
            flush_threshold: usize::MAX,
            cache: CacheSettings::default(),
        }
    }

    /// Returns the largest cached value that has room beside the longest names, in bytes.
    pub fn largest_cached_value(&self) -> usize {
        cache::largest_value(&self.cache)
    }
}

/// Opens the backend: takes the folder, recovers and checks both files, reads everything.
///
/// Blocks for as long as that takes (a second or two for a million series): not for async threads.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open(settings: &EmbeddedSettings) -> Result<(Stores, SharedClock), OpenError> {
    open_with(settings, |floor| Arc::new(SystemClock::start(floor)))
}

/// As [`open`], with a clock of the caller's. `start_clock` is given the latest time that an
/// earlier run is known to have shown.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open_with(
    settings: &EmbeddedSettings,
    start_clock: impl FnOnce(Timestamp) -> SharedClock,
) -> Result<(Stores, SharedClock), OpenError> {
    let folder = settings.path.as_deref();
    let lock = folder.map(FolderLock::take).transpose()?;
    let state_path = folder.map(|folder| folder.join("durable.db"));
    let loaded =
        DurableStore::load(state_path.as_deref(), settings.sync, settings.checkpoint_retention)?;
    let clock = start_clock(loaded.clock_floor());
    let state = loaded.serve(Arc::clone(&clock))?;
    let series = EmbeddedSeries::open(folder, settings, Arc::clone(&state), Arc::clone(&clock))?;
    let series = Arc::new(series);
    let cache = Arc::new(EmbeddedCache::new(settings.cache, Arc::clone(&state), clock.now()));
    let operation = EmbeddedOperation {
        capabilities: capabilities(settings),
        state: Arc::clone(&state),
        series: Arc::clone(&series),
        cache: Arc::clone(&cache),
        lock: Mutex::new(lock),
    };
    let stores = Stores {
        series,
        locks: Arc::clone(&state) as _,
        leases: Arc::clone(&state) as _,
        checkpoints: Arc::clone(&state) as _,
        generations: state,
        cache,
        operation: Arc::new(operation),
    };
    Ok((stores, clock))
}

fn capabilities(settings: &EmbeddedSettings) -> Capabilities {
    let on_disk = settings.path.is_some();
    Capabilities {
        backend: if on_disk { "embedded" } else { "memory" },
        survives_restart: on_disk,
        survives_power_cut: on_disk && settings.sync == SyncMode::Full,
        shared: false,
        atomic_fencing: true,
        atomic_batches: true,
        shards: 1,
    }
}

/// Both halves as one store.
struct EmbeddedOperation {
    capabilities: Capabilities,
    state: Arc<DurableStore>,
    series: Arc<EmbeddedSeries>,
    cache: Arc<EmbeddedCache>,
    /// Given back when both files are closed.
    lock: Mutex<Option<FolderLock>>,
}

#[async_trait]
impl Operation for EmbeddedOperation {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn ready(&self) -> Result<(), String> {
        self.state.ready()
    }

    async fn lost(&self) -> String {
        self.state.lost().await
    }

    async fn flush_wanted(&self) {
        self.series.flush_wanted().await;
    }

    async fn flush(&self) -> StoreResult<u64> {
        let series = Arc::clone(&self.series);
        off_thread(move || series.flush()).await
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        let expired = self.series.expire().await?;
        Ok(self.state.collect_garbage().await? + expired as u64)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        let series = self.series.status();
        let state = self.state.status()?;
        let cache = self.cache.usage();
        Ok(StoreStatus {
            resources: vec![
                ResourceStatus::counted("series", series.live as u64),
                ResourceStatus::counted("series_tombstones", series.tombstones as u64),
                ResourceStatus::counted("locks", state.locks),
                ResourceStatus::counted("leases", state.leases),
                ResourceStatus::counted("checkpoints", state.checkpoints),
                ResourceStatus::counted("generations", state.generations),
                ResourceStatus {
                    resource: "cache",
                    entries: cache.values,
                    bytes: Some(cache.bytes),
                },
            ],
            unflushed: series.unflushed as u64,
            oldest_unflushed: series.oldest_unflushed,
            flush_failures: series.flush_failures,
            commits: state.commits,
            committed_writes: state.committed_writes,
        })
    }

    async fn close(&self) -> StoreResult<()> {
        let series = Arc::clone(&self.series);
        // Both, whatever becomes of the first.
        let weak = off_thread(move || series.close()).await;
        let strong = self.state.close().await;
        self.lock.lock().take();
        weak.and(strong)
    }
}

/// Runs long work off the async threads.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::new(ErrorKind::Internal, error.to_string())))
}
