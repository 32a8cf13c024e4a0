//! A place in the order of changes.
//!
//! Invariant: the cursors of two lives of a store differ in their epoch, so that numbers
//! which start again can never be taken for those of an earlier life.

use std::fmt;

use super::Invalid;

/// An opaque string to clients: the epoch of the store and the number of the last change seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which life of the store the number belongs to.
    pub epoch: u64,
    /// The number of the last change that was seen; 0 is before all.
    pub seq: u64,
}

impl Cursor {
    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text was not made by this server's kind.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let (epoch, seq) = text.split_once('-')?;
            if epoch.len() != 16 || !seq.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Some(Self { epoch: u64::from_str_radix(epoch, 16).ok()?, seq: seq.parse().ok()? })
        };
        parse().ok_or_else(|| Invalid::new("not a cursor that this server gave"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.seq)
    }
}
