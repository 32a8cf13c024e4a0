//! The metric names in use, and for each name its series in the order of their labels.
//!
//! The order is made when it is read, step by step: a push only appends. Invariant: every series that
//! is live or a tombstone is in its name's list exactly once; forgotten ones are there
//! until [`Names::purge`] meets them, and only then is their slot free. No call looks at a whole long list.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::record::{Slab, State};

/// The most series that one step sorts: it is made while the table is locked.
const SORTED_AT_ONCE: usize = 1024;

/// The most series that one step of a purge looks at.
const PURGED_AT_ONCE: usize = 4096;

/// A purge of a list takes its next step when so many more series were forgotten, so it ends long before the list has
/// grown by as many forgotten ones as it began with.
const FORGOTTEN_PER_STEP: usize = PURGED_AT_ONCE / 8;

/// The next step is also taken when the labels of those have so many bytes.
const FORGOTTEN_BYTES_PER_STEP: usize = 16 * PURGED_AT_ONCE;

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: BTreeMap<Arc<str>, u32>,
    entries: Vec<NameEntry>,
    free: Vec<u32>,
}

/// One name.
#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) name: Arc<str>,
    /// The name is on disk under this number.
    pub(super) saved: bool,
    slots: Vec<u32>,
    sorted: usize,
    forgotten: usize,
    /// How many bytes of labels the forgotten ones keep.
    forgotten_bytes: usize,
    /// The purge of the list that has begun.
    purge: Option<Purge>,
    /// Series that a batch has reserved under this name.
    reserved: usize,
}

/// How far the purge of a list is.
#[derive(Debug)]
struct Purge {
    /// The position of the first series that was not looked at.
    at: usize,
    /// How many series were forgotten since the last step.
    forgotten: usize,
    /// How many bytes of labels these have.
    bytes: usize,
}

impl Names {
    /// Returns the number of a name, if it is in use.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Returns whether a number, read from disk, is that of a name.
    pub(super) fn holds(&self, id: u32) -> bool {
        self.entries.get(id as usize).is_some_and(|entry| !entry.name.is_empty())
    }

    /// Returns the entry of a number that [`Self::find`] or [`Self::intern`] returned.
    pub(super) fn get(&self, id: u32) -> &NameEntry {
        &self.entries[id as usize]
    }

    /// As [`Self::get`].
    pub(super) fn get_mut(&mut self, id: u32) -> &mut NameEntry {
        &mut self.entries[id as usize]
    }

    /// Returns the number of a name, new if need be.
    pub(super) fn intern(&mut self, name: &str) -> u32 {
        if let Some(id) = self.find(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let entry = NameEntry::new(Arc::clone(&name), false);
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.ids.insert(name, id);
        id
    }

    /// Takes a name that was read from disk, under the number that it has there: above
    /// all that were taken before. [`Self::index_loaded`] follows when all series are loaded.
    pub(super) fn load(&mut self, id: u32, name: &str) {
        while self.entries.len() < id as usize {
            self.entries.push(NameEntry::new("".into(), false));
        }
        self.entries.push(NameEntry::new(name.into(), true));
    }

    /// Makes the names findable that have series, and all other numbers free. The disk also has names whose last
    /// series was deleted, and some of these have come back under another number.
    pub(super) fn index_loaded(&mut self) {
        for (id, entry) in (0..).zip(&mut self.entries) {
            if entry.slots.is_empty() {
                *entry = NameEntry::new("".into(), false);
                self.free.push(id);
            } else {
                self.ids.insert(Arc::clone(&entry.name), id);
            }
        }
    }

    /// Returns the numbers of the names after `first`, in the order of the names; where it is `included`,
    /// its own as well.
    pub(super) fn from(&self, first: Option<(&str, bool)>) -> impl Iterator<Item = u32> {
        let start = first.map_or(Bound::Unbounded, |(name, included)| {
            if included { Bound::Included(name) } else { Bound::Excluded(name) }
        });
        self.ids.range::<str, _>((start, Bound::Unbounded)).map(|(_, id)| *id)
    }

    /// Takes the next step of the purge of a name's list: frees the slots of some forgotten series. Forgets the name,
    /// too, when nothing is left of it.
    pub(super) fn purge(&mut self, id: u32, slab: &mut Slab) {
        let entry = &mut self.entries[id as usize];
        entry.purge_step(slab);
        // Short by now: all that came before the last steps is gone.
        while entry.forgotten > 0 && entry.forgotten == entry.slots.len() {
            entry.purge_step(slab);
        }
        self.remove_unused(id);
    }

    /// Forgets a name that no series has.
    pub(super) fn remove_unused(&mut self, id: u32) {
        let entry = &self.entries[id as usize];
        if entry.slots.is_empty() && entry.reserved == 0 {
            let name = Arc::clone(&entry.name);
            if self.ids.remove(&*name).is_some() {
                self.free.push(id);
            }
        }
    }
}

impl NameEntry {
    fn new(name: Arc<str>, saved: bool) -> Self {
        Self {
            name,
            saved,
            slots: Vec::new(),
            sorted: 0,
            forgotten: 0,
            forgotten_bytes: 0,
            purge: None,
            reserved: 0,
        }
    }

