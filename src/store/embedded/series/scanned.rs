//! The table as scans read it.

use std::sync::Arc;

use super::table::SeriesTable;
use crate::model::series::SeriesKey;
use crate::store::scan::{CreatedLog, Scanned, SeriesPiece};

impl Scanned for SeriesTable {
    /// Its slot.
    type Place = u32;
    type Created = u32;

    fn created(&self) -> &CreatedLog<u32> {
        &self.created
    }

    fn created_mut(&mut self) -> &mut CreatedLog<u32> {
        &mut self.created
    }

    fn find_created(&self, slot: &u32) -> Option<(SeriesKey, u32)> {
        // The slot may have been freed since, or belong to another series.
        self.core.is_live(*slot).then(|| (self.core.key(*slot), *slot))
    }

    fn names_from(&self, from: Option<(&str, bool)>) -> impl Iterator<Item = &Arc<str>> {
        self.core.names.from(from).map(|id| &self.core.names.get(id).name)
    }

    /// Reads none where the name's list had to be sorted first.
    fn read_series(&mut self, name: &str, after: Option<&str>, limit: usize) -> SeriesPiece<u32> {
        let core = &mut self.core;
        let Some(id) = core.names.find(name) else {
            return SeriesPiece { live: Vec::new(), looked_at: 0, last: None, more: false };
        };
        if !core.names.get_mut(id).sort_some(&core.slab) {
            return SeriesPiece { live: Vec::new(), looked_at: limit, last: None, more: true };
        }
        let core = &self.core;
        let slots = core.names.get(id).sorted_after(after, &core.slab);
        let piece = &slots[..slots.len().min(limit)];
        let live = piece.iter().filter(|slot| core.is_live(**slot));
        SeriesPiece {
            live: live.map(|slot| (core.key(*slot), *slot)).collect(),
            looked_at: piece.len(),
            last: piece.last().map(|slot| Arc::clone(&core.slab.get(*slot).labels)),
            more: piece.len() < slots.len(),
        }
    }

    fn is_live_as(&self, slot: u32, key: &SeriesKey) -> bool {
        self.core.is_live_as(slot, key)
    }
}
