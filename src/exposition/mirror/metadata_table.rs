//! The metadata of all mirrored series, interned: equal metadata is stored once and has one id.
//!
//! Invariant: metadata is stored exactly as long as a series has it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::family::page::MetadataId;
use crate::model::series::Metadata;

/// The id of series without metadata.
pub(super) const NO_METADATA: MetadataId = 0;

/// Assigns ids to metadata, and counts the series with each.
#[derive(Debug, Default)]
pub(super) struct MetadataTable {
    ids: HashMap<Arc<Metadata>, MetadataId>,
    /// Slot `i` has the metadata with id `i + 1`, and the number of its series.
    slots: Vec<Option<(Arc<Metadata>, u64)>>,
    /// Ids of empty slots.
    free: Vec<MetadataId>,
    /// The last metadata that was looked up: neighbouring series mostly have the same.
    last: Option<(Arc<Metadata>, MetadataId)>,
}

impl MetadataTable {
    /// Returns the id of this metadata. The next [`Self::sweep`] may remove it, unless a series was
    /// added to it.
    pub(super) fn id_of(&mut self, metadata: Option<&Arc<Metadata>>) -> MetadataId {
        let Some(metadata) = metadata else { return NO_METADATA };
        if let Some((last, id)) = &self.last
            && Arc::ptr_eq(last, metadata)
        {
            return *id;
        }
        let id = match self.ids.get(metadata) {
            Some(&id) => id,
            None => self.insert(metadata),
        };
        self.last = Some((Arc::clone(metadata), id));
        id
    }

    fn insert(&mut self, metadata: &Arc<Metadata>) -> MetadataId {
        let entry = Some((Arc::clone(metadata), 0));
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize - 1] = entry;
            id
        } else {
            self.slots.push(entry);
            MetadataId::try_from(self.slots.len()).unwrap_or(NO_METADATA)
        };
        self.ids.insert(Arc::clone(metadata), id);
        id
    }

    /// Returns the metadata with this id.
    pub(super) fn get(&self, id: MetadataId) -> Option<&Arc<Metadata>> {
        let slot = (id as usize).checked_sub(1)?;
        self.slots.get(slot)?.as_ref().map(|(metadata, _)| metadata)
    }

    /// Counts one more series with this metadata.
    pub(super) fn add(&mut self, id: MetadataId) {
        if let Some(Some((_, series))) = slot(&mut self.slots, id) {
            *series += 1;
        }
    }

    /// Counts one series with this metadata less.
    pub(super) fn remove(&mut self, id: MetadataId) {
        if let Some(Some((_, series))) = slot(&mut self.slots, id) {
            *series = series.saturating_sub(1);
        }
    }

    /// Removes those of `ids` that no series has.
    pub(super) fn sweep(&mut self, ids: impl IntoIterator<Item = MetadataId>) {
        self.last = None;
        for id in ids {
            let Some(slot) = slot(&mut self.slots, id) else { continue };
            if let Some((metadata, _)) = slot.take_if(|(_, series)| *series == 0) {
                self.ids.remove(&metadata);
                self.free.push(id);
            }
        }
    }
}

fn slot(
    slots: &mut [Option<(Arc<Metadata>, u64)>],
    id: MetadataId,
) -> Option<&mut Option<(Arc<Metadata>, u64)>> {
    slots.get_mut((id as usize).checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::MetricType;

    fn metadata(help: &str) -> Arc<Metadata> {
        Arc::new(Metadata { metric_type: MetricType::Gauge, help: help.into(), unit: "".into() })
    }

    #[test]
    fn metadata_is_removed_with_its_last_series() {
        let mut table = MetadataTable::default();
        let (a, b) = (table.id_of(Some(&metadata("a"))), table.id_of(Some(&metadata("b"))));
        assert_ne!(a, b);
        assert_eq!(table.id_of(Some(&metadata("a"))), a);
        assert_eq!(table.id_of(None), NO_METADATA);
        table.add(a);
        table.sweep([a, b, NO_METADATA]);
        assert!(table.get(a).is_some());
        assert_eq!(table.get(b), None);
        assert_eq!(table.id_of(Some(&metadata("c"))), b);
        table.remove(a);
        table.sweep([a]);
        assert_eq!(table.get(a), None);
    }
}
