//! The metadata that series refer to, each kept once.
//!
//! Invariant: an entry lives exactly as long as something refers to it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::record::NO_METADATA;
use crate::model::series::{Metadata, MetricType};

/// All metadata.
#[derive(Debug, Default)]
pub(super) struct MetadataTable {
    ids: HashMap<Arc<Metadata>, u32, RandomState>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    metadata: Arc<Metadata>,
    references: usize,
    saved: bool,
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
    /// were taken before. Nothing refers to it yet; a series that is loaded next must.
    pub(super) fn load(&mut self, id: u32, metadata: Metadata) {
        while self.entries.len() < id as usize {
            self.free.extend(u32::try_from(self.entries.len()));
            self.entries.push(Entry { metadata: nothing(), references: 0, saved: false });
        }
        let metadata = Arc::new(metadata);
        self.entries.push(Entry { metadata: Arc::clone(&metadata), references: 0, saved: true });
        self.ids.insert(metadata, id);
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
            self.ids.remove(&entry.metadata);
            self.free.push(id);
        }
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

fn nothing() -> Arc<Metadata> {
    Arc::new(Metadata { metric_type: MetricType::Unknown, help: "".into(), unit: "".into() })
}
