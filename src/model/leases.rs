//! Leases: locks with a holder, which can be renewed and released. The fencing token lets a store
//! refuse the writes of a holder that lost its lease without noticing it
//! (Kleppmann, "How to do distributed locking", 2016).
//!
//! Not the granting, which the stores do.
//! Invariant: of two tokens of one lease, the greater one was granted later.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::keys::check_key;
use super::number::parse_whole;
use super::time::Timestamp;

/// The name of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseName(String);

impl LeaseName {
    /// Builds a name.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        check_key("a lease's name", &name)?;
        Ok(Self(name))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds a lease: any text that the holder chose for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder(String);

impl Holder {
    /// Builds a holder.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(holder: impl Into<String>) -> Result<Self, Invalid> {
        let holder = holder.into();
        check_key("a holder", &holder)?;
        Ok(Self(holder))
    }

    /// Returns the holder as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who asks for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The name that the client chose.
    pub holder: Holder,
    /// The name of the access token that the client showed; empty where there are no tokens. Names of holders are
    /// public, so they prove nothing; the token does.
    pub access: String,
}

impl Claimant {
    /// Makes a claimant that showed no token.
    pub fn anonymous(holder: Holder) -> Self {
        Self { holder, access: String::new() }
    }
}

/// A number that grows each time a lease is granted, for ever. From 1, within int64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FencingToken(pub i64);

impl FencingToken {
    /// Reads a token as it is printed: digits, without a sign, blanks or leading zeros.
    ///
    /// # Errors
    /// For any other text.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match parse_whole(text) {
            Some(token @ 1..) => Ok(Self(token)),
            _ => Err(Invalid::new("not an integer from 1")),
        }
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub holder: Holder,
    /// The token of this grant.
    pub token: FencingToken,
    /// When it expires unless it is renewed.
    pub expires_at: Timestamp,
    /// The ttl of a renewal that names none.
    pub ttl: Duration,
}

/// What a fenced write asserts: that this lease is held under this token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The lease.
    pub lease: LeaseName,
    /// The token that its holder was granted.
    pub token: FencingToken,
}
