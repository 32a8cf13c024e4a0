//! One series in memory, and the slab that holds them all.
//!
//! Invariant: a slot's number means one series from its creation until it is freed, and it is
//! freed only when nothing refers to it any more.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::expiry::BucketRef;
use super::roles::NO_ROLE;

/// No slot.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// No metadata.
pub(super) const NO_METADATA: u32 = u32::MAX;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Free,
    /// A series that a batch is about to create; not visible yet.
    Reserved,
    /// A live series.
    Live,
    /// A deleted series whose deletion is still remembered.
    Tombstone,
    /// A tombstone whose series a batch is about to create again.
    Reviving,
    /// A deleted series that is forgotten, but is still in its name's list.
    Forgotten,
}

/// One series: 64 bytes and its labels.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) labels: Arc<str>,
    pub(super) value: f64,
    pub(super) updated_at_nanos: i64,
    /// The number of its newest change.
    pub(super) seq: u64,
    pub(super) hash: u32,
    pub(super) name: u32,
    pub(super) metadata: u32,
    /// The series that came after it in the last batch: most writers keep their order, so it
    /// is the first guess for the next point.
    pub(super) follower: u32,
    pub(super) bucket: BucketRef,
    pub(super) state: State,
    /// Its name and labels are on disk under this slot.
    pub(super) key_saved: bool,
    /// A deletion by selector has it, see [`super::deletion`].
    pub(super) selected: bool,
    /// The number of the role of its newest sample's writer.
    pub(super) role: u8,
}

const CHUNK_BITS: u32 = 12;
const CHUNK_RECORDS: usize = 1 << CHUNK_BITS;

/// All records, in chunks, so that growth copies nothing and wastes at most a chunk.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Record>>,
    free: Vec<u32>,
}

impl Slab {
    /// Returns the record in `slot`, which was returned by [`Self::insert`].
    pub(super) fn get(&self, slot: u32) -> &Record {
        &self.chunks[(slot >> CHUNK_BITS) as usize][slot as usize & (CHUNK_RECORDS - 1)]
    }

    /// As [`Self::get`].
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.chunks[(slot >> CHUNK_BITS) as usize][slot as usize & (CHUNK_RECORDS - 1)]
    }

    /// Puts a record into a free slot; `None` when 2^32 are in use.
    pub(super) fn insert(&mut self, record: Record) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            *self.get_mut(slot) = record;
            return Some(slot);
        }
        let slot = u32::try_from(self.slots()).ok().filter(|slot| *slot < NO_SLOT)?;
        self.push(record);
        Some(slot)
    }

    /// Puts a record into a slot that was read from disk: not below [`Self::slots`].
    /// The slots that are skipped become free.
    pub(super) fn insert_at(&mut self, slot: u32, record: Record) {
        while self.slots() < slot as usize {
            let skipped = self.slots();
            self.push(Record::free());
            self.free.extend(u32::try_from(skipped));
        }
        self.push(record);
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        *self.get_mut(slot) = Record::free();
        self.free.push(slot);
    }

    /// Returns the number of slots, free ones included.
    pub(super) fn slots(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK_RECORDS + last.len(),
            None => 0,
        }
    }

    fn push(&mut self, record: Record) {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_RECORDS) {
            self.chunks.push(Vec::with_capacity(CHUNK_RECORDS));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(record);
        }
    }
}

impl Record {
    fn free() -> Self {
        Self {
            labels: Arc::default(),
            value: 0.0,
            updated_at_nanos: 0,
            seq: 0,
            hash: 0,
            name: 0,
            metadata: NO_METADATA,
            follower: NO_SLOT,
            bucket: BucketRef::NONE,
            state: State::Free,
            key_saved: false,
            selected: false,
            role: NO_ROLE,
        }
    }

    /// Makes a record for a series that is not live yet.
    pub(super) fn reserved(name: u32, labels: Arc<str>, hash: u32) -> Self {
        Self { labels, hash, name, state: State::Reserved, ..Self::free() }
    }
}

/// Hashes slots so that neighbours stay neighbours: a batch marks them in their order, and a hash
/// that scatters them would miss the processor's caches at each.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, slot: u32) {
        // hashbrown takes the position from the low bits, and a tag from the highest seven.
        let tag = u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) & (0x7F << 57);
        self.0 = u64::from(slot) | tag;
    }
}

/// A set of slots hashes with this.
pub(super) type BuildSlotHasher = BuildHasherDefault<SlotHasher>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert_eq!(size_of::<Record>(), 64);
    }

    #[test]
    fn slots_are_reused_and_loaded_where_they_were() {
        let mut slab = Slab::default();
        slab.insert_at(3, Record::reserved(0, "a".into(), 1));
        assert_eq!(slab.slots(), 4);
        assert_eq!(slab.insert(Record::reserved(0, "b".into(), 2)), Some(2));
        slab.remove(3);
        assert_eq!(slab.insert(Record::reserved(0, "c".into(), 3)), Some(3));
        assert_eq!(&*slab.get(3).labels, "c");
    }
}
