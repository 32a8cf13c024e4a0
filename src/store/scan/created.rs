//! The series that were created while scans run.
//!
//! A scan reads the series piece by piece, between other users of the table. What was created
//! behind its position is here, so that it misses nothing. Not a change log: updates and deletions are
//! seen when the scan looks at its finds once more. Invariant: every series that became live after a
//! [`Mark`] was made is listed behind the mark's position, as long as the mark lives.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Where a scan begins to read the log. Dropping it takes no lock, so an async thread may do that.
#[derive(Debug)]
pub(super) struct Mark {
    start: u64,
}

impl Mark {
    /// Returns the position of the first series that was created after the mark was made.
    pub(super) fn start(&self) -> u64 {
        self.start
    }
}

/// The log. It is empty while no scan runs.
#[derive(Debug)]
pub(in crate::store) struct CreatedLog<T> {
    marks: Vec<Weak<Mark>>,
    /// What tells the store which series they are.
    series: VecDeque<T>,
    /// The position of the first of `series`.
    first: u64,
}

impl<T> Default for CreatedLog<T> {
    fn default() -> Self {
        Self { marks: Vec::new(), series: VecDeque::new(), first: 0 }
    }
}

impl<T> CreatedLog<T> {
    /// Starts to keep what is created from now on, until the mark is dropped.
    pub(super) fn mark(&mut self) -> Arc<Mark> {
        self.trim();
        let mark = Arc::new(Mark { start: self.end() });
        self.marks.push(Arc::downgrade(&mark));
        mark
    }

    /// Notes that a series became live.
    pub(in crate::store) fn note(&mut self, series: impl FnOnce() -> T) {
        if !self.marks.is_empty() {
            self.series.push_back(series());
        }
    }

    /// Drops what no scan will read. To be called before each batch.
    pub(in crate::store) fn trim(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        self.marks.retain(|mark| mark.strong_count() > 0);
        let starts = self.marks.iter().filter_map(|mark| Some(mark.upgrade()?.start));
        let keep_from = starts.min().unwrap_or_else(|| self.end());
        let dropped = usize::try_from(keep_from - self.first).unwrap_or(usize::MAX);
        self.series.drain(..dropped.min(self.series.len()));
        self.first = keep_from;
        if self.series.is_empty() {
            self.series = VecDeque::new();
        }
    }

    /// Returns the position behind the last series.
    pub(super) fn end(&self) -> u64 {
        self.first + self.series.len() as u64
    }

    /// Returns the series from `position` on, oldest first. Some may have been deleted since.
    pub(super) fn since(&self, position: u64) -> impl Iterator<Item = &T> {
        let skipped = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.series.iter().skip(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_a_mark_needs_and_nothing_else() {
        let mut log = CreatedLog::default();
        log.note(|| 1);
        let first = log.mark();
        log.note(|| 2);
        let second = log.mark();
        log.note(|| 3);
        assert_eq!(log.since(first.start()).copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(log.since(second.start()).copied().collect::<Vec<_>>(), [3]);
        drop(first);
        log.trim();
        assert_eq!((log.series.len(), log.since(second.start()).count()), (1, 1));
        drop(second);
        log.trim();
        log.note(|| 4);
        assert!(log.series.is_empty());
    }
}
