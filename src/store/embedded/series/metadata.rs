//! The metadata that series refer to, each kept once.
//!
//! Invariant: an entry lives exactly as long as something refers to it, in memory, and until the next flush on disk.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::record::NO_METADATA;
use crate::model::series::{Metadata, MetricType};

/// All metadata.
#[derive(Debug)]
pub(super) struct MetadataTable {
    /// What is in the entries of free numbers.
    nothing: Arc<Metadata>,
    ids: HashMap<Arc<Metadata>, u32, RandomState>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Numbers that were freed, and may be on disk still.
    forgotten: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    metadata: Arc<Metadata>,
    references: usize,
    saved: bool,
}

impl Default for MetadataTable {
    fn default() -> Self {
        let nothing =
            Metadata { metric_type: MetricType::Unknown, help: "".into(), unit: "".into() };
        Self {
            nothing: Arc::new(nothing),
            ids: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            forgotten: Vec::new(),
        }
    }
}

impl MetadataTable {
    /// Returns the number of `metadata` and counts one more reference to it.
    pub(super) fn acquire(&mut self, metadata: &Metadata) -> u32 {
        if let Some(&id) = self.ids.get(metadata) {
            self.entries[id as usize].references += 1;
            return id;
        }
        let metadata = Arc::new(metadata.clone());
        let entry = Entry { metadata: Arc::clone(&metadata), references: 1, saved: false };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NO_METADATA)
            }
        };
        self.ids.insert(metadata, id);
        id
    }

    /// Takes an entry that was read from disk, under the number that it has there: above all that
    /// were taken before. [`Self::index_loaded`] follows when all series are loaded.
    pub(super) fn load(&mut self, id: u32, metadata: Metadata) {
        while self.entries.len() < id as usize {
            let metadata = Arc::clone(&self.nothing);
            self.entries.push(Entry { metadata, references: 0, saved: false });
        }
        self.entries.push(Entry { metadata: Arc::new(metadata), references: 0, saved: true });
    }

    /// Makes the entries findable that a series refers to, and all other numbers free. The disk also has metadata
    /// that nothing refers to any more, and some of that has come back under another number.
    pub(super) fn index_loaded(&mut self) {
        for (id, entry) in (0..).zip(&mut self.entries) {
            if entry.references == 0 {
                entry.metadata = Arc::clone(&self.nothing);
                self.free.push(id);
                if entry.saved {
                    self.forgotten.push(id);
                }
            } else {
                self.ids.insert(Arc::clone(&entry.metadata), id);
            }
        }
    }

    /// Counts one more reference; [`NO_METADATA`] is allowed.
    pub(super) fn retain(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.references += 1;
        }
    }

    /// Counts one reference less; [`NO_METADATA`] is allowed.
    pub(super) fn release(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        entry.references -= 1;
        if entry.references == 0 {
            // Not kept until the number is used again: nobody counts these texts any more.
            let metadata = std::mem::replace(&mut entry.metadata, Arc::clone(&self.nothing));
            self.ids.remove(&metadata);
            self.free.push(id);
            if entry.saved {
                self.forgotten.push(id);
            }
        }
    }

    /// Takes the numbers that are to be deleted from disk.
    pub(super) fn take_forgotten(&mut self) -> Vec<u32> {
        let forgotten = std::mem::take(&mut self.forgotten);
        let (used, unused): (Vec<_>, Vec<_>) =
            forgotten.into_iter().partition(|id| self.entries[*id as usize].references > 0);
        // A number that is used again is written over, unless it is freed before.
        let entries = &self.entries;
        self.forgotten.extend(used.into_iter().filter(|id| !entries[*id as usize].saved));
        unused
    }

    /// Notes that numbers were not deleted from disk after all.
    pub(super) fn restore_forgotten(&mut self, forgotten: Vec<u32>) {
        self.forgotten.extend(forgotten);
    }

    /// Returns whether a number, read from disk, is [`NO_METADATA`] or that of an entry.
    pub(super) fn holds(&self, id: u32) -> bool {
        id == NO_METADATA || (id as usize) < self.entries.len()
    }

    /// Returns the metadata of a number; `None` for [`NO_METADATA`].
    pub(super) fn get(&self, id: u32) -> Option<&Arc<Metadata>> {
        self.entries.get(id as usize).map(|entry| &entry.metadata)
    }

    /// Returns the length of the texts of a number, in bytes; 0 for [`NO_METADATA`].
    pub(super) fn bytes(&self, id: u32) -> usize {
        self.get(id).map_or(0, |metadata| metadata.text_bytes())
    }

    /// Returns whether the entry was on disk, and notes that from now on it is.
    pub(super) fn mark_saved(&mut self, id: u32) -> bool {
        self.entries
            .get_mut(id as usize)
            .is_none_or(|entry| std::mem::replace(&mut entry.saved, true))
    }

    /// Notes that the entry may not be on disk after all.
    pub(super) fn mark_unsaved(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.saved = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(help: &str) -> Metadata {
        Metadata { metric_type: MetricType::Gauge, help: help.into(), unit: "".into() }
    }

    #[test]
    fn what_nothing_refers_to_is_in_memory_no_more_and_goes_from_disk() {
        let mut table = MetadataTable::default();
        let (a, b) = (table.acquire(&metadata("a")), table.acquire(&metadata("b")));
        assert!(!table.mark_saved(a) && !table.mark_saved(b));
        table.release(a);
        table.release(b);
        assert_eq!((table.bytes(a), table.bytes(b)), (0, 0));
        // One number is used again before the flush: its row is written over.
        let c = table.acquire(&metadata("c"));
        let gone = [a, b].into_iter().find(|id| *id != c).expect("two numbers");
        let forgotten = table.take_forgotten();
        assert_eq!(forgotten, [gone]);
        assert_eq!(table.take_forgotten(), [0; 0]);
        // The flush failed.
        table.restore_forgotten(forgotten);
        assert_eq!(table.take_forgotten(), [gone]);
        // The other number was never written over.
        table.release(c);
        assert_eq!(table.take_forgotten(), [c]);
        let d = table.acquire(&metadata("d"));
        table.release(d);
        assert_eq!(table.take_forgotten(), [0; 0], "it never was on disk");
    }

    #[test]
    fn metadata_that_came_back_under_another_number_is_found_under_that_of_its_series() {
        let nothing = (*MetadataTable::default().nothing).clone();
        let metadata = |help: &str| Metadata { help: help.into(), ..nothing.clone() };
        for (used, unused) in [(0, 3), (3, 0)] {
            let mut table = MetadataTable::default();
            // What stands in a gap is real metadata as well.
            for (id, help) in [(0, "a"), (1, ""), (3, "a")] {
                table.load(id, metadata(help));
            }
            table.retain(used);
            table.retain(1);
            table.index_loaded();
            assert_eq!(table.acquire(&metadata("a")), used);
            assert_eq!(table.acquire(&metadata("")), 1);
            let mut next = ["c", "d"].map(|help| table.acquire(&metadata(help)));
            next.sort_unstable();
            let mut free = [2, unused];
            free.sort_unstable();
            assert_eq!((next, table.acquire(&metadata("f"))), (free, 4));
        }
    }
}
