//! The identity of a series, and its id.
//!
//! Invariant: two series have the same key exactly when they have the same name and labels; the id
//! follows from the key alone and never changes between versions.

use std::fmt;
use std::sync::Arc;

use crate::model::Invalid;

/// The identity of a series: its metric name and its canonical labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The metric name.
    pub name: Arc<str>,
    /// The canonical labels, without braces; empty when there are none.
    pub labels: Arc<str>,
}

impl SeriesKey {
    /// Returns the id of the series, see [`SeriesId::of`].
    pub fn id(&self) -> SeriesId {
        SeriesId::of(&self.name, &self.labels)
    }
}

/// Prints the key as the text format does: `name{a="1"}`.
impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.labels) }
    }
}

/// A stable hash of a series' key: the first 128 bits of BLAKE3 over `name{labels}`.
///
/// A cryptographic hash, so that nobody can choose label values for which two series have one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u128);

impl SeriesId {
    /// Computes the id of the series with this name and these canonical labels.
    pub fn of(name: &str, labels: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes()).update(b"{").update(labels.as_bytes()).update(b"}");
        let hash = hasher.finalize();
        let mut head = [0; 16];
        head.copy_from_slice(&hash.as_bytes()[..16]);
        Self(u128::from_be_bytes(head))
    }

    /// Reads the 32 hexadecimal digits of an id.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Invalid::new("a series id has 32 hexadecimal digits"));
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|e| Invalid::new(e.to_string()))
    }

    /// Returns the id as bytes, in the order of its digits.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Returns the first 32 bits, which a hash table may use as the series' hash.
    pub fn prefix(self) -> u32 {
        u32::try_from(self.0 >> 96).unwrap_or_default()
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_the_key_alone() {
        let id = SeriesId::of("up", "job=\"a\"");
        assert_eq!(SeriesId::parse(&id.to_string()), Ok(id));
        assert_ne!(id, SeriesId::of("up", "job=\"b\""));
        // Clients keep ids: they never change between versions.
        assert_eq!(id.to_string(), "ef89066f075cf32529ab4a09767a0df3");
    }
}
