//! Locks: keys that are claimed once for a time.

use serde::{Deserialize, Serialize};

use super::{Invalid, check_key};

/// What a lock is for. The kinds are name spaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// A job that must run once.
    Job,
    /// A message that must be handled once.
    Dedup,
}

impl LockKind {
    /// Returns the word that stands in paths.
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
