//! Locks: keys that are claimed once for a time.
//!
//! Not leases: a lock has no holder and can't be renewed.
//! Invariant: keys of different kinds are different keys.

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::keys::check_key;

/// What a lock is for. Each kind has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// A job that must run once.
    Job,
    /// A message that must be handled once.
    Dedup,
}

impl LockKind {
    /// Returns the word that paths of the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Dedup => "dedup",
        }
    }
}

/// The name of a lock, within its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockKey {
    /// The kind.
    pub kind: LockKind,
    /// The key.
    pub key: String,
}

impl LockKey {
    /// Builds a key.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(kind: LockKind, key: impl Into<String>) -> Result<Self, Invalid> {
        let key = key.into();
        check_key("a lock's key", &key)?;
        Ok(Self { kind, key })
    }
}
