//! What a conformance case gets: a store of its own, and the clock that it runs on.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::time::Timestamp;
use holdall::store::{
    CacheSettings, CheckpointSettings, DeleteOutcome, Fenced, SeriesSettings, StoreSettings, Stores,
};

use super::backends::Backend;

/// The retention of series.
pub(crate) const RETENTION: Duration = Duration::from_secs(3600);
/// How far ahead of the clock a sample may be and win.
pub(crate) const MAX_FUTURE_SKEW: Duration = Duration::from_secs(600);
/// The retention of checkpoints.
pub(crate) const CHECKPOINT_RETENTION: Duration = Duration::from_secs(7200);
/// The most live series.
pub(crate) const MAX_SERIES: usize = 100;
/// The most bytes of live series.
pub(crate) const MAX_SERIES_BYTES: usize = 64 << 10;
/// The most deletions that are remembered.
pub(crate) const MAX_TOMBSTONES: usize = 60;

/// What is cached at most, in bytes.
pub(crate) const CACHE_BYTES: usize = 1 << 20;
/// What is cached at most of one namespace, in bytes.
pub(crate) const CACHE_NAMESPACE_BYTES: usize = CACHE_BYTES / 2;
/// The most namespaces.
pub(crate) const CACHE_NAMESPACES: usize = 8;

/// Returns the outcome of a deletion of so many series.
pub(crate) fn did_delete(count: usize) -> Fenced<DeleteOutcome> {
    Fenced::Done(DeleteOutcome::Deleted(count))
}

/// Returns the settings of every store under test.
fn settings() -> StoreSettings {
    StoreSettings {
        series: SeriesSettings {
            retention: RETENTION,
            max_future_skew: MAX_FUTURE_SKEW,
            max_series: MAX_SERIES,
            max_bytes: MAX_SERIES_BYTES,
            max_tombstones: MAX_TOMBSTONES,
        },
        checkpoints: CheckpointSettings {
            retention: CHECKPOINT_RETENTION,
            max_checkpoints: 1_000_000,
        },
        cache: CacheSettings {
            max_bytes: CACHE_BYTES,
            namespace_max_bytes: CACHE_NAMESPACE_BYTES,
            max_namespaces: CACHE_NAMESPACES,
        },
        ..StoreSettings::for_tests()
    }
}

/// How long a store is stopped before a new one starts in its place: longer than it took to grant so many fences.
const AWAY: Duration = Duration::from_secs(1);

/// The time of a store under test. Cases let it pass by [`Time::pass`] only: a backend with
/// a clock of its own has to wait.
#[derive(Clone)]
pub(crate) struct Time(Arc<ManualClock>);

impl Time {
    /// Returns the time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Lets the store's time go on by `duration`, or a little more.
    pub(crate) async fn pass(&self, duration: Duration) {
        self.0.advance(duration);
    }

    /// Sets the store's clock back, as an administrator does; no time passes.
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.set_system(self.0.now().saturating_sub(by));
    }
}

/// A copy of a store's files.
pub(crate) struct Backup(Box<dyn Backend>);

/// A store under test.
pub(crate) struct Fixture {
    /// The store.
    pub(crate) stores: Stores,
    /// Its clock.
    pub(crate) clock: Time,
    backend: Box<dyn Backend>,
}

impl Fixture {
    /// Opens a fresh store.
    pub(crate) fn open(backend: Box<dyn Backend>) -> Self {
        Self::open_at(
            backend,
            &settings(),
            Timestamp::parse("2026-11-21T10:00:00Z").expect("valid"),
        )
    }

    fn open_at(backend: Box<dyn Backend>, settings: &StoreSettings, now: Timestamp) -> Self {
        let clock = Arc::new(ManualClock::at(now));
        let stores = backend.open(settings, Arc::clone(&clock) as SharedClock);
        Self { stores, clock: Time(clock), backend }
    }

    /// Lets the store's time go on by `duration`, or a little more.
    pub(crate) async fn pass(&self, duration: Duration) {
        self.clock.pass(duration).await;
    }

    /// Returns whether [`Self::restart`] returns a store with its data.
    pub(crate) fn survives_restart(&self) -> bool {
        self.stores.operation.capabilities().survives_restart
    }

    /// Stops the store and starts it with nothing in it, in the same place.
    pub(crate) async fn wipe(self) -> Self {
        self.wipe_with(|_| {}).await
    }

    /// Stops the store and starts it with nothing in it, in the same place, with changed settings.
    pub(crate) async fn wipe_with(self, change: impl FnOnce(&mut StoreSettings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let (mut backend, now) = self.stop(AWAY).await;
        backend.wipe();
        Self::open_at(backend, &settings, now)
    }

    /// Stops the store, copies its files, and starts it again; `None`, and nothing done, where it has none.
    pub(crate) async fn back_up(self) -> (Self, Option<Backup>) {
        if !self.backend.has_files() {
            return (self, None);
        }
        let (backend, now) = self.stop(Duration::ZERO).await;
        let backup = backend.copy_files().map(Backup);
        (Self::open_at(backend, &settings(), now), backup)
    }

    /// Stops the store, and starts it with a copy of a backup.
    pub(crate) async fn restore(self, backup: &Backup) -> Self {
        let (_, now) = self.stop(AWAY).await;
        Self::open_at(backup.0.copy_files().expect("a backup has files"), &settings(), now)
    }

    async fn stop(self, away: Duration) -> (Box<dyn Backend>, Timestamp) {
        self.stores.operation.close().await.expect("the store closes");
        (self.backend, self.clock.now().saturating_add(away))
    }

    /// Stops the store and starts it again, `later`; `None` where nothing survives that.
    pub(crate) async fn restart(self, later: Duration) -> Option<Self> {
        let survives = self.survives_restart();
        let (backend, now) = self.stop(later).await;
        survives.then(|| Self::open_at(backend, &settings(), now))
    }
}

/// Random numbers, the same ones for the same seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bits = usize::try_from((z ^ (z >> 31)) >> 1).expect("a 64-bit machine");
        bits % end
    }
}
