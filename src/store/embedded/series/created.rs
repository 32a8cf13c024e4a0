//! The series that were created while scans run.
//!
//! A scan reads the names' lists piece by piece, between other users of the table. What was created
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
#[derive(Debug, Default)]
pub(super) struct CreatedLog {
    marks: Vec<Weak<Mark>>,
    slots: VecDeque<u32>,
    /// The position of the first of `slots`.
    first: u64,
}

impl CreatedLog {
    /// Starts to keep what is created from now on, until the mark is dropped.
    pub(super) fn mark(&mut self) -> Arc<Mark> {
        self.trim();
        let mark = Arc::new(Mark { start: self.end() });
        self.marks.push(Arc::downgrade(&mark));
        mark
    }

    /// Notes that a series became live.
    pub(super) fn note(&mut self, slot: u32) {
        if !self.marks.is_empty() {
            self.slots.push_back(slot);
        }
    }

    /// Drops what no scan will read. To be called before each batch.
    pub(super) fn trim(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        self.marks.retain(|mark| mark.strong_count() > 0);
        let starts = self.marks.iter().filter_map(|mark| Some(mark.upgrade()?.start));
        let keep_from = starts.min().unwrap_or_else(|| self.end());
        let dropped = usize::try_from(keep_from - self.first).unwrap_or(usize::MAX);
        self.slots.drain(..dropped.min(self.slots.len()));
        self.first = keep_from;
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }

    /// Returns the position behind the last series.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Returns the slots from `position` on, oldest first. A slot may have been freed since, or belong to
    /// another series.
    pub(super) fn since(&self, position: u64) -> impl Iterator<Item = u32> {
        let skipped = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.iter().skip(skipped).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_a_mark_needs_and_nothing_else() {
        let mut log = CreatedLog::default();
        log.note(1);
        let first = log.mark();
        log.note(2);
        let second = log.mark();
        log.note(3);
        assert_eq!(log.since(first.start()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(log.since(second.start()).collect::<Vec<_>>(), [3]);
        drop(first);
        log.trim();
        assert_eq!((log.slots.len(), log.since(second.start()).count()), (1, 1));
        drop(second);
        log.trim();
        log.note(4);
        assert!(log.slots.is_empty());
    }
}
