//! The texts of labels, each kept once as far as that is cheap: an exporter gives most of its
//! metrics the same few label sets, so sharing them is a third of the memory of a series.
//!
//! Of the series that share a text, the first is the one that is found. When it goes, the others keep
//! sharing, and the next newcomer starts a text of its own: a reference count in a table of its own
//! would cost more than that.
//! Invariant: every slot in the table is in use.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::record::{NO_SLOT, Slab};

/// Finds a series by its labels alone.
#[derive(Debug, Default)]
pub(super) struct SharedLabels {
    slots: HashTable<u32>,
    hasher: RandomState,
    /// The series that was found last. The next one to be found most likely followed it.
    last: Option<u32>,
}

impl SharedLabels {
    /// Returns the text of another series with these labels, if one is known.
    pub(super) fn find(&mut self, labels: &str, slab: &Slab) -> Option<Arc<str>> {
        let has = |slot: &u32| *slab.get(*slot).labels == *labels;
        let guess = self.last.map(|last| slab.get(last).follower);
        let slot = guess
            .filter(|guess| *guess != NO_SLOT && has(guess))
            .or_else(|| self.slots.find(self.hasher.hash_one(labels), has).copied())?;
        self.last = Some(slot);
        Some(Arc::clone(&slab.get(slot).labels))
    }

    /// Makes the series in `slot`, the first with its labels, known to those that come.
    pub(super) fn add(&mut self, slot: u32, slab: &Slab) {
        let hash = |slot: u32| self.hasher.hash_one(&*slab.get(slot).labels);
        self.slots.insert_unique(hash(slot), slot, |&slot| hash(slot));
    }

    /// Forgets the series in `slot`, which is about to be freed.
    pub(super) fn remove(&mut self, slot: u32, slab: &Slab) {
        let hash = self.hasher.hash_one(&*slab.get(slot).labels);
        if let Ok(entry) = self.slots.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
    }
}
