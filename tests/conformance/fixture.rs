//! What a conformance case is given: a store of its own, and the clock that it runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::time::Timestamp;
use holdall::store::CacheSettings;
use holdall::store::Stores;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open_with};
use holdall::store::redis::RedisSettings;
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

/// A store under test.
pub(crate) struct Fixture {
    /// The store.
    pub(crate) stores: Stores,
    /// Its clock.
    pub(crate) clock: Arc<ManualClock>,
    place: Place,
}

/// Where a store keeps what it holds.
enum Place {
    /// In memory, or in files that live as long as this.
    Files(Option<TempDir>),
    /// Under a namespace of its own in a Redis that all cases share.
    Redis { urls: Vec<String>, cluster: bool, namespace: String },
}

/// How many shards a Redis store has here.
const SHARDS: usize = 4;

impl Fixture {
    fn open(place: Place, now: Timestamp) -> Self {
        let clock = Arc::new(ManualClock::at(now));
        let shared = Arc::clone(&clock) as SharedClock;
        let stores = match &place {
            Place::Files(folder) => {
                let settings = EmbeddedSettings {
                    path: folder.as_ref().map(|folder| folder.path().to_owned()),
                    sync: SyncMode::Normal,
                    series_retention: RETENTION,
                    max_series: MAX_SERIES,
                    max_tombstones: MAX_TOMBSTONES,
                    checkpoint_retention: CHECKPOINT_RETENTION,
                    flush_threshold: usize::MAX,
                    cache: CacheSettings::default(),
                };
                open_with(&settings, |_| shared).expect("the store opens").0
            }
            Place::Redis { urls, cluster, namespace } => {
                let settings = RedisSettings {
                    urls: urls.clone(),
                    cluster: *cluster,
                    username: None,
                    password: None,
                    database: None,
                    ca_file: None,
                    namespace: namespace.clone(),
                    index_shards: SHARDS,
                    connect_timeout: Duration::from_secs(10),
                    timeout: Duration::from_secs(20),
                    series_retention: RETENTION,
                    max_series: MAX_SERIES,
                    max_tombstones: MAX_TOMBSTONES,
                    checkpoint_retention: CHECKPOINT_RETENTION,
                    cache: CacheSettings::default(),
                    clock: Some(shared),
                };
                holdall::store::redis::open(&settings).expect("the store opens")
            }
        };
        Self { stores, clock, place }
    }

    /// Stops the store and starts it again, `later`; `None` where nothing survives that.
    pub(crate) async fn restart(self, later: Duration) -> Option<Self> {
        self.stores.operation.close().await.expect("the store closes");
        let survives = self.stores.operation.capabilities().survives_restart;
        let now = self.clock.now().saturating_add(later);
        drop(self.stores);
        survives.then(|| Self::open(self.place, now))
    }
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
        let shared = |urls: &[String], cluster| {
            static CASES: AtomicUsize = AtomicUsize::new(0);
            let namespace = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
            Place::Redis { urls: urls.to_vec(), cluster, namespace }
        };
        let place = match self {
            Self::Memory => Place::Files(None),
            Self::Embedded => Place::Files(Some(tempfile::tempdir().expect("a folder"))),
            Self::Redis => shared(&[redis::shared().to_owned()], false),
            Self::RedisCluster => shared(redis::shared_cluster(), true),
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

    /// Gives a number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bits = usize::try_from((z ^ (z >> 31)) >> 1).expect("a 64-bit machine");
        bits % end
    }
}
