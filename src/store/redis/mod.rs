//! The Redis backend: several replicas share one Redis or Valkey, or a cluster of them.
//!
//! All data lies in shards. A change of a shard is one script, so that it happens whole or not at all; what
//! spans shards takes several steps, as `Capabilities` says. The time is that of Redis. Resources are built
//! on `core` and never import each other. The only place that names the driver.

mod aggregates;
mod cache;
mod checkpoints;
mod core;
mod generations;
mod leases;
mod locks;
mod operation;
mod series;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::aggregates::RedisAggregates;
use self::cache::RedisCache;
use self::checkpoints::RedisCheckpoints;
use self::core::client::Client;
pub use self::core::settings::RedisSettings;
use self::core::shards::Shards;
use self::core::upkeep::Upkeep;
use self::generations::RedisGenerations;
use self::leases::RedisLeases;
use self::locks::RedisLocks;
use self::operation::RedisOperation;
use self::series::RedisSeries;
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

/// Opens the backend. It connects when it is first used, so that a server starts while Redis is
/// away, and is ready when it is back.
///
/// # Errors
/// When the settings are invalid.
pub fn open(settings: &RedisSettings, store: &StoreSettings) -> StoreResult<Stores> {
    open_with(settings, store, None)
}

/// As [`open`], with a clock that replaces that of Redis, for tests.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    settings: &RedisSettings,
    store: &StoreSettings,
    clock: Option<SharedClock>,
) -> StoreResult<Stores> {
    // Fails where another part of the process has installed one already, which serves as well.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let shards = Arc::new(Shards::new(
        Client::new(settings)?,
        settings.namespace.clone(),
        settings.index_shards,
        clock,
    ));
    let series = Arc::new(RedisSeries::new(Arc::clone(&shards), &store.series));
    let locks = Arc::new(RedisLocks::new(Arc::clone(&shards), store.locks));
    let leases = Arc::new(RedisLeases::new(Arc::clone(&shards), store.leases));
    let checkpoints = Arc::new(RedisCheckpoints::new(Arc::clone(&shards), store.checkpoints));
    let generations = Arc::new(RedisGenerations::new(Arc::clone(&shards), store.generations));
    let cache = Arc::new(RedisCache::new(Arc::clone(&shards), store.cache));
    let aggregates = Arc::new(RedisAggregates::new(Arc::clone(&shards), store.aggregates));
    // The order in which resources are reported.
    let resources: Vec<Arc<dyn Upkeep>> = vec![
        Arc::clone(&series) as _,
        Arc::clone(&locks) as _,
        Arc::clone(&leases) as _,
        Arc::clone(&checkpoints) as _,
        Arc::clone(&generations) as _,
        Arc::clone(&cache) as _,
        Arc::clone(&aggregates) as _,
    ];
    Ok(Stores {
        series,
        locks,
        leases,
        checkpoints,
        generations,
        cache,
        aggregates: Some(aggregates),
        outbox: None,
        operation: Arc::new(RedisOperation::new(shards, resources)),
    })
}
