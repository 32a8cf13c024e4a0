//! The CRC-32 that stands beside each row of the series on disk.
//!
//! Pages have no checksums in SQLite, so a flipped bit in a row would be read as another value. Invariant: a row
//! that was altered, or that stands under another number, does not have its checksum.

use crc32fast::Hasher;

/// What a row of `samples` has beside its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampleRow {
    pub(super) value_bits: i64,
    pub(super) updated_at_nanos: i64,
    pub(super) metadata: u32,
    /// `None` in a row of an earlier version.
    pub(super) role: Option<u8>,
}

/// Of a name.
pub(super) fn name(id: u32, text: &str) -> i64 {
    of(&[i64::from(id)], &[text])
}

/// Of metadata.
pub(super) fn metadata(id: u32, word: &str, help: &str, unit: &str) -> i64 {
    of(&[i64::from(id)], &[word, help, unit])
}

/// Of the name and the labels of a series.
pub(super) fn key(slot: u32, name: u32, labels: &str) -> i64 {
    of(&[i64::from(slot), i64::from(name)], &[labels])
}

/// Of a sample.
pub(super) fn sample(slot: u32, sample: &SampleRow) -> i64 {
    let SampleRow { value_bits, updated_at_nanos, metadata, role } = *sample;
    let numbers = [i64::from(slot), value_bits, updated_at_nanos, i64::from(metadata)];
    match role {
        // As it was before rows had roles.
        None => of(&numbers, &[]),
        Some(role) => of(&[&numbers[..], &[i64::from(role)]].concat(), &[]),
    }
}

/// Of a role.
pub(super) fn role(number: u8, name: &str) -> i64 {
    of(&[i64::from(number)], &[name])
}

fn of(numbers: &[i64], texts: &[&str]) -> i64 {
    let mut hasher = Hasher::new();
    numbers.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
    for text in texts {
        // With its length, so that the borders between texts count.
        hasher.update(&text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    }
    i64::from(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn metadata_that_was_altered_has_another_checksum() {
        let altered = [
            metadata(1, "gauge", "ab", "c"),
            metadata(2, "gauge", "ab", "c"),
            metadata(1, "count", "ab", "c"),
            metadata(1, "gauge", "bb", "c"),
            metadata(1, "gauge", "ab", "d"),
            metadata(1, "gauge", "a", "bc"),
        ];
        assert_eq!(altered.iter().collect::<HashSet<_>>().len(), altered.len());
    }
}
