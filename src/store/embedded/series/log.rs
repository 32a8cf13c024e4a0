//! The order of changes: which series changed at which number.
//!
//! An entry is valid while its series' newest change has the same number. Entries that were
//! overtaken are swept away step by step, two old segments for each new one that is filled, so
//! that the log stays within about twice the number of series and no push pays for a big sweep.
//! Invariant: numbers only grow, and every series' newest change has its entry.

use std::collections::VecDeque;

const SEGMENT_ENTRIES: usize = 4096;

/// The log.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    segments: VecDeque<Segment>,
    head: u64,
    sweep: usize,
}

/// A run of entries; numbers are kept as distances from `base`.
#[derive(Debug)]
struct Segment {
    base: u64,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    distance: u32,
    slot: u32,
}

impl ChangeLog {
    /// Returns the number of the newest change; 0 when there was none.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Appends a change of `slot` and returns its number. `valid` returns whether an entry is still
    /// its series' newest change.
    pub(super) fn append(&mut self, slot: u32, valid: impl Fn(u64, u32) -> bool) -> u64 {
        self.head += 1;
        let full = self.segments.back().is_none_or(|segment| !segment.takes(self.head));
        if full {
            self.sweep_step(&valid);
            self.sweep_step(&valid);
            self.segments.push_back(Segment { base: self.head, entries: Vec::new() });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.push(self.head, slot);
        }
        self.head
    }

    /// Returns the entries after number `after`, oldest first, including those that were overtaken.
    pub(super) fn since(&self, after: u64) -> impl Iterator<Item = (u64, u32)> {
        let first = self.segments.partition_point(|s| s.last_seq() <= after);
        self.segments
            .range(first..)
            .flat_map(|segment| segment.iter())
            .skip_while(move |(seq, _)| *seq <= after)
    }

    /// Drops overtaken entries from one segment, and merges it with its older neighbour when
    /// both fit into one.
    fn sweep_step(&mut self, valid: impl Fn(u64, u32) -> bool) {
        // Round and round: each segment is swept about once while the log grows by half its length.
        if self.sweep >= self.segments.len() {
            self.sweep = 0;
        }
        let at = self.sweep;
        let Some(segment) = self.segments.get_mut(at) else { return };
        let base = segment.base;
        segment.entries.retain(|e| valid(base + u64::from(e.distance), e.slot));
        segment.entries.shrink_to(0);
        // Without merging, a log of few long-lived series would become many small segments.
        if at > 0 && self.segments[at - 1].absorbs(&self.segments[at]) {
            if let Some(segment) = self.segments.remove(at) {
                let older = &mut self.segments[at - 1];
                for (seq, slot) in segment.iter() {
                    older.push(seq, slot);
                }
            }
        } else {
            self.sweep += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|s| s.entries.len()).sum()
    }
}

impl Segment {
    fn takes(&self, seq: u64) -> bool {
        self.entries.len() < SEGMENT_ENTRIES && u32::try_from(seq - self.base).is_ok()
    }

    fn absorbs(&self, newer: &Self) -> bool {
        self.entries.len() + newer.entries.len() <= SEGMENT_ENTRIES
            && u32::try_from(newer.last_seq().saturating_sub(self.base)).is_ok()
    }

    fn push(&mut self, seq: u64, slot: u32) {
        let distance = u32::try_from(seq - self.base).unwrap_or(u32::MAX);
        self.entries.push(Entry { distance, slot });
    }

    fn last_seq(&self) -> u64 {
        self.entries.last().map_or(self.base, |e| self.base + u64::from(e.distance))
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.entries.iter().map(|e| (self.base + u64::from(e.distance), e.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_newest_change_of_each_series_and_stays_small() {
        const SERIES: usize = 10_000;
        let mut log = ChangeLog::default();
        let mut newest = vec![0; SERIES];
        let mut state = 1_u64;
        for _ in 0..50 * SERIES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let slot = usize::try_from(state >> 33).expect("64-bit") % SERIES;
            let key = u32::try_from(slot).expect("small");
            let seq = log.append(key, |seq, slot| newest[slot as usize] == seq);
            newest[slot] = seq;
        }
        assert!(log.len() <= 3 * SERIES + 2 * SEGMENT_ENTRIES, "{}", log.len());
        let after = log.head() / 2;
        let mut found: Vec<_> =
            log.since(after).filter(|(seq, slot)| newest[*slot as usize] == *seq).collect();
        assert!(found.is_sorted());
        found.sort_by_key(|(_, slot)| *slot);
        let expected: Vec<_> = newest
            .iter()
            .enumerate()
            .filter(|(_, seq)| **seq > after)
            .map(|(slot, seq)| (*seq, u32::try_from(slot).expect("small")))
            .collect();
        assert_eq!(found, expected);
    }
}
