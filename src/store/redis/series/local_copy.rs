//! The local copy: all series in memory, in the order of their keys, for snapshots and selectors.
//!
//! Not a cache: a delta brings it up to date before each use. Invariant: it has the state at its position
//! in the order of changes, or nothing after an update failed half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::codec::{Interner, Records};
use super::reader::{Chunk, Position, Reader};
use super::{Inner, off_thread};
use crate::model::selector::Selector;
use crate::model::series::{Metadata, Point, Sample, SeriesId, SeriesKey};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How often the copy is rebuilt when its position is gone as soon as it was read.
const ATTEMPTS: usize = 5;

/// The local copy.
#[derive(Debug, Default)]
pub(super) struct LocalCopy {
    /// `None` where the copy has to be read from the start.
    position: Option<Position>,
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
    interner: Interner,
}

#[derive(Debug)]
struct Entry {
    sample: Sample,
    metadata: Option<Arc<Metadata>>,
}

impl LocalCopy {
    /// Brings the copy up to date, and returns its position. Must not be cancelled half-way: the copy
    /// would have to be rebuilt.
    ///
    /// # Errors
    /// When Redis can't be read.
    pub(super) async fn sync(&mut self, inner: &Inner) -> StoreResult<Position> {
        for _ in 0..ATTEMPTS {
            let reader = match &self.position {
                Some(position) => Reader::after(inner, position.seqs.clone()),
                None => Reader::fresh(inner),
            };
            if let Some(position) = self.follow(reader).await? {
                self.position = Some(position.clone());
                return Ok(position);
            }
            *self = Self::default();
        }
        let why = "tombstones are trimmed faster than series are read";
        Err(StoreError::new(ErrorKind::Throttled, why))
    }

    /// Reads to the end; `None` when the position is gone.
    async fn follow(&mut self, mut reader: Reader<'_>) -> StoreResult<Option<Position>> {
        if self.position.is_none() {
            *self = Self::default();
        }
        while reader.more() {
            let Some(chunk) = reader.step(usize::MAX).await? else { return Ok(None) };
            if self
                .position
                .as_ref()
                .is_some_and(|position| position.epochs != reader.position().epochs)
            {
                return Ok(None);
            }
            let mut copy = std::mem::take(self);
            let records = chunk.records;
            *self = off_thread(records, move || copy.apply(&chunk).map(|()| copy)).await??;
        }
        Ok(Some(reader.position()))
    }

    fn apply(&mut self, chunk: &Chunk) -> StoreResult<()> {
        let mut deleted = 0_usize;
        for buffer in &chunk.buffers {
            for record in Records(buffer) {
                let record = record?;
                let Some(state) = record.state else {
                    deleted += 1;
                    self.remove(record.name, record.labels);
                    continue;
                };
                let metadata = self.interner.metadata(&state)?;
                let entry = Entry { sample: state.sample(), metadata };
                let name = match self.names.get_mut(record.name) {
                    Some(name) => name,
                    None => self.names.entry(self.interner.name(record.name)).or_default(),
                };
                match name.get_mut(record.labels) {
                    Some(known) => *known = entry,
                    None => {
                        name.insert(record.labels.into(), entry);
                    }
                }
            }
        }
        if deleted > 0 {
            self.interner.sweep();
        }
        Ok(())
    }

    fn remove(&mut self, name: &str, labels: &str) {
        let Some(series) = self.names.get_mut(name) else { return };
        series.remove(labels);
        if series.is_empty() {
            self.names.remove(name);
        }
    }

    /// Reads series that any of `selectors` matches (all when there is none), in the order of
    /// their keys, after `after`; also returns whether more follow.
    pub(super) fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> (Vec<Point>, bool) {
        let mut points = Vec::new();
        let mut more = false;
        self.select(selectors, after, |name, labels, entry| {
            more = points.len() == limit;
            if !more {
                let key = SeriesKey { name: Arc::clone(name), labels: Arc::clone(labels) };
                let Entry { sample, metadata } = entry;
                points.push(Point { key, sample: *sample, metadata: metadata.clone() });
            }
            !more
        });
        (points, more)
    }

    /// Returns the ids of all series that any of `selectors` matches.
    pub(super) fn matching(&self, selectors: &[Selector]) -> Vec<SeriesId> {
        let mut ids = Vec::new();
        self.select(selectors, None, |name, labels, _| {
            ids.push(SeriesId::of(name, labels));
            true
        });
        ids
    }

    /// Calls `visit` for what matches, in order, until it returns false.
    fn select<'a>(
        &'a self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        mut visit: impl FnMut(&'a Arc<str>, &'a Arc<str>, &'a Entry) -> bool,
    ) {
        let listed: Option<Vec<Vec<&str>>> = selectors.iter().map(Selector::names).collect();
        let listed: Option<BTreeSet<&str>> = listed
            .filter(|listed| !listed.is_empty())
            .map(|listed| listed.into_iter().flatten().collect());
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(&*after.name));
        let range = (from, Bound::Unbounded);
        let names: Box<dyn Iterator<Item = _>> = match &listed {
            Some(listed) => Box::new(
                listed.range::<str, _>(range).filter_map(|name| self.names.get_key_value(*name)),
            ),
            None => Box::new(self.names.range::<str, _>(range)),
        };
        for (name, series) in names {
            let after = after.filter(|after| after.name == *name);
            let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(&*after.labels));
            for (labels, entry) in series.range::<str, _>((from, Bound::Unbounded)) {
                let wanted = selectors.is_empty()
                    || selectors.iter().any(|selector| selector.matches(name, labels));
                if wanted && !visit(name, labels, entry) {
                    return;
                }
            }
        }
    }
}
