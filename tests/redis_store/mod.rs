//! What only the Redis store can get wrong: shards that know different things, replicas that pass
//! each other, and a Redis that loses what it had acknowledged.

mod cache;
mod exclusion;
mod fencing;
mod garbage;
mod layout;
mod lost_data;
mod lost_past;
mod replica;

use std::time::Duration;

use holdall::clock::SharedClock;
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{CacheSettings, Stores};

/// Settings that suit tests, with few shards.
pub(crate) fn settings(urls: &[String], namespace: &str) -> RedisSettings {
    RedisSettings {
        urls: urls.to_vec(),
        cluster: urls.len() > 1,
        username: None,
        password: None,
        database: None,
        ca_file: None,
        namespace: namespace.to_owned(),
        index_shards: 4,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        series_retention: Duration::from_secs(3600),
        max_series: 1_000,
        max_tombstones: 1_000,
        checkpoint_retention: Duration::from_secs(3600),
        cache: CacheSettings::default(),
        clock: None,
    }
}

/// Opens the store of one replica, on the clock of Redis.
pub(crate) fn replica(urls: &[String], namespace: &str) -> Stores {
    open(&settings(urls, namespace)).expect("the settings make sense")
}

/// Opens the store of one replica, on a test's clock.
pub(crate) fn replica_at(urls: &[String], namespace: &str, clock: SharedClock) -> Stores {
    let settings = RedisSettings { clock: Some(clock), ..settings(urls, namespace) };
    open(&settings).expect("the settings make sense")
}
