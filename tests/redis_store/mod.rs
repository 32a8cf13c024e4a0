//! What only the Redis store can get wrong: shards that know different things, replicas that pass
//! each other, and a Redis that loses what it had acknowledged.

mod bounded;
mod cache;
mod exclusion;
mod fencing;
mod garbage;
mod late;
mod layout;
mod lost_data;
mod lost_fences;
mod lost_past;
mod masters;
mod partial;
mod replica;
mod slots;
mod status;
mod weaknesses;
mod work;

use std::time::Duration;

use holdall::clock::SharedClock;
use holdall::store::redis::{RedisSettings, open, open_with};
use holdall::store::{CheckpointSettings, SeriesSettings, StoreSettings, Stores};

/// Returns the settings that all replicas share here.
pub(crate) fn store_settings() -> StoreSettings {
    let retention = Duration::from_secs(3600);
    StoreSettings {
        series: SeriesSettings {
            retention,
            max_future_skew: retention,
            max_series: 1_000,
            max_bytes: 1 << 30,
            max_tombstones: 1_000,
        },
        checkpoints: CheckpointSettings { retention, max_checkpoints: 1_000_000 },
        ..StoreSettings::for_tests()
    }
}

/// Opens the store of one replica, on the clock of Redis.
pub(crate) fn replica(urls: &[String], namespace: &str) -> Stores {
    let settings = RedisSettings::for_tests(urls, namespace);
    open(&settings, &store_settings()).expect("the settings make sense")
}

/// Opens the store of one replica, on a test's clock.
pub(crate) fn replica_at(urls: &[String], namespace: &str, clock: SharedClock) -> Stores {
    let settings = RedisSettings::for_tests(urls, namespace);
    open_with(&settings, &store_settings(), Some(clock)).expect("the settings make sense")
}
