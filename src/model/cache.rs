//! Cached values: bytes that are valid until the generation of their key moves.
//!
//! Not the cache itself, which is in the stores.
//! Invariant: a content hash names bytes and content type together.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Invalid;
use super::hex::{parse_hex, write_hex};
use super::keys::check_key;
use super::time::Timestamp;

/// The longest name of a namespace, in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 128;

/// The longest content type, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 256;

/// The unit by which cached values are counted and bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Namespace(String);

impl Namespace {
    /// Builds a namespace.
    ///
    /// # Errors
    /// When it is empty or longer than [`MAX_NAMESPACE_BYTES`].
    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        check_key("a namespace", &name)?;
        if name.len() > MAX_NAMESPACE_BYTES {
            return Err(Invalid::new(format!(
                "a namespace is {} bytes long, more than {MAX_NAMESPACE_BYTES}",
                name.len()
            )));
        }
        Ok(Self(name))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a cached value. Two fields, never joined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The key.
    pub key: String,
}

impl CacheKey {
    /// Builds a key.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(namespace: Namespace, key: impl Into<String>) -> Result<Self, Invalid> {
        let key = key.into();
        check_key("a cached value's key", &key)?;
        Ok(Self { namespace, key })
    }
}

/// The media type of a value, as its writer gave it; only characters that a header can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType(String);

impl ContentType {
    /// Builds a content type.
    ///
    /// # Errors
    /// When it is blank, longer than [`MAX_CONTENT_TYPE_BYTES`], or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let plain = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if text.is_empty() || text.len() > MAX_CONTENT_TYPE_BYTES || !plain {
            return Err(Invalid::new(format!(
                "a content type has 1 to {MAX_CONTENT_TYPE_BYTES} printable ASCII characters"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the content type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ContentType {
    fn default() -> Self {
        Self("application/octet-stream".to_owned())
    }
}

/// Identifies a value's bytes and content type: the first 128 bits of their BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Computes the hash of `bytes` with this content type.
    pub fn of(content_type: &ContentType, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        // The bytes first: BLAKE3 hashes several KiB at once where they begin at a whole block.
        hasher.update(bytes);
        hasher.update(content_type.0.as_bytes());
        // The length of the second part makes the split between both parts unambiguous.
        hasher.update(&content_type.0.len().to_le_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, (self.0 >> 64) as u64)?;
        write_hex(f, self.0 as u64)
    }
}

/// A value in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedValue {
    /// The bytes.
    pub bytes: Bytes,
    /// Their media type.
    pub content_type: ContentType,
    /// Identifies both.
    pub hash: ContentHash,
    /// When the value expires, unless it is dropped before.
    pub expires_at: Timestamp,
}

/// Why a lookup found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MissReason {
    /// Nothing was put under this key as far as the cache remembers, or it was deleted.
    Absent,
    /// The value had expired.
    Expired,
    /// The generation had moved since the value was made.
    Stale,
    /// The value was evicted to make room.
    Evicted,
}

impl MissReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Absent, Self::Expired, Self::Stale, Self::Evicted];

    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Evicted => "evicted",
        }
    }
}

/// Identifies a fill claim. To clients it is an opaque string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FillToken(pub u64);

impl FillToken {
    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text is not a fill token.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let number = parse_hex(text);
        number.map(Self).ok_or_else(|| Invalid::new("not a fill token that this server issued"))
    }
}

impl fmt::Display for FillToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_bytes_and_on_the_content_type() {
        let text = ContentType::parse("text/plain").expect("valid");
        let plain = ContentHash::of(&text, b"abc");
        assert_eq!(plain, ContentHash::of(&text, b"abc"));
        assert_ne!(plain, ContentHash::of(&text, b"abd"));
        let longer = ContentType::parse("text/plaina").expect("valid");
        assert_ne!(ContentHash::of(&text, b"aabc"), ContentHash::of(&longer, b"abc"));
    }

    #[test]
    fn a_hash_is_printed_with_all_digits() {
        for number in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0000_0000_0000_00f0] {
            assert_eq!(ContentHash(number).to_string(), format!("{number:032x}"));
        }
    }

    #[test]
    fn a_fill_token_reads_back_as_printed() {
        let token = FillToken(u64::MAX - 7);
        assert_eq!(FillToken::parse(&token.to_string()), Ok(token));
        assert!(FillToken::parse("+000000000000007").is_err());
    }
}
