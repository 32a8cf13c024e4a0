//! All series in memory, in the order of their keys: what answers snapshots and selectors.
//!
//! Not a cache: it is brought up to date by a delta before every use. Invariant: what it shows is the
//! state at its place in the order of changes, or nothing after it failed in the middle.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::codec::{Records, Sharing};
use super::read::{Piece, Place, Reader};
use super::{Inner, off_thread};
use crate::model::selector::Selector;
use crate::model::series::{Metadata, Point, Sample, SeriesId, SeriesKey};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// So often it is built anew when its place is gone as soon as it was read.
const ATTEMPTS: usize = 5;

/// The mirror.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// `None` where there is nothing to go on from.
    place: Option<Place>,
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Held>>,
    sharing: Sharing,
}

#[derive(Debug)]
struct Held {
    sample: Sample,
    metadata: Option<Arc<Metadata>>,
}

impl Mirror {
    /// Brings the mirror up to date, and gives the place that it shows then. Not to be cancelled: it
    /// would have to be built anew.
    ///
    /// # Errors
    /// When Redis can't be read.
    pub(super) async fn sync(&mut self, inner: &Inner) -> StoreResult<Place> {
        for _ in 0..ATTEMPTS {
            let reader = match &self.place {
                Some(place) => Reader::after(inner, place.seqs.clone()),
                None => Reader::fresh(inner),
            };
            if let Some(place) = self.follow(reader).await? {
                self.place = Some(place.clone());
                return Ok(place);
            }
            *self = Self::default();
        }
        let why = "deletions are forgotten faster than series are read";
        Err(StoreError::new(ErrorKind::Throttled, why))
    }

    /// Reads to the end; `None` when the place is gone.
    async fn follow(&mut self, mut reader: Reader<'_>) -> StoreResult<Option<Place>> {
        if self.place.is_none() {
            *self = Self::default();
        }
        while reader.more() {
            let Some(piece) = reader.step(usize::MAX).await? else { return Ok(None) };
            if self.place.as_ref().is_some_and(|place| place.epochs != reader.place().epochs) {
                return Ok(None);
            }
            let mut mirror = std::mem::take(self);
            let records = piece.records;
            *self = off_thread(records, move || mirror.apply(&piece).map(|()| mirror)).await??;
        }
        Ok(Some(reader.place()))
    }

    fn apply(&mut self, piece: &Piece) -> StoreResult<()> {
        let mut deleted = 0_usize;
        for buffer in &piece.buffers {
            for record in Records(buffer) {
                let record = record?;
                let Some(state) = record.state else {
                    deleted += 1;
                    self.remove(record.name, record.labels);
                    continue;
                };
                let metadata = self.sharing.metadata(&state)?;
                let held = Held { sample: state.sample(), metadata };
                let name = match self.names.get_mut(record.name) {
                    Some(name) => name,
                    None => self.names.entry(self.sharing.name(record.name)).or_default(),
                };
                match name.get_mut(record.labels) {
                    Some(known) => *known = held,
                    None => {
                        name.insert(record.labels.into(), held);
                    }
                }
            }
        }
        if deleted > 0 {
            self.sharing.sweep();
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
    /// their keys, behind `after`; also tells whether more follow.
    pub(super) fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> (Vec<Point>, bool) {
        let mut points = Vec::new();
        let mut more = false;
        self.select(selectors, after, |name, labels, held| {
            more = points.len() == limit;
            if !more {
                let key = SeriesKey { name: Arc::clone(name), labels: Arc::clone(labels) };
                let Held { sample, metadata } = held;
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

    /// Shows `visit` what matches, in order, until it says that it has enough.
    fn select<'a>(
        &'a self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        mut visit: impl FnMut(&'a Arc<str>, &'a Arc<str>, &'a Held) -> bool,
    ) {
        let exact: Option<Vec<&str>> = selectors.iter().map(Selector::exact_name).collect();
        let exact = exact.filter(|names| !names.is_empty());
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(&*after.name));
        for (name, series) in self.names.range::<str, _>((from, Bound::Unbounded)) {
            if exact.as_ref().is_some_and(|names| !names.contains(&&**name)) {
                continue;
            }
            let after = after.filter(|after| after.name == *name);
            let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(&*after.labels));
            for (labels, held) in series.range::<str, _>((from, Bound::Unbounded)) {
                let wanted = selectors.is_empty()
                    || selectors.iter().any(|selector| selector.matches(name, labels));
                if wanted && !visit(name, labels, held) {
                    return;
                }
            }
        }
    }
}
