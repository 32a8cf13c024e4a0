//! The embedded backend: two SQLite files and what is held in memory; also, without
//! files, the `memory` backend.
//!
//! `durable.db` holds the durable data (locks, leases, checkpoints, generations, aggregates), `buffered.db` the
//! buffered (series). Cached values are in memory only. Resources stand on the fences, these on the
//! durable and the buffered engine, which know no resource, and those on SQLite. This file alone
//! lists the resources.

mod aggregates;
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

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::aggregates::{Aggregates, EventIds, Notes, Outboxes, Pipelines, Producers};
use self::buffered::{BufferedSet, FlushSignal, Flusher};
use self::cache::EmbeddedCache;
use self::checkpoints::Checkpoints;
use self::durable::{DurableStore, Loaded, Tables};
use self::fences::{FenceLatches, Fences, Leases};
use self::generations::Generations;
use self::locks::Locks;
use self::operation::EmbeddedOperation;
use self::series::{EmbeddedSeries, SeriesSet};
use self::sqlite::{CheckedFile, FolderLock};
pub use self::sqlite::{OpenError, SyncMode};
use super::{CacheSettings, Limited, StoreSettings, Stores};
use crate::clock::{LastCommit, RetentionClock, SharedClock, SystemClock};
use crate::model::settings::Violations;

/// The settings of the embedded backend.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The folder of the files; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// See [`SyncMode`].
    pub sync: SyncMode,
}

impl EmbeddedSettings {
    /// Returns the settings of a store without files.
    pub fn in_memory() -> Self {
        Self { path: None, sync: SyncMode::Normal }
    }
}

/// Checks that a namespace of the cache has room for the largest value.
pub fn check_cached_value(
    max_value_bytes: usize,
    settings: &CacheSettings,
    violations: &mut Violations,
) {
    let largest = cache::largest_value(settings);
    violations.require(
        max_value_bytes <= largest,
        &["cache.max_value_bytes", "cache.namespace_max_bytes", "cache.max_bytes"],
        || {
            format!(
                "must be at most {largest}: cache.namespace_max_bytes holds a value along with its \
                 names, and a sixteenth of it is kept for new values"
            )
        },
    );
}

/// The tables of the durable data. A new one gets a tag and a name that none of them has, nor those
/// that were removed (none so far).
fn durable_tables(settings: &StoreSettings) -> Tables {
    Tables::new()
        .with(Locks { max: settings.locks.max_locks })
        .with(Leases { max: settings.leases.max_leases })
        .with(Checkpoints {
            retention: settings.checkpoints.retention,
            max: settings.checkpoints.max_checkpoints,
        })
        .with(Generations { max: settings.generations.max_generations })
        .with_paged::<Aggregates>(
            settings.aggregates.memory as u64,
            Some((settings.aggregates.max_values as u64, Limited::Aggregates)),
        )
        .with_claims::<EventIds>(settings.aggregates.max_event_ids as u64)
        .with(Producers { max: settings.aggregates.max_producers })
        .with(Pipelines)
        .with(Notes)
        .with(Outboxes::new(
            settings.aggregates.max_outbox_notes,
            settings.aggregates.max_outbox_bytes,
        ))
}

/// Both files, when they were found to be sound.
struct Files {
    durable: CheckedFile,
    buffered: CheckedFile,
}

impl Files {
    fn check(
        folder: &Path,
        lock: &Arc<FolderLock>,
        tables: &Tables,
        sets: &[Arc<dyn BufferedSet>],
    ) -> Result<Self, OpenError> {
        lock.check_files()?;
        let missing = lock.missing();
        let durable = DurableStore::check(&folder.join("durable.db"), tables, missing)?;
        let buffered = Flusher::check(&folder.join("buffered.db"), sets, missing)?;
        Ok(Self { durable: durable.named_by(lock), buffered: buffered.named_by(lock) })
    }

    /// Checks the pages of both.
    fn check_pages(&self) -> Result<(), OpenError> {
        self.buffered.check_pages().and_then(|()| self.durable.check_pages())
    }

    /// Returns the paths of all that a run needs.
    fn paths(&self) -> Vec<PathBuf> {
        [&self.durable, &self.buffered].into_iter().flat_map(CheckedFile::with_log).collect()
    }
}

