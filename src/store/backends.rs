//! The list of backends: which one is configured, and how it is opened.
//!
//! Invariant: no other file outside of a backend's folder asks which backend it is.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::embedded::{self, EmbeddedSettings, OpenError, SyncMode};
use super::redis::{self, RedisSettings};
use super::{CacheSettings, SeriesSettings, StoreError, StoreSettings, Stores};
use crate::clock::{SharedClock, SystemClock};
use crate::model::settings::{Settings, Violations, one_of};

/// `[store]`: the backend, and the settings of each.
#[derive(Debug, Clone, Deserialize)]
pub struct BackendSettings {
    /// Which one is used.
    pub backend: Backend,
    /// The folder of the embedded store.
    pub path: PathBuf,
    /// See [`SyncMode`]; for the embedded store.
    pub sync: SyncMode,
    /// `[store.redis]`.
    pub redis: RedisSettings,
}

/// The backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Backend {
    /// Files of one machine.
    Embedded,
    /// Nothing survives the process.
    Memory,
    /// A Redis or Valkey that replicas share.
    Redis,
}

impl TryFrom<String> for Backend {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(
            &text,
            &[("embedded", Self::Embedded), ("memory", Self::Memory), ("redis", Self::Redis)],
        )
    }
}

/// The backend that is configured, with its settings.
enum Configured<'a> {
    Embedded(EmbeddedSettings),
    Redis(&'a RedisSettings),
}

impl BackendSettings {
    fn configured(&self) -> Configured<'_> {
        let path = match self.backend {
            Backend::Redis => return Configured::Redis(&self.redis),
            Backend::Embedded => Some(self.path.clone()),
            Backend::Memory => None,
        };
        Configured::Embedded(EmbeddedSettings { path, sync: self.sync })
    }

    /// Checks that each part of the configured backend has room for a series.
    pub fn check_series(&self, series: &SeriesSettings, violations: &mut Violations) {
        if let Configured::Redis(redis) = self.configured() {
            violations.require(
                series.max_series >= redis.index_shards,
                &["series.max_series", "store.redis.index_shards"],
                || "must be at least store.redis.index_shards: each shard has its part".to_owned(),
            );
        }
    }

    /// Checks that the configured backend has room for the largest cached value.
    pub fn check_cached_value(
        &self,
        max_value_bytes: usize,
        cache: &CacheSettings,
        violations: &mut Violations,
    ) {
        match self.configured() {
            Configured::Embedded(_) => {
                embedded::check_cached_value(max_value_bytes, cache, violations);
            }
            Configured::Redis(redis) => {
                redis::check_cached_value(redis.index_shards, max_value_bytes, cache, violations);
            }
        }
    }
}

impl Settings for BackendSettings {
    fn check(&mut self, violations: &mut Violations) {
        self.redis.check(violations);
    }
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenFailed {
    /// The embedded store.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// A store on the network.
    #[error(transparent)]
    Remote(#[from] StoreError),
    /// The thread that opens it ended too early.
    #[error("opening the store panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Opens the configured backend, and returns it with the clock to use beside it.
///
/// # Errors
/// See [`OpenFailed`].
pub async fn open(
    backend: &BackendSettings,
    store: &StoreSettings,
) -> Result<(Stores, SharedClock), OpenFailed> {
    match backend.configured() {
        Configured::Embedded(settings) => {
            let store = *store;
            // Blocks for as long as it reads and checks the files, which may take seconds.
            let opened = tokio::task::spawn_blocking(move || embedded::open(&settings, &store));
            Ok(opened.await??)
        }
        Configured::Redis(settings) => {
            let stores = redis::open(settings, store)?;
            // The store itself goes by the time of Redis; this clock is for what only concerns this replica.
            Ok((stores, Arc::new(SystemClock::resume(None))))
        }
    }
}
