//! A place in the order of changes.
//!
//! Invariant: the cursors of two lives of a store differ in their epoch, so that numbers
//! which start again can never be taken for those of an earlier life.

use std::fmt;
use std::fmt::Write as _;

use super::Invalid;

/// The most parts of a store that number their changes on their own.
pub const MAX_SHARDS: usize = 1024;

/// An opaque string to clients: the epoch of the store and the number of the last change seen, for
/// each part of the store that numbers its changes on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which life of the store the numbers belong to.
    pub epoch: u64,
    /// The numbers of the last changes that were seen; 0 is before all.
    pub seqs: Vec<u64>,
}

impl Cursor {
    /// Makes a cursor of a store of one part.
    pub fn single(epoch: u64, seq: u64) -> Self {
        Self { epoch, seqs: vec![seq] }
    }

    /// Returns the number of a store of one part; `None` when this is not of such a store.
    pub fn as_single(&self) -> Option<u64> {
        match *self.seqs {
            [seq] => Some(seq),
            _ => None,
        }
    }

    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text was not made by this server's kind.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let (epoch, seqs) = text.split_once('-')?;
            let plain = |b: u8| b.is_ascii_digit() || b == b'.';
            if epoch.len() != 16 || !seqs.bytes().all(plain) {
                return None;
            }
            let seqs: Option<Vec<u64>> =
                seqs.split('.').take(MAX_SHARDS + 1).map(|seq| seq.parse().ok()).collect();
            let seqs = seqs.filter(|seqs| seqs.len() <= MAX_SHARDS)?;
            Some(Self { epoch: u64::from_str_radix(epoch, 16).ok()?, seqs })
        };
        parse().ok_or_else(|| Invalid::new("not a cursor that this server gave"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.epoch)?;
        for (n, seq) in self.seqs.iter().enumerate() {
            f.write_char(if n == 0 { '-' } else { '.' })?;
            write!(f, "{seq}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_nothing_else_is_one() {
        for seqs in [vec![0], vec![7, u64::MAX, 0]] {
            let cursor = Cursor { epoch: 3, seqs };
            assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }
        let many = format!("{:016x}-{}0", 1, "0.".repeat(MAX_SHARDS));
        for text in ["", "-", "0000000000000001-", "0000000000000001-1.", "1-1", &many] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
    }
}
