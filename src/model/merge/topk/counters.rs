//! The counters of a top list, and their eviction.
//!
//! An eviction subtracts one number from all counters, so that about half of them are gone. Invariant: each counter is at
//! least 1; a counter plus `max_error` is at least the true count, and a counter alone at most that.

use std::collections::BTreeMap;

use super::super::codec::{self, Reader};
use super::super::{DecodeError, MergeError};
use crate::model::keys::MAX_KEY_BYTES;

/// Counters by text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::model::merge) struct Counters {
    counts: BTreeMap<Box<str>, u64>,
    /// What was subtracted from each counter, at most.
    max_error: u64,
    /// The true counts of all texts together; at most `i64::MAX`, so no sum of counters overflows.
    total: u64,
}

/// The most that all counts together can be: every client can read it.
const MAX_TOTAL: u64 = i64::MAX.unsigned_abs();

/// What an entry of a `BTreeMap` takes with its share of a node, besides the text: nodes are at least half full.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<str>, u64)>();

impl Counters {
    pub(super) fn max_bytes(capacity: usize) -> usize {
        size_of::<Self>() + capacity * (ENTRY_BYTES + MAX_KEY_BYTES)
    }

    /// Puts counters together that come from elsewhere.
    pub(super) fn new(
        counts: BTreeMap<Box<str>, u64>,
        max_error: u64,
        total: u64,
    ) -> Result<Self, DecodeError> {
        let sum = counts.values().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        if total > MAX_TOTAL || max_error > total || sum.is_none_or(|sum| sum > total) {
            return Err(DecodeError::Damaged("its counts are larger than their total"));
        }
        if counts.values().any(|count| *count == 0) {
            return Err(DecodeError::Damaged("a count is zero"));
        }
        if counts.keys().any(|text| text.is_empty() || text.len() > MAX_KEY_BYTES) {
            return Err(DecodeError::Damaged("a text is empty or too long"));
        }
        Ok(Self { counts, max_error, total })
    }

    pub(super) fn add(&mut self, item: &str, count: u64) -> Result<(), MergeError> {
        self.grow(count)?;
        if count > 0 {
            self.count(item, count);
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        self.grow(other.total)?;
        for (item, count) in &other.counts {
            self.count(item, *count);
        }
        self.max_error += other.max_error;
        Ok(())
    }

    fn grow(&mut self, by: u64) -> Result<(), MergeError> {
        let total = self.total.checked_add(by).filter(|total| *total <= MAX_TOTAL);
        self.total = total.ok_or(MergeError::Overflow("the counts must fit into 64 bits"))?;
        Ok(())
    }

    fn count(&mut self, item: &str, by: u64) {
        match self.counts.get_mut(item) {
            Some(count) => *count += by,
            None => {
                self.counts.insert(item.into(), by);
            }
        }
    }

    /// Leaves at most half of `capacity` counters if there are more than `capacity`.
    pub(super) fn evict(&mut self, capacity: usize) {
        if self.counts.len() <= capacity {
            return;
        }
        let mut counts: Vec<_> = self.counts.values().copied().collect();
        // The greatest that is evicted. Each of the counters above it loses as much as it does, which bounds the error:
        // that times half of the capacity is at most the total.
        let (_, cut, _) = counts.select_nth_unstable_by(capacity / 2, |one, other| other.cmp(one));
        let cut = *cut;
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(cut);
            *count > 0
        });
        self.max_error += cut;
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn max_error(&self) -> u64 {
        self.max_error
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> + Clone {
        self.counts.iter().map(|(item, count)| (&**item, *count))
    }

    /// Returns all counters, the greatest first, of equal ones in the order of their texts.
    pub(super) fn ranked(&self) -> Vec<(&str, u64)> {
        let mut ranked: Vec<_> = self.iter().collect();
        ranked.sort_by(|(_, one), (_, other)| other.cmp(one));
        ranked
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts: usize = self.counts.keys().map(|text| text.len()).sum();
        size_of::<Self>() + self.counts.len() * ENTRY_BYTES + texts
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.total.to_le_bytes());
        out.extend(self.max_error.to_le_bytes());
        codec::write_length(self.counts.len(), out);
        for (item, count) in self.iter() {
            out.extend(count.to_le_bytes());
            codec::write_bytes(item.as_bytes(), out);
        }
    }

    pub(super) fn decode(capacity: usize, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (total, max_error) = (input.u64()?, input.u64()?);
        let entries = input.list(12, |input| {
            let count = input.u64()?;
            Ok((input.text()?, count))
        })?;
        if entries.len() > capacity || !entries.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(DecodeError::Damaged("its counters are too many or not sorted"));
        }
        let counts = entries.into_iter().map(|(item, count)| (item.into(), count)).collect();
        Self::new(counts, max_error, total)
    }
}
