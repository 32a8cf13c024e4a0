//! The Redis backend: several replicas share one Redis or Valkey, or a cluster of them.
//!
//! Everything lies in shards; a change of a shard is one script, so that it happens whole or not
//! at all. What spans shards is several steps, and `Capabilities` says so. Time is that of
//! Redis. The only place that names the driver.

mod cache;
mod checkpoints;
mod garbage;
mod generations;
mod guard;
mod leases;
mod link;
mod locks;
mod operation;
mod replies;
mod script;
mod series;
mod settings;
mod shards;

use std::sync::Arc;

use self::cache::RedisCache;
use self::checkpoints::RedisCheckpoints;
use self::generations::RedisGenerations;
use self::leases::RedisLeases;
use self::link::Link;
use self::locks::RedisLocks;
use self::operation::RedisOperation;
use self::series::RedisSeries;
pub use self::settings::RedisSettings;
use self::shards::Shards;
use super::{CacheSettings, StoreResult, StoreSettings, Stores};
use crate::clock::SharedClock;
use crate::model::settings::Violations;

/// Checks that a shard has room for the largest cached value.
pub fn check_cached_value(
    shards: usize,
    max_value_bytes: usize,
    settings: &CacheSettings,
    violations: &mut Violations,
) {
    let largest = cache::largest_value(*settings, shards);
    violations.require(
        max_value_bytes <= largest,
        &["cache.max_value_bytes", "cache.namespace_max_bytes", "store.redis.index_shards"],
        || {
            format!(
                "must be at most {largest}: each of store.redis.index_shards has its part of \
                 cache.namespace_max_bytes, and a value lies in one of them"
            )
        },
    );
}

/// Opens the backend. Connects when it is first used, so that a server starts also while Redis is
/// away, and is ready when it is back.
///
/// # Errors
/// When the settings make no sense.
pub fn open(settings: &RedisSettings, store: &StoreSettings) -> StoreResult<Stores> {
    open_with(settings, store, None)
}

/// As [`open`], with a clock instead of that of Redis, for tests.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    settings: &RedisSettings,
    store: &StoreSettings,
    clock: Option<SharedClock>,
) -> StoreResult<Stores> {
    // Fails where another part of the process has chosen one already, which serves as well.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let link = Link::new(settings)?;
    let shards =
        Arc::new(Shards::new(link, settings.namespace.clone(), settings.index_shards, clock));
    let series = Arc::new(RedisSeries::new(Arc::clone(&shards), &store.series));
    let checkpoints = RedisCheckpoints::new(Arc::clone(&shards), store.checkpoints.retention);
    Ok(Stores {
        series: Arc::clone(&series) as _,
        locks: Arc::new(RedisLocks::new(Arc::clone(&shards))),
        leases: Arc::new(RedisLeases::new(Arc::clone(&shards))),
        checkpoints: Arc::new(checkpoints),
        generations: Arc::new(RedisGenerations::new(Arc::clone(&shards))),
        cache: Arc::new(RedisCache::new(Arc::clone(&shards), store.cache)),
        operation: Arc::new(RedisOperation::new(shards, series, store.checkpoints.retention)),
    })
}
