//! What a conformance case is given: a store of its own, and the clock that it runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::time::Timestamp;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open_with};
use holdall::store::redis::RedisSettings;
use holdall::store::{CacheSettings, CheckpointSettings, SeriesSettings, StoreSettings, Stores};
use tempfile::TempDir;

use crate::harness::redis;

/// How long series live.
pub(crate) const RETENTION: Duration = Duration::from_secs(3600);
/// How long checkpoints live.
pub(crate) const CHECKPOINT_RETENTION: Duration = Duration::from_secs(7200);
/// The most live series.
pub(crate) const MAX_SERIES: usize = 100;
/// The most deletions that are remembered.
pub(crate) const MAX_TOMBSTONES: usize = 60;

/// What is cached at most, in bytes.
pub(crate) const CACHE_BYTES: usize = 1 << 20;
/// What is cached at most of one namespace, in bytes.
pub(crate) const CACHE_NAMESPACE_BYTES: usize = CACHE_BYTES / 2;
/// The most namespaces.
pub(crate) const CACHE_NAMESPACES: usize = 8;

/// How long a store is away that is made anew: longer than it took to give so many fences.
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

    /// Lets the store's time go on by `span`, or a little more.
    pub(crate) async fn pass(&self, span: Duration) {
        self.0.advance(span);
    }
}

/// The files of a store as they were.
pub(crate) struct Backup(TempDir);

/// Where a store keeps what it holds.
enum Place {
    /// In memory, or in files that live as long as this.
    Files(Option<TempDir>),
    /// Under a namespace of its own in a Redis that all cases share.
    Redis { urls: Vec<String>, namespace: String },
}

/// How many shards a Redis store has here.
const SHARDS: usize = 4;

/// A store under test.
pub(crate) struct Fixture {
    /// The store.
    pub(crate) stores: Stores,
    /// Its clock.
    pub(crate) clock: Time,
    place: Place,
}

impl Fixture {
    fn open(place: Place, now: Timestamp) -> Self {
        let clock = Arc::new(ManualClock::at(now));
        let shared = Arc::clone(&clock) as SharedClock;
        let cache = CacheSettings {
            max_bytes: CACHE_BYTES,
            namespace_max_bytes: CACHE_NAMESPACE_BYTES,
            max_namespaces: CACHE_NAMESPACES,
        };
        let store = StoreSettings {
            series: SeriesSettings {
                retention: RETENTION,
                max_series: MAX_SERIES,
                max_tombstones: MAX_TOMBSTONES,
            },
            checkpoints: CheckpointSettings { retention: CHECKPOINT_RETENTION },
            cache,
            ..StoreSettings::for_tests()
        };
        let stores = match &place {
            Place::Files(folder) => {
                let path = folder.as_ref().map(|folder| folder.path().to_owned());
                let settings = EmbeddedSettings { path, sync: SyncMode::Normal };
                open_with(&settings, &store, |_| shared).expect("the store opens").0
            }
            Place::Redis { urls, namespace } => {
                let settings = RedisSettings {
                    index_shards: SHARDS,
                    ..RedisSettings::for_tests(urls, namespace)
                };
                holdall::store::redis::open_with(&settings, &store, Some(shared))
                    .expect("the store opens")
            }
        };
        Self { stores, clock: Time(clock), place }
    }

    /// Lets the store's time go on by `span`, or a little more.
    pub(crate) async fn pass(&self, span: Duration) {
        self.clock.pass(span).await;
    }

    /// Returns whether [`Self::restart`] gives the store back.
    pub(crate) fn survives_restart(&self) -> bool {
        self.stores.operation.capabilities().survives_restart
    }

    /// Stops the store and starts it with nothing in it, in the same place.
    pub(crate) async fn wipe(self) -> Self {
        let (place, now) = self.stop(AWAY).await;
        let place = match place {
            Place::Files(folder) => {
                Place::Files(folder.map(|_| tempfile::tempdir().expect("a folder")))
            }
            Place::Redis { urls, namespace } => {
                for url in &urls {
                    redis::wipe(url, &namespace);
                }
                Place::Redis { urls, namespace }
            }
        };
        Self::open(place, now)
    }

    /// Stops the store, copies what it has written, and starts it again; `None` where there is
    /// nothing to copy.
    pub(crate) async fn back_up(self) -> (Self, Option<Backup>) {
        if !matches!(self.place, Place::Files(Some(_))) {
            return (self, None);
        }
        let (place, now) = self.stop(Duration::ZERO).await;
        let Place::Files(folder) = place else { panic!("files") };
        let backup = folder.as_ref().map(copy_of);
        (Self::open(Place::Files(folder), now), backup.map(Backup))
    }

    /// Stops the store, and starts it with what it had written when it was copied.
    pub(crate) async fn restore(self, backup: &Backup) -> Self {
        let (_, now) = self.stop(AWAY).await;
        Self::open(Place::Files(Some(copy_of(&backup.0))), now)
    }

    async fn stop(self, away: Duration) -> (Place, Timestamp) {
        self.stores.operation.close().await.expect("the store closes");
        (self.place, self.clock.now().saturating_add(away))
    }

    /// Stops the store and starts it again, `later`; `None` where nothing survives that.
    pub(crate) async fn restart(self, later: Duration) -> Option<Self> {
        let survives = self.survives_restart();
        let (place, now) = self.stop(later).await;
        survives.then(|| Self::open(place, now))
    }
}

/// Copies the files of a store that is closed.
fn copy_of(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let from = entry.expect("an entry is readable").path();
        let to = copy.path().join(from.file_name().expect("a file has a name"));
        std::fs::copy(from, to).expect("the file is copied");
    }
    copy
}

/// A backend that the cases run against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    /// The embedded store without files.
    Memory,
    /// The embedded store.
    Embedded,
    /// One Redis server.
    Redis,
    /// A Redis cluster.
    RedisCluster,
}

impl Backend {
    /// Opens a fresh store.
    pub(crate) fn open(self) -> Fixture {
        let shared = |urls: &[String]| {
            static CASES: AtomicUsize = AtomicUsize::new(0);
            let namespace = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
            Place::Redis { urls: urls.to_vec(), namespace }
        };
        let place = match self {
            Self::Memory => Place::Files(None),
            Self::Embedded => Place::Files(Some(tempfile::tempdir().expect("a folder"))),
            Self::Redis => shared(&[redis::shared().to_owned()]),
            Self::RedisCluster => shared(redis::shared_cluster()),
        };
        let start = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
        Fixture::open(place, start)
    }
}

/// Random numbers that come again with the same seed (SplitMix64).
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
