//! Scans: the live series that selectors match, in the order of their keys, read in pieces.
//!
//! What a store keeps its series in is [`Scanned`] here. It is locked for one piece at a time; matching happens between
//! the pieces, while it is free. What changed meanwhile is made up for: series that were created behind the scan's
//! position are in a [`CreatedLog`], and [`Scan::finish`] looks at all finds once more. Not asynchronous, and not bounded
//! in number: [`ScanTurns`] are for that. Invariant: when `finish` returns true, the finds are exactly what the store
//! has at that moment, up to the limit; and no lock is held for more than a bounded number of series.

mod created;
mod scanned;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(in crate::store) use self::created::CreatedLog;
use self::created::Mark;
pub(in crate::store) use self::scanned::{Scanned, SeriesPiece};
pub(in crate::store) use self::turns::ScanTurns;
use crate::model::selector::Selector;
use crate::model::series::SeriesKey;

/// The most series and names that are looked at while the store is locked once.
pub(in crate::store) const LOOKED_AT: usize = 1024;

/// The most created series that [`Scan::finish`] matches while the store is locked.
const MATCHED_AT_THE_END: usize = 32;

/// A scan.
#[derive(Debug)]
pub(in crate::store) struct Scan<P> {
    selectors: Vec<Selector>,
    /// Only series after this one are wanted.
    after: Option<SeriesKey>,
    /// The scan may stop behind so many finds: one more than are wanted tells that more follow.
    enough: usize,
    names: NamesToScan,
    /// The name whose series are being read, and the last labels that were read of it.
    current: Option<(Arc<str>, Option<Arc<str>>)>,
    /// The last series that was read, matching or not.
    reached: Option<SeriesKey>,
    /// Where the log of created series was read to; `None` before the first piece.
    created: Option<(Arc<Mark>, u64)>,
    found: BTreeMap<SeriesKey, P>,
    is_ready: bool,
}

/// The names that can match and were not read yet.
#[derive(Debug)]
struct NamesToScan {
    queue: VecDeque<Arc<str>>,
    /// Where the next names come from.
    source: NameSource,
}

#[derive(Debug)]
enum NameSource {
    /// The selectors name all of them: all are in the queue.
    Listed,
    /// All names of the store, after this one (or from it on).
    Table { from: Option<(Arc<str>, bool)>, at_end: bool },
}

/// What one lock of the store showed.
#[derive(Debug)]
pub(in crate::store) enum Piece<P> {
    /// Names.
    Names(Vec<Arc<str>>),
    /// Series and where they are, in order unless they are created ones.
    Series(Vec<(SeriesKey, P)>),
}

impl<P: Copy> Scan<P> {
    /// Makes a scan for the series that any of `selectors` matches (all when there is none), after `after`,
    /// that stops when more than `limit` were found.
    pub(in crate::store) fn new(
        selectors: Vec<Selector>,
        after: Option<SeriesKey>,
        limit: usize,
    ) -> Self {
        let from = after.as_ref().map(|after| Arc::clone(&after.name));
        let names = NamesToScan::new(&selectors, from);
        Self {
            selectors,
            after,
            enough: limit.saturating_add(1),
            names,
            current: None,
            reached: None,
            created: None,
            found: BTreeMap::new(),
            is_ready: false,
        }
    }

    /// Returns whether [`Self::finish`] is to be called next.
    pub(in crate::store) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Reads the next piece from the locked store. [`Self::take`] gets it when the store is free again.
    pub(in crate::store) fn read_piece(&mut self, table: &mut impl Scanned<Place = P>) -> Piece<P> {
        if self.created.is_none() {
            let mark = table.created_mut().mark();
            let start = mark.start();
            self.created = Some((mark, start));
        }
        if !self.has_enough() {
            return if self.current.is_some() || !self.names.queue.is_empty() {
                Piece::Series(self.read_series(table))
            } else {
                Piece::Names(self.names.read(table))
            };
        }
        let created = self.created_since(table, LOOKED_AT);
        self.is_ready = self.has_read_all_created(table);
        Piece::Series(created)
    }

    /// Matches a piece.
    pub(in crate::store) fn take(&mut self, piece: Piece<P>) {
        match piece {
            Piece::Names(names) => {
                let can_match = |name: &Arc<str>| {
                    self.selectors.is_empty()
                        || self.selectors.iter().any(|selector| selector.matches_name(name))
                };
                self.names.queue.extend(names.into_iter().filter(can_match));
            }
            Piece::Series(series) => {
                let wanted = |key: &SeriesKey| {
                    self.after.as_ref().is_none_or(|after| key > after)
                        && (self.selectors.is_empty()
                            || self.selectors.iter().any(|s| s.matches(&key.name, &key.labels)))
                };
                self.found.extend(series.into_iter().filter(|(key, _)| wanted(key)));
            }
        }
    }

    /// Holds the finds against the locked store; returns whether they are what it has now. Otherwise
    /// more pieces have to be read.
    pub(in crate::store) fn finish(&mut self, table: &impl Scanned<Place = P>) -> bool {
        if !self.has_caught_up_with(table) {
            return false;
        }
        self.found.retain(|key, place| table.is_live_as(*place, key));
        // Deletions may have made room for series that were not reached.
        self.has_enough()
    }

