//! What is in memory of a paged table: changes that the file does not have yet, and a cache.
//!
//! A change is pinned from its commit until compaction has written it; then it is an entry of the
//! cache, which may be dropped at any time. Knows neither the disk nor threads.
//!
//! Invariant: a row that is cached, and not pinned, is the committed one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::key::KeyText;
use crate::model::time::SteadyTime;

/// What an entry takes beside its key and its row: about as much as its places in the maps.
const ENTRY_BYTES: usize = 128;
/// A guess at what an entry takes, to begin with.
const USUAL_ENTRY_BYTES: u64 = 1024;

/// A row, and what counts when it is held.
#[derive(Debug)]
pub(super) struct HeldRow<R> {
    pub(super) row: Arc<R>,
    /// What it takes in memory, without its key.
    pub(super) bytes: usize,
    pub(super) expires_at: Option<SteadyTime>,
}

impl<R> Clone for HeldRow<R> {
    fn clone(&self) -> Self {
        Self { row: Arc::clone(&self.row), ..*self }
    }
}

impl<R> HeldRow<R> {
    pub(super) fn is_live(&self, now: SteadyTime) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// A change that the file does not have yet; without a row, it is removed.
struct Pinned<R> {
    seq: i64,
    row: Option<HeldRow<R>>,
}

/// What is in memory of one table.
pub(super) struct Held<R> {
    /// Without a file, all rows are pinned for ever.
    on_disk: bool,
    pinned: BTreeMap<KeyText, Pinned<R>>,
    /// The keys of pinned changes, by the number of their journal entry.
    by_seq: VecDeque<(i64, KeyText)>,
    /// The pinned rows that have an end, by it.
    ends: BTreeSet<(SteadyTime, KeyText)>,
    pinned_bytes: usize,
    cache: Cache<KeyText, HeldRow<R>, ByBytes, RandomState>,
    /// Changes up to this number are in the file, and no longer pinned.
    unpinned_seq: i64,
    /// All rows: those in the file, as the pinned changes alter them.
    rows: i64,
}

/// What memory says about a key.
pub(super) enum Look<R> {
    /// The committed row, or that there is none.
    Known(Option<HeldRow<R>>),
    /// The file has to be read.
    Unknown,
}

impl<R> Held<R> {
    /// Makes what is held of an empty table; `cache_bytes` bounds the cache.
    pub(super) fn new(cache_bytes: u64) -> Self {
        let items = cache_bytes / USUAL_ENTRY_BYTES;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(items).unwrap_or(usize::MAX))
            .weight_capacity(cache_bytes)
            .build()
            .expect("both are given");
        let (hasher, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        Self {
            on_disk: false,
            pinned: BTreeMap::new(),
            by_seq: VecDeque::new(),
            ends: BTreeSet::new(),
            pinned_bytes: 0,
            cache: Cache::with_options(options, ByBytes, hasher, lifecycle),
            unpinned_seq: 0,
            rows: 0,
        }
    }

    /// Notes that the table has a file, in which it has so many rows, and what the journal says up to
    /// entry number `compacted_seq`.
    pub(super) fn attach(&mut self, rows: i64, compacted_seq: i64) {
        (self.on_disk, self.rows, self.unpinned_seq) = (true, rows, compacted_seq);
    }

    /// Looks for a row, live or not.
    pub(super) fn look(&self, key: &str) -> Look<R> {
        if let Some(pinned) = self.pinned.get(key) {
            return Look::Known(pinned.row.clone());
        }
        match self.cache.get(key) {
            Some(row) => Look::Known(Some(row.clone())),
            None if self.on_disk => Look::Unknown,
            None => Look::Known(None),
        }
    }

    /// Returns the pinned row of a key.
    pub(super) fn pinned(&self, key: &str) -> Option<HeldRow<R>> {
        self.pinned.get(key)?.row.clone()
    }

    /// Returns whether a change of the key is pinned.
    pub(super) fn is_pinned(&self, key: &str) -> bool {
        self.pinned.contains_key(key)
    }

    /// Returns the first `limit` pinned changes from `from` on.
    pub(super) fn pinned_from(
        &self,
        from: Bound<&str>,
        limit: usize,
    ) -> Vec<(KeyText, Option<HeldRow<R>>)> {
        self.pinned
            .range::<str, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(key, pinned)| (Arc::clone(key), pinned.row.clone()))
            .collect()
    }