    /// Notes that a batch is about to create a series of this name.
    pub(super) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// Undoes [`Self::reserve`].
    pub(super) fn unreserve(&mut self) {
        self.reserved -= 1;
    }

    /// Adds a series.
    pub(super) fn add(&mut self, slot: u32) {
        self.slots.push(slot);
    }

    /// Notes that a series of this name was forgotten, with so many bytes of labels; returns whether it is
    /// time for [`Names::purge`]: a purge looks at all series of the name, so they must be worth that.
    pub(super) fn forget(&mut self, bytes: usize) -> bool {
        self.forgotten += 1;
        self.forgotten_bytes += bytes;
        let is_due = match &mut self.purge {
            Some(purge) => {
                purge.forgotten += 1;
                purge.bytes += bytes;
                purge.forgotten >= FORGOTTEN_PER_STEP || purge.bytes >= FORGOTTEN_BYTES_PER_STEP
            }
            None => {
                self.forgotten > 64 + self.slots.len() / 4
                    || self.forgotten_bytes > 1024 + 16 * self.slots.len()
            }
        };
        is_due || self.forgotten == self.slots.len()
    }

    /// Takes forgotten series out of the next part of the list. One that is sorted to the front meanwhile is left to
    /// the next purge.
    fn purge_step(&mut self, slab: &mut Slab) {
        let start = self.purge.as_ref().map_or(0, |purge| purge.at.min(self.slots.len()));
        let end = self.slots.len().min(start + PURGED_AT_ONCE);
        let (mut kept, sorted) = (start, self.sorted);
        for at in start..end {
            let slot = self.slots[at];
            let record = slab.get(slot);
            if record.state != State::Forgotten {
                self.slots[kept] = slot;
                kept += 1;
                continue;
            }
            self.forgotten -= 1;
            self.forgotten_bytes -= record.labels.len();
            self.sorted -= usize::from(at < sorted);
            slab.remove(slot);
        }
        self.slots.drain(kept..end);
        let is_whole = kept == self.slots.len();
        self.purge = (!is_whole).then_some(Purge { at: kept, forgotten: 0, bytes: 0 });
        if is_whole {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// Sorts some series more into the list, at most [`SORTED_AT_ONCE`]; returns whether all are sorted now.
    pub(super) fn sort_some(&mut self, slab: &Slab) -> bool {
        let labels = |slot: &u32| &*slab.get(*slot).labels;
        let end = self.slots.len().min(self.sorted + SORTED_AT_ONCE);
        let mut more: Vec<u32> = self.slots[self.sorted..end].to_vec();
        // Finds the runs which are sorted already: most writers keep an order.
        more.sort_by(|a, b| labels(a).cmp(labels(b)));
        // Merged from the last one on, so that each series moves once.
        let mut unmoved = self.sorted;
        for (before, slot) in more.iter().enumerate().rev() {
            let old = &self.slots[..unmoved];
            // Where all are behind the last one, the first comparison tells.
            let at = match old.last() {
                Some(last) if labels(last) > labels(slot) => {
                    old.partition_point(|other| labels(other) <= labels(slot))
                }
                _ => unmoved,
            };
            self.slots.copy_within(at..unmoved, at + before + 1);
            self.slots[at + before] = *slot;
            unmoved = at;
        }
        self.sorted = end;
        self.sorted == self.slots.len()
    }

    /// Returns the sorted series after `after`, in the order of their labels, forgotten ones included.
    pub(super) fn sorted_after(&self, after: Option<&str>, slab: &Slab) -> &[u32] {
        let sorted = &self.slots[..self.sorted];
        let first = after
            .map_or(0, |after| sorted.partition_point(|slot| &*slab.get(*slot).labels <= after));
        &sorted[first..]
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    #[test]
    fn a_name_that_came_back_under_another_number_is_found_under_that_of_its_series() {
        for (used, unused) in [(0, 3), (3, 0)] {
            let mut names = Names::default();
            for (id, name) in [(0, "a"), (1, "b"), (3, "a")] {
                names.load(id, name);
            }
            names.get_mut(used).add(7);
            names.index_loaded();
            assert_eq!((names.find("a"), names.find("b")), (Some(used), None));
            let mut next: Vec<_> = ["c", "d", "e"].map(|name| names.intern(name)).into();
            next.sort_unstable();
            let mut free = vec![1, 2, unused];
            free.sort_unstable();
            assert_eq!((next, names.intern("f")), (free, 4));
        }
    }

    #[test]
    fn series_are_sorted_step_by_step_whatever_their_order() {
        let mut slab = Slab::default();
        let mut entry = NameEntry::new("m".into(), false);
        let mut state = 1_u64;
        let mut expected = Vec::new();
        for round in 0..3 {
            for _ in 0..3 * SORTED_AT_ONCE / 2 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let labels = format!("{:08}-{round}", state >> 40);
                expected.push(labels.clone());
                let slot = slab.insert(Record::reserved(0, labels.into(), 0)).expect("room");
                entry.add(slot);
            }
            let mut steps = 1;
            while !entry.sort_some(&slab) {
                steps += 1;
            }
            assert_eq!(steps, 2, "a step sorts a bounded number of series");
            expected.sort();
            let sorted = entry.sorted_after(None, &slab);
            let found: Vec<_> = sorted.iter().map(|slot| &*slab.get(*slot).labels).collect();
            assert_eq!(found, expected);
        }
        let after = expected[100].clone();
        assert_eq!(entry.sorted_after(Some(&after), &slab).len(), expected.len() - 101);
    }

    #[test]
    fn a_long_list_is_purged_step_by_step_and_stays_sorted() {
        const MANY: usize = 3 * PURGED_AT_ONCE;
        let (mut slab, mut names) = (Slab::default(), Names::default());
        let id = names.intern("m");
        for n in 0..MANY {
            let labels = format!("{n:06}");
            let slot = slab.insert(Record::reserved(id, labels.into(), 0)).expect("room");
            names.get_mut(id).add(slot);
        }
        while !names.get_mut(id).sort_some(&slab) {}
        let forgotten = (0..MANY).filter(|n| n % 3 > 0);
        for slot in forgotten.map(|n| u32::try_from(n).expect("few")) {
            slab.get_mut(slot).state = State::Forgotten;
            if names.get_mut(id).forget(6) {
                let before = names.get(id).slots.len();
                names.purge(id, &mut slab);
                assert!(before - names.get(id).slots.len() <= PURGED_AT_ONCE);
                assert!(names.get_mut(id).sort_some(&slab), "nothing has to be sorted again");
            }
        }
        let kept = |slots: &[u32]| slots.iter().all(|slot| slab.get(*slot).state != State::Free);
        let entry = names.get(id);
        assert!(kept(&entry.slots));
        assert!(entry.slots.len() < MANY / 3 + MANY / 2, "{}", entry.slots.len());
        let labels: Vec<_> =
            entry.sorted_after(None, &slab).iter().map(|slot| &slab.get(*slot).labels).collect();
        assert!(labels.is_sorted() && labels.len() == entry.slots.len());
    }
}
