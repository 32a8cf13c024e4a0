//! The metadata of all mirrored series, each content held once.
//!
//! Invariant: a content is held exactly as long as a series has it.

use std::sync::Arc;

use std::collections::HashMap;

use super::page::MetadataId;
use crate::model::series::Metadata;

/// The id of "nothing was said".
pub(super) const SILENT: MetadataId = 0;

/// Returns ids to contents, and counts the series that have them.
#[derive(Debug, Default)]
pub(super) struct MetadataTable {
    ids: HashMap<Arc<Metadata>, MetadataId>,
    /// The content with id `i + 1`, and its series.
    slots: Vec<Option<(Arc<Metadata>, u64)>>,
    free: Vec<MetadataId>,
    /// The last content that was asked for: neighbours mostly share theirs.
    last: Option<(Arc<Metadata>, MetadataId)>,
}

impl MetadataTable {
    /// Returns the id of a content. It may be forgotten at the next [`Self::sweep`], unless a
    /// series was added to it.
    pub(super) fn id_of(&mut self, metadata: Option<&Arc<Metadata>>) -> MetadataId {
        let Some(metadata) = metadata else { return SILENT };
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
            MetadataId::try_from(self.slots.len()).unwrap_or(SILENT)
        };
        self.ids.insert(Arc::clone(metadata), id);
        id
    }

    /// Returns the content of an id.
    pub(super) fn get(&self, id: MetadataId) -> Option<&Arc<Metadata>> {
        let slot = (id as usize).checked_sub(1)?;
        self.slots.get(slot)?.as_ref().map(|(metadata, _)| metadata)
    }

    /// Counts one more series with this content.
    pub(super) fn add(&mut self, id: MetadataId) {
        if let Some(Some((_, series))) = slot(&mut self.slots, id) {
            *series += 1;
        }
    }

    /// Counts one series less with this content.
    pub(super) fn remove(&mut self, id: MetadataId) {
        if let Some(Some((_, series))) = slot(&mut self.slots, id) {
            *series = series.saturating_sub(1);
        }
    }

    /// Forgets the contents `ids` as far as no series has them.
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

    fn content(help: &str) -> Arc<Metadata> {
        Arc::new(Metadata { metric_type: MetricType::Gauge, help: help.into(), unit: "".into() })
    }

    #[test]
    fn a_content_goes_with_its_last_series() {
        let mut table = MetadataTable::default();
        let (a, b) = (table.id_of(Some(&content("a"))), table.id_of(Some(&content("b"))));
        assert_ne!(a, b);
        assert_eq!(table.id_of(Some(&content("a"))), a);
        assert_eq!(table.id_of(None), SILENT);
        table.add(a);
        table.sweep([a, b, SILENT]);
        assert!(table.get(a).is_some());
        assert_eq!(table.get(b), None);
        assert_eq!(table.id_of(Some(&content("c"))), b);
        table.remove(a);
        table.sweep([a]);
        assert_eq!(table.get(a), None);
    }
}
