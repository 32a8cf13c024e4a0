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
mod shards;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::cache::RedisCache;
use self::checkpoints::RedisCheckpoints;
use self::generations::RedisGenerations;
use self::leases::RedisLeases;
use self::link::Link;
use self::locks::RedisLocks;
use self::operation::RedisOperation;
use self::series::RedisSeries;
use self::shards::Shards;
use super::{CacheSettings, StoreResult, Stores};
use crate::clock::SharedClock;

/// The settings of the Redis backend.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://` or `rediss://` URLs: the server, or some nodes of the cluster.
    pub urls: Vec<String>,
    /// The URLs are of nodes of a cluster.
    pub cluster: bool,
    /// Instead of the user in the URLs.
    pub username: Option<String>,
    /// Instead of the password in the URLs.
    pub password: Option<String>,
    /// Instead of the database in the URLs; a cluster has only 0.
    pub database: Option<i64>,
    /// The certificates that TLS trusts, as PEM; the system's where `None`.
    pub ca_file: Option<PathBuf>,
    /// What all keys begin with, so that several holdalls can share a Redis.
    pub namespace: String,
    /// Into how many shards everything is divided. Must stay the same while data exists.
    pub index_shards: usize,
    /// How long it may take to connect.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// A series that was not updated for this long expires.
    pub series_retention: Duration,
    /// The most live series.
    pub max_series: usize,
    /// The most deletions that are remembered for cursors.
    pub max_tombstones: usize,
    /// A checkpoint that was not written for this long expires.
    pub checkpoint_retention: Duration,
    /// How much is cached.
    pub cache: CacheSettings,
    /// A clock instead of that of Redis, for tests.
    pub clock: Option<SharedClock>,
}

impl RedisSettings {
    /// Returns the largest cached value that has room in a shard beside the longest names, in bytes.
    pub fn largest_cached_value(&self) -> usize {
        cache::largest_value(self.cache, self.index_shards)
    }
}

/// Opens the backend. Connects when it is first used, so that a server starts also while Redis is
/// away, and is ready when it is back.
///
/// # Errors
/// When the settings make no sense.
pub fn open(settings: &RedisSettings) -> StoreResult<Stores> {
    // Fails where another part of the process has chosen one already, which serves as well.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let link = Link::new(settings)?;
    let shards = Arc::new(Shards::new(
        link,
        settings.namespace.clone(),
        settings.index_shards,
        settings.clock.clone(),
    ));
    let series = Arc::new(RedisSeries::new(Arc::clone(&shards), settings));
    let checkpoints = RedisCheckpoints::new(Arc::clone(&shards), settings.checkpoint_retention);
    Ok(Stores {
        series: Arc::clone(&series) as _,
        locks: Arc::new(RedisLocks::new(Arc::clone(&shards))),
        leases: Arc::new(RedisLeases::new(Arc::clone(&shards))),
        checkpoints: Arc::new(checkpoints),
        generations: Arc::new(RedisGenerations::new(Arc::clone(&shards))),
        cache: Arc::new(RedisCache::new(Arc::clone(&shards), settings.cache)),
        operation: Arc::new(RedisOperation::new(shards, series, settings.checkpoint_retention)),
    })
}
