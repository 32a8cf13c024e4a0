//! The deletions that are remembered, oldest first.
//!
//! Invariant: every tombstone's newest change is above [`Tombstones::low_watermark`]; a cursor below
//! it may have missed a deletion, and is refused.

use std::collections::VecDeque;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    queue: VecDeque<(u64, u32)>,
    revived: usize,
    bytes: usize,
    low_watermark: u64,
}

impl Tombstones {
    /// Returns how many deletions are remembered.
    pub(super) fn len(&self) -> usize {
        self.queue.len() - self.revived
    }

    /// Returns the number of the newest deletion that was forgotten; 0 when none was.
    pub(super) fn low_watermark(&self) -> u64 {
        self.low_watermark
    }

    /// Returns how many bytes the keys of the deleted series have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers a deletion of a series whose key has so many bytes.
    pub(super) fn push(&mut self, seq: u64, slot: u32, key_bytes: usize) {
        self.queue.push_back((seq, slot));
        self.bytes += key_bytes;
    }

    /// Notes that the series of a tombstone is live again; its entry in the queue is void now.
    pub(super) fn revive(&mut self, key_bytes: usize) {
        self.revived += 1;
        self.bytes -= key_bytes;
    }

    /// Notes that the deletion that [`Self::pop_oldest`] returned is forgotten.
    pub(super) fn forget(&mut self, key_bytes: usize) {
        self.bytes -= key_bytes;
    }

    /// Drops the void entries once they are many, so that a series which is deleted and created
    /// again and again does not grow the queue.
    pub(super) fn sweep(&mut self, is_current: impl Fn(u64, u32) -> bool) {
        if self.revived > 64 + self.queue.len() / 2 {
            self.queue.retain(|(seq, slot)| is_current(*seq, *slot));
            self.revived = 0;
        }
    }

    /// Forgets the oldest deletion and returns its slot. `is_current` tells whether an entry
    /// still means a deleted series.
    pub(super) fn pop_oldest(&mut self, is_current: impl Fn(u64, u32) -> bool) -> Option<u32> {
        while let Some((seq, slot)) = self.queue.pop_front() {
            if is_current(seq, slot) {
                self.low_watermark = seq;
                return Some(slot);
            }
            self.revived -= 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_keys_that_are_remembered() {
        let mut tombstones = Tombstones::default();
        tombstones.push(1, 1, 10);
        tombstones.push(2, 2, 7);
        assert_eq!(tombstones.bytes(), 17);
        tombstones.revive(7);
        assert_eq!(tombstones.bytes(), 10);
        assert_eq!(tombstones.pop_oldest(|seq, _| seq == 1), Some(1));
        tombstones.forget(10);
        assert_eq!((tombstones.bytes(), tombstones.len()), (0, 0));
    }
}
