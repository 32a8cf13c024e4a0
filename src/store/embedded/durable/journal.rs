//! The form of a journal entry: what one group of commands changed.
//!
//! An entry is a version byte, its changes, and a CRC-32 over its number and all that. A
//! change is the table's tag, the key and the row as JSON, each after its length in bytes as a
//! little-endian u32; the length [`REMOVED`] stands for a row that was removed.
//! Invariant: an entry that was altered, cut, or put at another place does not read.

use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;
const REMOVED: u32 = u32::MAX;
const CRC_BYTES: usize = 4;

/// An entry that is being written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn new() -> Self {
        Self { bytes: vec![VERSION] }
    }

    /// Adds a change.
    pub(super) fn push<K: Serialize, V: Serialize>(
        &mut self,
        tag: u8,
        key: &K,
        row: Option<&V>,
    ) -> serde_json::Result<()> {
        self.bytes.push(tag);
        self.push_json(key)?;
        self.push_row(row)
    }

    /// Adds a change of a row whose key is JSON already.
    pub(super) fn push_with_key_text<V: Serialize>(
        &mut self,
        tag: u8,
        key: &str,
        row: Option<&V>,
    ) -> serde_json::Result<()> {
        self.bytes.push(tag);
        let length = u32::try_from(key.len()).map_err(serde::ser::Error::custom)?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.push_row(row)
    }

    fn push_row<V: Serialize>(&mut self, row: Option<&V>) -> serde_json::Result<()> {
        match row {
            Some(row) => self.push_json(row),
            None => {
                self.bytes.extend_from_slice(&REMOVED.to_le_bytes());
                Ok(())
            }
        }
    }

    fn push_json<T: Serialize>(&mut self, value: &T) -> serde_json::Result<()> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.bytes, value)?;
        let length = self.bytes.len() - at - 4;
        let length = u32::try_from(length)
            .ok()
            .filter(|length| *length != REMOVED)
            .ok_or_else(|| serde::ser::Error::custom("a value of more than 4 GiB"))?;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Ends the entry that becomes number `seq`.
    pub(super) fn seal(mut self, seq: i64) -> Vec<u8> {
        let crc = checksum(seq, &self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

fn checksum(seq: i64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// One change, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect<'a> {
    pub(super) tag: u8,
    /// JSON.
    pub(super) key: &'a str,
    /// JSON; `None` when the row was removed.
    pub(super) row: Option<&'a str>,
}

impl Effect<'_> {
    pub(super) fn decode<K: DeserializeOwned, V: DeserializeOwned>(
        &self,
    ) -> serde_json::Result<(K, Option<V>)> {
        let key = serde_json::from_str(self.key)?;
        let row = self.row.map(serde_json::from_str).transpose()?;
        Ok((key, row))
    }
}

/// Reads the changes of entry number `seq`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(seq: i64, bytes: &[u8]) -> Result<Vec<Effect<'_>>, String> {
    let (body, crc) = bytes
        .len()
        .checked_sub(CRC_BYTES)
        .map(|at| bytes.split_at(at))
        .ok_or_else(|| format!("journal entry {seq} is cut off"))?;
    if checksum(seq, body).to_le_bytes() != crc {
        return Err(format!("journal entry {seq} does not have its checksum"));
    }
    let Some((&VERSION, mut rest)) = body.split_first() else {
        return Err(format!("journal entry {seq} is of an unknown version"));
    };
    let mut effects = Vec::new();
    while !rest.is_empty() {
        let effect = read_effect(&mut rest);
        effects.push(effect.ok_or_else(|| format!("journal entry {seq} is malformed"))?);
    }
    Ok(effects)
}

fn read_effect<'a>(rest: &mut &'a [u8]) -> Option<Effect<'a>> {
    let (&tag, after) = rest.split_first()?;
    *rest = after;
    let key = read_text(rest)??;
    let row = read_text(rest)?;
    Some(Effect { tag, key, row })
}

/// Returns `Some(None)` where a removal is marked.
fn read_text<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    let length = u32::from_le_bytes(*length);
    if length == REMOVED {
        return Some(None);
    }
    let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    std::str::from_utf8(text).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn sealed(changes: &[(u8, String, Option<i64>)], seq: i64) -> Vec<u8> {
        let mut entry = Entry::new();
        for (tag, key, row) in changes {
            entry.push(*tag, key, row.as_ref()).expect("encodes");
        }
        entry.seal(seq)
    }

    proptest! {
        #[test]
        fn entries_read_back_as_written(
            changes in prop::collection::vec((any::<u8>(), ".*", any::<Option<i64>>()), 0..20),
            seq in any::<i64>(),
        ) {
            let bytes = sealed(&changes, seq);
            let read: Vec<(u8, String, Option<i64>)> = read(seq, &bytes)
                .expect("reads")
                .iter()
                .map(|effect| {
                    let (key, row) = effect.decode().expect("decodes");
                    (effect.tag, key, row)
                })
                .collect();
            prop_assert_eq!(read, changes);
        }

        #[test]
        fn entries_that_were_altered_do_not_read(
            changes in prop::collection::vec((any::<u8>(), ".*", any::<Option<i64>>()), 0..5),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut bytes = sealed(&changes, 7);
            prop_assert!(read(8, &bytes).is_err(), "at another place");
            prop_assert!(read(7, &bytes[..at.index(bytes.len())]).is_err(), "cut off");
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(read(7, &bytes).is_err(), "one byte altered");
        }
    }
}