    /// Matches the last created series of the locked store; returns whether there are no more. Unlike [`Self::finish`],
    /// it does not look again at what was found.
    pub(in crate::store) fn has_caught_up_with(&mut self, table: &impl Scanned<Place = P>) -> bool {
        self.is_ready = false;
        let created = self.created_since(table, MATCHED_AT_THE_END);
        self.take(Piece::Series(created));
        self.has_read_all_created(table)
    }

    /// Returns what was found, in order: one series more than the limit where more follow.
    pub(in crate::store) fn found(&self) -> impl Iterator<Item = (&SeriesKey, P)> {
        self.found.iter().map(|(key, place)| (key, *place))
    }

    /// Takes the first `limit` of what was found.
    pub(in crate::store) fn take_found(&mut self, limit: usize) -> Vec<(SeriesKey, P)> {
        std::iter::from_fn(|| self.found.pop_first()).take(limit).collect()
    }

    /// Returns how many series were found.
    pub(in crate::store) fn count(&self) -> usize {
        self.found.len()
    }

    /// Returns whether no more series have to be read: enough were found, or there are no more. Only those
    /// up to the position count: between created ones beyond it, others may lie.
    fn has_enough(&self) -> bool {
        let enough_before = |reached: &SeriesKey| {
            self.found.len() >= self.enough
                && self.found.range(..=reached).nth(self.enough - 1).is_some()
        };
        self.has_read_all_names() || self.reached.as_ref().is_some_and(enough_before)
    }

    fn has_read_all_names(&self) -> bool {
        self.current.is_none() && self.names.queue.is_empty() && self.names.source.at_end()
    }

    /// Reads the next series in order; none where a name's list had to be sorted first.
    fn read_series(&mut self, table: &mut impl Scanned<Place = P>) -> Vec<(SeriesKey, P)> {
        // Without selectors everything matches, so no more are read than are wanted.
        let missing = if self.selectors.is_empty() {
            self.enough.saturating_sub(self.found.len())
        } else {
            LOOKED_AT
        };
        let most = missing.clamp(1, LOOKED_AT);
        let mut series = Vec::new();
        let mut looked_at = 0;
        while looked_at < most {
            let Some((name, after)) = self.take_current() else { break };
            let piece = table.read_series(&name, after.as_deref(), most - looked_at);
            // A name without series counts, too.
            looked_at += piece.looked_at.max(1);
            series.extend(piece.live);
            if let Some(labels) = &piece.last {
                let (name, labels) = (Arc::clone(&name), Arc::clone(labels));
                self.reached = Some(SeriesKey { name, labels });
            }
            if piece.more {
                self.current = Some((name, piece.last.or(after)));
            }
        }
        series
    }

    fn take_current(&mut self) -> Option<(Arc<str>, Option<Arc<str>>)> {
        self.current.take().or_else(|| {
            let name = self.names.queue.pop_front()?;
            let after = self.after.as_ref().filter(|after| after.name == name);
            let labels = after.map(|after| Arc::clone(&after.labels));
            Some((name, labels))
        })
    }

    /// Reads at most `limit` series that were created since this was last called, and are live.
    fn created_since(
        &mut self,
        table: &impl Scanned<Place = P>,
        limit: usize,
    ) -> Vec<(SeriesKey, P)> {
        let Some((_, position)) = &mut self.created else { return Vec::new() };
        let mut read = 0;
        let created = table.created().since(*position).take(limit).inspect(|_| read += 1);
        let live = created.filter_map(|series| table.find_created(series)).collect();
        *position += read;
        live
    }

    fn has_read_all_created(&self, table: &impl Scanned<Place = P>) -> bool {
        self.created.as_ref().is_none_or(|(_, position)| *position == table.created().end())
    }
}

impl NamesToScan {
    fn new(selectors: &[Selector], from: Option<Arc<str>>) -> Self {
        let listed: Option<Vec<Vec<&str>>> = selectors.iter().map(Selector::names).collect();
        match listed {
            Some(listed) if !selectors.is_empty() => {
                let mut names: Vec<&str> = listed.into_iter().flatten().collect();
                names.retain(|name| from.as_deref().is_none_or(|from| *name >= from));
                names.sort_unstable();
                names.dedup();
                let queue = names.into_iter().map(Arc::from).collect();
                Self { queue, source: NameSource::Listed }
            }
            _ => {
                let from = from.map(|from| (from, true));
                let source = NameSource::Table { from, at_end: false };
                Self { queue: VecDeque::new(), source }
            }
        }
    }

    /// Reads the next names of the store.
    fn read(&mut self, table: &impl Scanned) -> Vec<Arc<str>> {
        let NameSource::Table { from, at_end } = &mut self.source else { return Vec::new() };
        let start = from.as_ref().map(|(name, included)| (&**name, *included));
        let names: Vec<_> = table.names_from(start).take(LOOKED_AT).map(Arc::clone).collect();
        *at_end = names.len() < LOOKED_AT;
        if let Some(last) = names.last() {
            *from = Some((Arc::clone(last), false));
        }
        names
    }
}

impl NameSource {
    fn at_end(&self) -> bool {
        matches!(self, Self::Listed | Self::Table { at_end: true, .. })
    }
}
