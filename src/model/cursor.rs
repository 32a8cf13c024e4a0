//! Cursors: positions in the order of a store's changes.
//!
//! Not the change log, which the stores keep.
//! Invariant: cursors of two epochs are different, so that sequence numbers which restart are never taken
//! for those of an earlier epoch.

use std::fmt;
use std::fmt::Write as _;

use super::Invalid;

/// The most shards of a store.
pub const MAX_SHARDS: usize = 1024;

/// The epoch of the store, and for each shard the sequence number of the last change that was seen. To
/// clients it is an opaque string. A store without shards counts as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch that the sequence numbers belong to.
    pub epoch: u64,
    /// The sequence number of each shard; 0 is before the first change.
    pub seqs: Vec<u64>,
}

impl Cursor {
    /// Makes a cursor of a store of one shard.
    pub fn single(epoch: u64, seq: u64) -> Self {
        Self { epoch, seqs: vec![seq] }
    }

    /// Returns the sequence number of a store of one shard; `None` for a cursor of several.
    pub fn as_single(&self) -> Option<u64> {
        match *self.seqs {
            [seq] => Some(seq),
            _ => None,
        }
    }

    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text is not a cursor.
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
        parse().ok_or_else(|| Invalid::new("not a cursor that this server issued"))
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
    fn a_cursor_reads_back_as_printed_and_other_text_is_refused() {
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
