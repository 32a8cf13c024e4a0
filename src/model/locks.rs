//! Locks: keys that are claimed once for a time.
//!
//! Not leases: a lock has no holder and can't be renewed.
//! Invariant: keys of different kinds are different keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::hex;
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

/// What releases the locks of one acquisition. To clients it is an opaque string; nobody can guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseToken(pub [u8; 16]);

impl ReleaseToken {
    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text is not a release token.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes = hex::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| Invalid::new("not a release token that this server issued"))
    }
}

impl fmt::Display for ReleaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl From<ReleaseToken> for String {
    fn from(token: ReleaseToken) -> Self {
        hex::encode(&token.0)
    }
}

impl TryFrom<String> for ReleaseToken {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_token_reads_back_as_printed_and_nothing_else_is_one() {
        let token = ReleaseToken([0x0f; 16]);
        assert_eq!(ReleaseToken::parse(&token.to_string()), Ok(token));
        for text in ["", "0f", &"0f".repeat(17), &"zz".repeat(16)] {
            assert!(ReleaseToken::parse(text).is_err(), "{text}");
        }
    }
}
