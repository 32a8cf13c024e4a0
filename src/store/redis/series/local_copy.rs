//! The local copy: all series in memory, in the order of their keys, for snapshots and scans.
//!
//! Not a cache: a delta brings it up to date before each use. Invariant: it has the state at its position
//! in the order of changes, or nothing after an update failed half-way.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::codec::{Interner, Records};
use super::reader::{Chunk, Position, Reader};
use super::{Inner, off_thread};
use crate::model::series::{Metadata, Point, Sample, SeriesKey};
use crate::store::scan::{CreatedLog, Scanned, SeriesPiece};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How often the copy is rebuilt when its position is gone as soon as it was read.
pub(super) const ATTEMPTS: usize = 5;

/// The local copy.
#[derive(Debug, Default)]
pub(super) struct LocalCopy {
    /// `None` where the copy has to be read from the start.
    position: Option<Position>,
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
    interner: Interner,
    /// What was created since the scans began that run.
    created: CreatedLog<SeriesKey>,
    /// A copy that is rebuilt has another one: its log has not all that was created.
    identity: Arc<()>,
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
        self.created.trim();
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
                self.upsert(record.name, record.labels, entry);
            }
        }
        if deleted > 0 {
            self.interner.sweep();
        }
        Ok(())
    }

    fn upsert(&mut self, name: &str, labels: &str, entry: Entry) {
        let known = self.names.get_mut(name).and_then(|series| series.get_mut(labels));
        if let Some(known) = known {
            *known = entry;
            return;
        }
        let (name, labels) = (self.interner.name(name), Arc::<str>::from(labels));
        let series = self.names.entry(Arc::clone(&name)).or_default();
        series.insert(Arc::clone(&labels), entry);
        self.created.note(|| SeriesKey { name, labels });
    }

    fn remove(&mut self, name: &str, labels: &str) {
        let Some(series) = self.names.get_mut(name) else { return };
        series.remove(labels);
        if series.is_empty() {
            self.names.remove(name);
        }
    }

    /// Reads series in the order of their keys, after `after`; also returns whether more follow.
    pub(super) fn page(&self, after: Option<&SeriesKey>, limit: usize) -> (Vec<Point>, bool) {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(&*after.name));
        let names = self.names.range::<str, _>((from, Bound::Unbounded));
        let mut series = names.flat_map(|(name, series)| {
            let after = after.filter(|after| after.name == *name);
            let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(&*after.labels));
            let series = series.range::<str, _>((from, Bound::Unbounded));
            series.map(move |(labels, entry)| entry.point(name, labels))
        });
        let points = series.by_ref().take(limit).collect();
        (points, series.next().is_some())
    }

    /// Returns a series.
    pub(super) fn point(&self, key: &SeriesKey) -> Option<Point> {
        let entry = self.names.get(&key.name)?.get(&key.labels)?;
        Some(entry.point(&key.name, &key.labels))
    }

    /// Returns the position that the copy has the state of; `None` where it has to be read from the start.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Returns what stays the same as long as the copy is not rebuilt.
    pub(super) fn identity(&self) -> Arc<()> {
        Arc::clone(&self.identity)
    }
}

impl Entry {
    fn point(&self, name: &Arc<str>, labels: &Arc<str>) -> Point {
        let key = SeriesKey { name: Arc::clone(name), labels: Arc::clone(labels) };
        Point { key, sample: self.sample, metadata: self.metadata.clone() }
    }
}

impl Scanned for LocalCopy {
    /// A key is all that finds a series.
    type Place = ();
    type Created = SeriesKey;

    fn created(&self) -> &CreatedLog<SeriesKey> {
        &self.created
    }

    fn created_mut(&mut self) -> &mut CreatedLog<SeriesKey> {
        &mut self.created
    }

    fn find_created(&self, created: &SeriesKey) -> Option<(SeriesKey, ())> {
        self.is_live_as((), created).then(|| (created.clone(), ()))
    }

    fn names_from(&self, from: Option<(&str, bool)>) -> impl Iterator<Item = &Arc<str>> {
        let from = from.map_or(Bound::Unbounded, |(name, included)| {
            if included { Bound::Included(name) } else { Bound::Excluded(name) }
        });
        self.names.range::<str, _>((from, Bound::Unbounded)).map(|(name, _)| name)
    }

    fn read_series(&mut self, name: &str, after: Option<&str>, limit: usize) -> SeriesPiece<()> {
        let Some((name, series)) = self.names.get_key_value(name) else {
            return SeriesPiece { live: Vec::new(), looked_at: 0, last: None, more: false };
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut series = series.range::<str, _>((from, Bound::Unbounded)).map(|(labels, _)| labels);
        let key = |labels: &Arc<str>| {
            (SeriesKey { name: Arc::clone(name), labels: Arc::clone(labels) }, ())
        };
        let live: Vec<_> = series.by_ref().take(limit).map(key).collect();
        SeriesPiece {
            looked_at: live.len(),
            last: live.last().map(|(key, ())| Arc::clone(&key.labels)),
            more: series.next().is_some(),
            live,
        }
    }

    fn is_live_as(&self, (): (), key: &SeriesKey) -> bool {
        self.names.get(&key.name).is_some_and(|series| series.contains_key(&key.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selector::Selector;
    use crate::model::time::Timestamp;
    use crate::store::scan::{LOOKED_AT, Piece, Scan};

    fn put(copy: &mut LocalCopy, n: usize) {
        let sample = Sample { value: 1.0, updated_at: Timestamp::from_nanos(1) };
        copy.upsert(
            &format!("m{}", n % 3),
            &format!("i=\"{n:06}\""),
            Entry { sample, metadata: None },
        );
    }

    #[test]
    fn a_scan_locks_the_copy_for_a_bounded_number_of_series_and_ends_with_what_it_has() {
        const MANY: usize = 10 * LOOKED_AT;
        let mut copy = LocalCopy::default();
        (0..MANY).for_each(|n| put(&mut copy, 2 * n));
        let selector = Selector::parse("{i=~\".*7.*\"}").expect("valid");
        let mut scan = Scan::new(vec![selector.clone()], None, usize::MAX);
        let mut pieces = 0;
        while !(scan.is_ready() && scan.finish(&copy)) {
            let piece = scan.read_piece(&mut copy);
            if let Piece::Series(series) = &piece {
                assert!(series.len() <= LOOKED_AT);
            }
            pieces += 1;
            if pieces < 10 {
                // Behind the position and before it: some go, and others come.
                for n in 0..100 {
                    let (old, new) = (700 * pieces + 2 * n, 1750 * pieces + 2 * n + 1);
                    copy.remove(&format!("m{}", old % 3), &format!("i=\"{old:06}\""));
                    put(&mut copy, new);
                }
            }
            scan.take(piece);
        }
        assert!(pieces > 10);
        let matching = |key: &SeriesKey| selector.matches(&key.name, &key.labels);
        let all: Vec<_> =
            copy.page(None, usize::MAX).0.into_iter().map(|point| point.key).collect();
        let expected: Vec<_> = all.iter().filter(|key| matching(key)).collect();
        assert_eq!(scan.found().map(|(key, ())| key).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_copy_that_is_rebuilt_is_another_one() {
        let mut copy = LocalCopy::default();
        let identity = copy.identity();
        put(&mut copy, 1);
        assert!(Arc::ptr_eq(&copy.identity(), &identity));
        copy = LocalCopy::default();
        assert!(!Arc::ptr_eq(&copy.identity(), &identity));
    }
}
