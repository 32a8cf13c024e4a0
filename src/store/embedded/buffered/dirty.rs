//! Which buffered writes are not on disk yet.
//!
//! A mark says only *that* a key changed; what is written is read when it is flushed. So many
//! writes to one key cost one row, and a key that was deleted meanwhile is a delete.
//! Invariant: a key leaves the set only by [`DirtySet::flushed`]. Until then, it is in what a flush took out,
//! and comes back with [`DirtySet::merge_back`], or with the next [`DirtySet::drain`] when the flush never
//! ended (it panicked). So nothing is lost, and nothing newer is hidden.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::set::Unflushed;
use crate::model::time::SteadyTime;

/// The keys whose newest state is not on disk.
#[derive(Debug)]
pub(in crate::store::embedded) struct DirtySet<K, S = RandomState> {
    keys: HashSet<K, S>,
    oldest: Option<SteadyTime>,
    /// What a flush took out that has not ended.
    in_flight: Option<Arc<Drained<K, S>>>,
}

/// What a flush took out of a set.
#[derive(Debug)]
pub(in crate::store::embedded) struct Drained<K, S = RandomState> {
    pub(in crate::store::embedded) keys: HashSet<K, S>,
    oldest: Option<SteadyTime>,
}

impl<K, S: Default> Default for DirtySet<K, S> {
    fn default() -> Self {
        Self { keys: HashSet::default(), oldest: None, in_flight: None }
    }
}

impl<K: Clone + Eq + Hash, S: BuildHasher + Default> DirtySet<K, S> {
    /// Marks a key; the first mark since the last drain counts as the oldest.
    pub(in crate::store::embedded) fn mark(&mut self, key: K, now: SteadyTime) {
        self.oldest.get_or_insert(now);
        self.keys.insert(key);
    }

    /// Makes room for so many marks; the next drain gives it back.
    pub(in crate::store::embedded) fn reserve(&mut self, marks: usize) {
        self.keys.reserve(marks.saturating_sub(self.keys.len()));
    }

    /// Returns how many keys are marked and in no flush yet.
    pub(in crate::store::embedded) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns what is not known to be on disk, that of a running flush included.
    pub(in crate::store::embedded) fn unflushed(&self) -> Unflushed {
        let (rows, oldest) =
            self.in_flight.as_ref().map_or((0, None), |of| (of.keys.len(), of.oldest));
        Unflushed { rows: self.keys.len() + rows, oldest: earlier(self.oldest, oldest) }
    }

    /// Returns the keys of a flush that never ended, if there was one: the next drain takes them again.
    pub(in crate::store::embedded) fn abandoned(&self) -> Option<Arc<Drained<K, S>>> {
        self.in_flight.clone()
    }

    /// Takes all keys out. One flush at a time: [`Self::flushed`] or [`Self::merge_back`] ends it.
    pub(in crate::store::embedded) fn drain(&mut self) -> Arc<Drained<K, S>> {
        self.merge_back();
        let drained = Drained { keys: std::mem::take(&mut self.keys), oldest: self.oldest.take() };
        Arc::clone(self.in_flight.insert(Arc::new(drained)))
    }

    /// Notes that what was drained is on disk.
    pub(in crate::store::embedded) fn flushed(&mut self) {
        self.in_flight = None;
    }

    /// Puts back what could not be flushed.
    pub(in crate::store::embedded) fn merge_back(&mut self) {
        let Some(drained) = self.in_flight.take() else { return };
        self.oldest = earlier(self.oldest, drained.oldest);
        match Arc::try_unwrap(drained) {
            Ok(drained) => self.keys.extend(drained.keys),
            Err(shared) => self.keys.extend(shared.keys.iter().cloned()),
        }
    }
}

fn earlier(a: Option<SteadyTime>, b: Option<SteadyTime>) -> Option<SteadyTime> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failed_flush_loses_no_key_and_no_age() {
        let at =
            |seconds: u64| SteadyTime::from_nanos(0).saturating_add(Duration::from_secs(seconds));
        let mut set: DirtySet<_> = DirtySet::default();
        set.mark("a", at(1));
        set.mark("b", at(2));
        let drained = set.drain();
        assert_eq!(set.len(), 0);
        set.mark("b", at(5));
        set.mark("c", at(6));
        let unflushed = set.unflushed();
        assert_eq!(unflushed, Unflushed { rows: 4, oldest: Some(at(1)) }, "one flush is running");
        assert_eq!(drained.keys.len(), 2);
        drop(drained);
        set.merge_back();
        assert_eq!(set.len(), 3);
        assert_eq!(set.unflushed().oldest, Some(at(1)));
        drop(set.drain());
        // The flush panicked, and nobody said how it ended.
        assert_eq!(set.unflushed().rows, 3);
        assert_eq!(set.drain().keys.len(), 3);
        set.flushed();
        assert_eq!(set.unflushed(), Unflushed::default());
    }
}