/// Opens the backend: takes the folder, recovers and checks both files, reads everything.
///
/// Blocks for as long as that takes (a second or two for a million series): not for async threads.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open(
    settings: &EmbeddedSettings,
    store: &StoreSettings,
) -> Result<(Stores, SharedClock), OpenError> {
    open_with(settings, store, |last| Arc::new(SystemClock::resume(last)))
}

/// As [`open`], with clocks of the caller's. `start_clock` is called with what the last durable write of all
/// earlier runs recorded.
///
/// # Errors
/// See [`OpenError`]; nothing was changed then.
pub fn open_with(
    settings: &EmbeddedSettings,
    store: &StoreSettings,
    start_clock: impl FnOnce(Option<&LastCommit>) -> SharedClock,
) -> Result<(Stores, SharedClock), OpenError> {
    let folder = settings.path.as_deref();
    let lock = folder.map(FolderLock::take).transpose()?.map(Arc::new);
    let tables = durable_tables(store);
    let series = Arc::new(SeriesSet::new(store.series));
    let sets = vec![Arc::clone(&series) as Arc<dyn BufferedSet>];
    // Both are looked at, and then both are read, before a byte of either is changed.
    let files = match (folder, &lock) {
        (Some(folder), Some(lock)) => Some(Files::check(folder, lock, &tables, &sets)?),
        _ => None,
    };
    let signal = Arc::new(FlushSignal::new(store.flush.threshold));
    let (opened, checked) = std::thread::scope(|scope| {
        let checks = scope.spawn(|| files.as_ref().map_or(Ok(()), Files::check_pages));
        let wake = Arc::clone(&signal);
        let opened = read(files.as_ref(), settings.sync, store, tables, sets, wake, start_clock);
        (opened, checks.join())
    });
    checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let Opened { loaded, flusher, clock, retention } = opened?;
    let whole = loaded.make_whole().and_then(|whole| flusher.make_whole().map(|()| whole));
    let whole =
        whole.map_err(|error| OpenError::failed(folder.unwrap_or(Path::new("memory")), error))?;
    if let (Some(lock), Some(files)) = (&lock, &files) {
        lock.begin(settings.sync, &files.paths())?;
    }
    let latches = Arc::new(FenceLatches::default());
    let durable = whole.serve(Arc::clone(&clock), Arc::clone(&latches) as _)?;
    let fences = Fences::new(Arc::clone(&durable), latches);
    let series = EmbeddedSeries::new(&series, fences, signal, Arc::clone(&clock), retention)?;
    let series = Arc::new(series);
    let cache = Arc::new(EmbeddedCache::new(store.cache, Arc::clone(&durable), clock.now()));
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
        generations: Arc::clone(&durable) as _,
        cache,
        aggregates: Some(Arc::clone(&durable) as _),
        outbox: Some(durable),
        operation: Arc::new(operation),
    };
    Ok((stores, clock))
}

/// What was read, before anything was changed.
struct Opened {
    loaded: Loaded,
    flusher: Arc<Flusher>,
    clock: SharedClock,
    retention: RetentionClock,
}

/// Reads both files, and starts the clocks with what the last durable write recorded.
fn read(
    files: Option<&Files>,
    sync: SyncMode,
    store: &StoreSettings,
    tables: Tables,
    sets: Vec<Arc<dyn BufferedSet>>,
    signal: Arc<FlushSignal>,
    start_clock: impl FnOnce(Option<&LastCommit>) -> SharedClock,
) -> Result<Opened, OpenError> {
    let loaded = DurableStore::load(files.map(|files| &files.durable), sync, tables)?;
    let last_commit = loaded.last_commit();
    let clock = start_clock(last_commit.as_ref());
    // Of another boot, the steady time does not say how long ago that was, and the system's clock is believed.
    let before = last_commit.filter(|last| last.boot == clock.boot()).map(|last| last.at);
    let retention = RetentionClock::start(
        Arc::clone(&clock),
        store.series.retention,
        before.unwrap_or_else(|| clock.read()),
    );
    let file = files.map(|files| &files.buffered);
    let flusher = Arc::new(Flusher::open(file, sync, sets, signal, Arc::clone(&clock))?);
    Ok(Opened { loaded, flusher, clock, retention })
}
