//! The settings that every backend has in common: budgets and retentions of the resources, and how often
//! the store is maintained.
//!
//! Not the settings of one backend. Invariant: a resource's settings stand in the contract of that
//! resource; here they are listed.

use std::time::Duration;

use serde::Deserialize;

use super::{
    AggregateSettings, CacheSettings, CheckpointSettings, GenerationSettings, LeaseSettings,
    LockSettings, SeriesSettings,
};
use crate::model::settings::{self, Settings, Violations};

/// What every backend is opened with. Each field is read from the section of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StoreSettings {
    /// The budget and the retention of series.
    pub series: SeriesSettings,
    /// The limit on locks.
    pub locks: LockSettings,
    /// The limit on leases.
    pub leases: LeaseSettings,
    /// The retention of checkpoints, and the limit on them.
    pub checkpoints: CheckpointSettings,
    /// The limit on generations.
    pub generations: GenerationSettings,
    /// The memory of aggregates, and the limits on them.
    pub aggregates: AggregateSettings,
    /// How much is cached.
    pub cache: CacheSettings,
    /// When buffered writes are flushed.
    pub flush: FlushSettings,
    /// When expired entries are purged.
    pub gc: PurgeSettings,
}

impl Settings for StoreSettings {
    fn check(&mut self, violations: &mut Violations) {
        self.cache.check(violations);
    }
}

impl StoreSettings {
    /// Returns settings that are roomy enough for tests and throw-away runs, and flush only when asked.
    pub fn for_tests() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            series: SeriesSettings {
                retention: DAY,
                max_future_skew: Duration::from_secs(600),
                max_series: 1_000_000,
                max_bytes: 1 << 30,
                max_tombstones: 100_000,
            },
            locks: LockSettings { max_locks: 1_000_000 },
            leases: LeaseSettings { max_leases: 1_000_000 },
            checkpoints: CheckpointSettings { retention: DAY, max_checkpoints: 1_000_000 },
            generations: GenerationSettings { max_generations: 1_000_000 },
            aggregates: AggregateSettings {
                memory: 64 << 20,
                max_values: 10_000_000,
                max_event_ids: 10_000_000,
                max_producers: 1_000_000,
                max_outbox_notes: 100_000,
                max_outbox_bytes: 32 << 20,
            },
            cache: CacheSettings::default(),
            flush: FlushSettings { interval: DAY, threshold: usize::MAX },
            gc: PurgeSettings { interval: DAY },
        }
    }
}

/// `[flush]`: when buffered writes are flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FlushSettings {
    /// How long the oldest buffered write may wait.
    #[serde(deserialize_with = "settings::duration")]
    pub interval: Duration,
    /// How many buffered writes cause a flush before the interval ends.
    #[serde(deserialize_with = "settings::count")]
    pub threshold: usize,
}

/// `[gc]`: when expired entries are purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PurgeSettings {
    /// The time between two purges.
    #[serde(deserialize_with = "settings::duration")]
    pub interval: Duration,
}
