//! Reading the table: snapshots, deltas, selections. What has expired was deleted before.

use std::sync::Arc;

use super::record::State;
use super::table::SeriesTable;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesKey};
use crate::store::Change;

/// What changed after a sequence number.
#[derive(Debug)]
pub(super) struct TableDelta {
    pub(super) changes: Vec<Change>,
    pub(super) next: u64,
    pub(super) more: bool,
}

impl SeriesTable {
    /// Reads live series that any of `selectors` matches (all when there is none), in
    /// the order of their keys, from after `after` on; also returns whether more follow.
    pub(super) fn snapshot(
        &mut self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> (Vec<Point>, bool) {
        let mut points = Vec::new();
        let mut more = false;
        self.select(selectors, after, |table, slot| {
            more = points.len() == limit;
            if !more {
                points.push(table.core.point(slot));
            }
            !more
        });
        (points, more)
    }

    /// Returns the slots of all live series that any of `selectors` matches.
    pub(super) fn matching(&mut self, selectors: &[Selector]) -> Vec<u32> {
        let mut slots = Vec::new();
        self.select(selectors, None, |_, slot| {
            slots.push(slot);
            true
        });
        slots
    }

    /// Calls `visit` with the live series that match, in order, until it returns false.
    fn select(
        &mut self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        mut visit: impl FnMut(&Self, u32) -> bool,
    ) {
        for name_id in self.names_for(selectors, after) {
            let name = Arc::clone(&self.core.names.get(name_id).name);
            let after = after.filter(|after| after.name == name).map(|after| &*after.labels);
            let entry = self.core.names.get_mut(name_id);
            let slots = entry.sorted_after(after, &self.core.slab).to_vec();
            for slot in slots {
                let record = self.core.slab.get(slot);
                let matches = || {
                    selectors.is_empty()
                        || selectors.iter().any(|s| s.matches(&name, &record.labels))
                };
                if record.state == State::Live && matches() && !visit(self, slot) {
                    return;
                }
            }
        }
    }

    /// Returns the names that can match, in their order, from `after` on.
    fn names_for(&self, selectors: &[Selector], after: Option<&SeriesKey>) -> Vec<u32> {
        let first = after.map(|after| &*after.name);
        let exact: Option<Vec<&str>> = selectors.iter().map(Selector::exact_name).collect();
        match exact {
            Some(mut names) if !names.is_empty() => {
                names.sort_unstable();
                names.dedup();
                names.retain(|name| first.is_none_or(|first| *name >= first));
                names.into_iter().filter_map(|name| self.core.names.find(name)).collect()
            }
            _ => self.core.names.from(first).collect(),
        }
    }

    /// Reads what changed after the change with the number `after`, oldest first, at most `limit`
    /// series; `None` when deletions after it have been forgotten, or there was no such change yet.
    pub(super) fn delta(&mut self, after: u64, limit: usize) -> Option<TableDelta> {
        if after < self.tombstones.low_watermark() || after > self.log.head() {
            return None;
        }
        let mut changes = Vec::new();
        let mut next = self.log.head();
        let mut more = false;
        let mut last = after;
        for (seq, slot) in self.log.since(after) {
            let record = self.core.slab.get(slot);
            if record.seq != seq {
                continue;
            }
            if changes.len() == limit {
                more = true;
                next = last;
                break;
            }
            match record.state {
                State::Live => changes.push(Change::Upserted(self.core.point(slot))),
                State::Tombstone => changes.push(Change::Deleted(self.core.key(slot))),
                _ => continue,
            }
            last = seq;
        }
        Some(TableDelta { changes, next, more })
    }
}