    /// Returns the pinned changes from the key `first` to `last`.
    pub(super) fn pinned_within<'a>(
        &'a self,
        first: &str,
        last: &str,
    ) -> impl Iterator<Item = (&'a KeyText, Option<&'a HeldRow<R>>)> {
        let bounds = (Bound::Included(first), Bound::Included(last));
        self.pinned.range::<str, _>(bounds).map(|(key, pinned)| (key, pinned.row.as_ref()))
    }

    /// Returns the keys of the pinned rows that have expired at `now`, in the order of their ends.
    pub(super) fn pinned_expired(&self, now: SteadyTime) -> impl Iterator<Item = &KeyText> {
        self.ends.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Sets or removes a row, in the journal entry number `seq`. `existed` says whether there was a
    /// row before, live or not.
    pub(super) fn pin(&mut self, seq: i64, key: KeyText, row: Option<HeldRow<R>>, existed: bool) {
        self.rows += i64::from(row.is_some()) - i64::from(existed);
        // What is pinned comes first, but it leaves before the cache does.
        self.cache.remove(&*key);
        self.unpin(&key);
        if !self.on_disk && row.is_none() {
            return;
        }
        self.pinned_bytes += entry_bytes(&key, row.as_ref());
        if let Some(at) = row.as_ref().and_then(|row| row.expires_at) {
            self.ends.insert((at, Arc::clone(&key)));
        }
        if self.on_disk {
            self.by_seq.push_back((seq, Arc::clone(&key)));
        }
        self.pinned.insert(key, Pinned { seq, row });
    }

    /// Notes that the file has all changes up to entry number `seq`: their rows may leave memory.
    pub(super) fn compacted(&mut self, seq: i64) {
        self.unpinned_seq = self.unpinned_seq.max(seq);
        while let Some((_, key)) = self.by_seq.pop_front_if(|(of, _)| *of <= seq) {
            // A later change of the key stays, under its own number.
            if self.pinned.get(&key).is_some_and(|pinned| pinned.seq <= seq)
                && let Some(Pinned { row: Some(row), .. }) = self.unpin(&key)
            {
                self.cache.insert(key, row);
            }
        }
    }

    fn unpin(&mut self, key: &KeyText) -> Option<Pinned<R>> {
        let pinned = self.pinned.remove(key)?;
        self.pinned_bytes -= entry_bytes(key, pinned.row.as_ref());
        if let Some(at) = pinned.row.as_ref().and_then(|row| row.expires_at) {
            self.ends.remove(&(at, Arc::clone(key)));
        }
        Some(pinned)
    }

    /// Caches a row that was read from the file, unless it may have changed since memory was looked
    /// at, which was when the file had all changes up to `unpinned_seq`. A change since then is
    /// pinned, or has been unpinned.
    pub(super) fn cache(&mut self, key: KeyText, row: HeldRow<R>, unpinned_seq: i64) {
        if self.unpinned_seq == unpinned_seq && !self.is_pinned(&key) {
            self.cache.insert(key, row);
        }
    }

    /// Returns up to which number changes are no longer pinned.
    pub(super) fn unpinned_seq(&self) -> i64 {
        self.unpinned_seq
    }

    /// Counts all rows, also those that have expired and are not purged yet.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.rows).unwrap_or(0)
    }

    /// Returns what is pinned, in bytes.
    pub(super) fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Returns what is cached, in bytes.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// Returns what an entry takes in memory, in bytes.
pub(super) fn entry_bytes<R>(key: &str, row: Option<&HeldRow<R>>) -> usize {
    ENTRY_BYTES + key.len() + row.map_or(0, |row| row.bytes)
}

#[derive(Clone)]
struct ByBytes;

impl<R> Weighter<KeyText, HeldRow<R>> for ByBytes {
    fn weight(&self, key: &KeyText, row: &HeldRow<R>) -> u64 {
        entry_bytes(key, Some(row)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32) -> HeldRow<u32> {
        HeldRow { row: Arc::new(number), bytes: 4, expires_at: None }
    }

    /// Returns what memory knows of the row `a`; `None` when the file has to be read.
    fn known(held: &Held<u32>) -> Option<Option<u32>> {
        match held.look("a") {
            Look::Known(row) => Some(row.map(|row| *row.row)),
            Look::Unknown => None,
        }
    }

    #[test]
    fn a_row_that_changed_since_it_was_read_is_not_cached() {
        let mut held = Held::new(1 << 20);
        held.attach(1, 5);
        // It changes and is written while somebody reads it, and is dropped from the cache again.
        let looked_at = held.unpinned_seq();
        held.pin(6, "a".into(), Some(row(2)), true);
        held.cache("a".into(), row(1), looked_at);
        assert_eq!(known(&held), Some(Some(2)));
        held.compacted(6);
        held.cache.remove("a");
        held.cache("a".into(), row(1), looked_at);
        assert_eq!(known(&held), None);
        let looked_at = held.unpinned_seq();
        held.cache("a".into(), row(2), looked_at);
        assert_eq!(known(&held), Some(Some(2)));
        // It is removed.
        held.pin(7, "a".into(), None, true);
        held.cache("a".into(), row(2), looked_at);
        assert_eq!(known(&held), Some(None));
        held.compacted(7);
        assert_eq!((known(&held), held.rows()), (None, 0));
    }

    #[test]
    fn a_change_stays_pinned_until_the_file_has_it() {
        let mut held = Held::new(0);
        held.attach(0, 0);
        held.pin(1, "a".into(), Some(row(1)), false);
        held.pin(3, "a".into(), Some(row(3)), true);
        held.compacted(2);
        assert_eq!((known(&held), held.rows()), (Some(Some(3)), 1));
        assert!(held.pinned_bytes() > 0);
        held.compacted(3);
        assert_eq!((known(&held), held.pinned_bytes(), held.cached_bytes()), (None, 0, 0));
        assert!(held.by_seq.is_empty());
    }
}
