//! What a conformance case is given: a store of its own, and the clock that it runs on.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::time::Timestamp;
use holdall::store::Stores;
use holdall::store::embedded::{CacheSettings, EmbeddedSettings, SyncMode, open_with};
use tempfile::TempDir;

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
    /// Lives as long as the store's files.
    folder: Option<TempDir>,
}

impl Fixture {
    fn open(folder: Option<TempDir>, now: Timestamp) -> Self {
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
        let clock = Arc::new(ManualClock::at(now));
        let shared = Arc::clone(&clock) as SharedClock;
        let (stores, _) = open_with(&settings, |_| shared).expect("the store opens");
        Self { stores, clock, folder }
    }

    /// Stops the store and starts it again, `later`; `None` where nothing survives that.
    pub(crate) async fn restart(self, later: Duration) -> Option<Self> {
        self.stores.operation.close().await.expect("the store closes");
        let survives = self.stores.operation.capabilities().survives_restart;
        let now = self.clock.now().saturating_add(later);
        drop(self.stores);
        survives.then(|| Self::open(self.folder, now))
    }
}

/// A backend that the cases run against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    /// The embedded store without files.
    Memory,
    /// The embedded store.
    Embedded,
}

impl Backend {
    /// Opens a fresh store.
    pub(crate) fn open(self) -> Fixture {
        let folder = match self {
            Self::Memory => None,
            Self::Embedded => Some(tempfile::tempdir().expect("a folder")),
        };
        let start = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
        Fixture::open(folder, start)
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
