//! The embedded backend: two SQLite files and what is held in memory; also, without
//! files, the `memory` backend.
//!
//! `durable.db` holds the durable data (locks, leases, checkpoints, generations), `buffered.db` the
//! buffered (series). Cached values are in memory only. Resources stand on the fences, these on the
//! durable and the buffered engine, which know no resource, and those on SQLite. This file alone
//! lists the resources.

mod blocking;
mod buffered;
mod cache;
mod checkpoints;
mod durable;
mod fences;
mod generations;
mod leases;
mod locks;
mod operation;
mod series;
mod sqlite;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::buffered::{FlushSignal, Flusher};
use self::cache::EmbeddedCache;
use self::checkpoints::Checkpoints;
use self::durable::{DurableStore, Tables};
use self::fences::{FenceLatches, Fences, Leases};
use self::generations::Generations;
use self::locks::Locks;
use self::operation::EmbeddedOperation;
use self::series::{EmbeddedSeries, SeriesSet, TableLimits};
use self::sqlite::FolderLock;
pub use self::sqlite::{OpenError, SyncMode};
use super::{CacheSettings, Stores};
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

/// The tables of the durable data. A new one gets a tag and a name that none of them has, nor those
/// that were removed (none so far).
fn durable_tables(settings: &EmbeddedSettings) -> Tables {
    Tables::new()
        .with(Locks)
        .with(Leases)
        .with(Checkpoints { retention: settings.checkpoint_retention })
        .with(Generations)
}

/// Opens the backend: takes the folder, recovers and checks both files, reads everything.
///
/// Blocks for as long as that takes (a second or two for a million series): not for async threads.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open(settings: &EmbeddedSettings) -> Result<(Stores, SharedClock), OpenError> {
    open_with(settings, |earliest| Arc::new(SystemClock::start(earliest)))
}

/// As [`open`], with a clock of the caller's. `start_clock` is called with the time of the last
/// durable write of all earlier runs.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open_with(
    settings: &EmbeddedSettings,
    start_clock: impl FnOnce(Timestamp) -> SharedClock,
) -> Result<(Stores, SharedClock), OpenError> {
    let folder = settings.path.as_deref();
    let lock = folder.map(FolderLock::take).transpose()?;
    let path = folder.map(|folder| folder.join("durable.db"));
    let loaded = DurableStore::load(path.as_deref(), settings.sync, durable_tables(settings))?;
    let clock = start_clock(loaded.last_commit());
    let latches = Arc::new(FenceLatches::default());
    let durable = loaded.serve(Arc::clone(&clock), Arc::clone(&latches) as _)?;

    let signal = Arc::new(FlushSignal::new(settings.flush_threshold));
    let series = Arc::new(SeriesSet::new(TableLimits {
        retention: settings.series_retention,
        max_series: settings.max_series,
        max_tombstones: settings.max_tombstones,
    }));
    let flusher = Arc::new(Flusher::open(
        folder.map(|folder| folder.join("buffered.db")).as_deref(),
        settings.sync,
        vec![Arc::clone(&series) as _],
        Arc::clone(&signal),
        Arc::clone(&clock),
    )?);
    let fences = Fences::new(Arc::clone(&durable), latches);
    let series = EmbeddedSeries::new(&series, fences, signal, Arc::clone(&clock))?;
    let series = Arc::new(series);
    let cache = Arc::new(EmbeddedCache::new(settings.cache, Arc::clone(&durable), clock.now()));
    let operation = EmbeddedOperation {
        on_disk: folder.is_some(),
        sync: settings.sync,
        durable: Arc::clone(&durable),
        flusher,
        series: Arc::clone(&series),
        cache: Arc::clone(&cache),
        lock: lock.into(),
    };
    let stores = Stores {
        series,
        locks: Arc::clone(&durable) as _,
        leases: Arc::clone(&durable) as _,
        checkpoints: Arc::clone(&durable) as _,
        generations: durable,
        cache,
        operation: Arc::new(operation),
    };
    Ok((stores, clock))
}
