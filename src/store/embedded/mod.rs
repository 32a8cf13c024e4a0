//! The embedded backend: two SQLite files and what is held in memory; also, without
//! files, the `memory` backend.
//!
//! `state.db` holds the strong data (locks, leases, checkpoints), `cache.db` the weak (series).

mod checkpoints;
mod leases;
mod locks;
mod sqlite;
pub mod state;

use std::path::PathBuf;
use std::time::Duration;

pub use self::sqlite::OpenError;

/// How hard a strong write is pressed on the disk before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// `fsync` before the answer: survives a power cut.
    Full,
    /// Handed to the operating system before the answer: survives `kill -9`.
    Normal,
}

/// The settings of the embedded backend.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The folder of the files; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// See [`SyncMode`].
    pub sync: SyncMode,
    /// A series that was not updated for this long expires.
    pub series_retention: Duration,
    /// The most live series.
    pub max_series: usize,
    /// The most deletions that are remembered for cursors.
    pub max_tombstones: usize,
    /// A checkpoint that was not written for this long expires.
    pub checkpoint_retention: Duration,
    /// Weak writes are brought to disk when the oldest has waited this long.
    pub flush_interval: Duration,
    /// ... or when this many wait.
    pub flush_threshold: usize,
}

// Wired when the strong half has landed:
// pub fn open(settings: &EmbeddedSettings) -> Result<(Stores, SharedClock), OpenError>
// pub fn open_with(settings: &EmbeddedSettings, start_clock: impl FnOnce(Timestamp) -> SharedClock)
//     -> Result<(Stores, SharedClock), OpenError>
