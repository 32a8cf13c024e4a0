//! Reading changes from the table, in bounded pieces. What has ended was purged before.

use super::record::State;
use super::table::SeriesTable;
use crate::store::Change;

/// The most entries of the log that are looked at while the table is locked once, overtaken ones included.
const ENTRIES_AT_ONCE: usize = 4096;

/// What changed after a sequence number.
#[derive(Debug)]
pub(super) struct TableDelta {
    pub(super) changes: Vec<Change>,
    /// The number that was read to.
    pub(super) next: u64,
    /// The number that there was to read to.
    pub(super) head: u64,
    /// Whether there are more changes up to `head`, as far as is known.
    pub(super) more: bool,
}

impl SeriesTable {
    /// Reads what changed after the change with the number `after` and up to `up_to` (the newest one when
    /// it is `None`), oldest first, at most `limit` series, and fewer where much was overtaken. A series that changed
    /// after `up_to` is left out. Returns `None` when deletions after `after` have been forgotten, or there was
    /// no such change yet.
    pub(super) fn delta(&self, after: u64, up_to: Option<u64>, limit: usize) -> Option<TableDelta> {
        let head = up_to.unwrap_or(self.log.head());
        if after < self.tombstones.low_watermark() || after > head || head > self.log.head() {
            return None;
        }
        let mut delta = TableDelta { changes: Vec::new(), next: head, head, more: false };
        let mut last = after;
        let entries = self.log.since(after).take_while(|(seq, _)| *seq <= head);
        for (count, (seq, slot)) in entries.enumerate() {
            let record = self.core.slab.get(slot);
            let is_valid = record.seq == seq;
            if count == ENTRIES_AT_ONCE || is_valid && delta.changes.len() == limit {
                delta.more = true;
                delta.next = last;
                break;
            }
            last = seq;
            if !is_valid {
                continue;
            }
            match record.state {
                State::Live => delta.changes.push(Change::Upserted(self.core.point(slot))),
                State::Tombstone => delta.changes.push(Change::Deleted(self.core.key(slot))),
                _ => {}
            }
        }
        Some(delta)
    }
}
