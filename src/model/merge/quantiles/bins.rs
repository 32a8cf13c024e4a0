//! Counts of positive values in bins whose bounds grow by a constant factor.
//!
//! There is room for a range of bins. Values below the range are counted in its lowest bin: they are collapsed. Invariant:
//! the range ends at the greatest bin that was ever used, so which values are collapsed does not depend on the order in
//! which they came.

use super::super::DecodeError;
use super::super::codec::{self, Reader};

/// How values are mapped to bins.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::merge) struct Scale {
    accuracy: f64,
    /// The logarithm of the factor between the bounds of two bins.
    ln_gamma: f64,
    max_bins: i32,
}

impl Scale {
    /// Takes an accuracy between 0 and 1, and how many bins there are at most.
    pub(in crate::model::merge) fn new(accuracy: f64, max_bins: i32) -> Self {
        Self { accuracy, ln_gamma: ((1.0 + accuracy) / (1.0 - accuracy)).ln(), max_bins }
    }

    pub(super) fn accuracy(&self) -> f64 {
        self.accuracy
    }

    pub(super) fn max_bins(&self) -> i32 {
        self.max_bins
    }

    /// Returns the bin of a positive value that is not subnormal.
    pub(super) fn bin(&self, value: f64) -> i32 {
        // At most 709 / 0.0002.
        #[expect(clippy::cast_possible_truncation, reason = "below 2^23")]
        let bin = (value.ln() / self.ln_gamma).ceil() as i32;
        bin
    }

    /// Returns the value that is closest to all values of a bin, relative to them.
    pub(super) fn value(&self, bin: i32) -> f64 {
        // 2 g^bin / (g + 1), where g = (1 + a) / (1 - a).
        (f64::from(bin) * self.ln_gamma).exp() * (1.0 - self.accuracy)
    }
}

/// Counts by bin.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Bins {
    /// The bins that are not empty, sorted.
    counts: Vec<(i32, u64)>,
    /// The lowest bin that a value ever had, before it was collapsed.
    lowest: i32,
}

impl Bins {
    const BYTES: usize = size_of::<(i32, u64)>();

    pub(super) fn max_bytes(scale: &Scale) -> usize {
        // A vector grows by doubling, and a merge has room for both operands.
        8 + 4 * Self::BYTES * usize::try_from(scale.max_bins).unwrap_or(usize::MAX)
    }

    /// Counts a value. The caller ensures that the count of all values does not overflow.
    pub(super) fn add(&mut self, scale: &Scale, bin: i32) {
        self.merge(scale, &Self { counts: vec![(bin, 1)], lowest: bin });
    }

    pub(super) fn merge(&mut self, scale: &Scale, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        self.lowest =
            if self.counts.is_empty() { other.lowest } else { self.lowest.min(other.lowest) };
        let known = self.counts.len();
        for (bin, count) in &other.counts {
            match self.counts[..known].binary_search_by_key(bin, |(bin, _)| *bin) {
                Ok(at) => self.counts[at].1 += count,
                Err(_) => self.counts.push((*bin, *count)),
            }
        }
        if self.counts.len() > known {
            // Two sorted runs, which the sort of the standard library merges in linear time.
            self.counts.sort_by_key(|(bin, _)| *bin);
            self.collapse(scale);
        }
    }

    /// Moves what is below the range into its lowest bin.
    fn collapse(&mut self, scale: &Scale) {
        let floor = self.floor(scale);
        let below = self.counts.partition_point(|(bin, _)| *bin < floor);
        if below == 0 {
            return;
        }
        let collapsed: u64 = self.counts[..below].iter().map(|(_, count)| count).sum();
        self.counts.drain(..below - 1);
        match self.counts.get_mut(1) {
            Some((bin, count)) if *bin == floor => {
                *count += collapsed;
                self.counts.remove(0);
            }
            _ => self.counts[0] = (floor, collapsed),
        }
    }

    /// Returns the lowest bin of the range.
    fn floor(&self, scale: &Scale) -> i32 {
        self.counts.last().map_or(0, |(highest, _)| highest - (scale.max_bins - 1))
    }

    /// Returns how many values were collapsed at most: the lowest bin can have values of its own.
    pub(super) fn collapsed(&self, scale: &Scale) -> u64 {
        match self.counts.first() {
            Some((bin, count)) if self.lowest < *bin && *bin == self.floor(scale) => *count,
            _ => 0,
        }
    }

    /// Returns the number of values.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Returns the number of values in bins that come from elsewhere.
    pub(super) fn checked_count(&self) -> Result<u64, DecodeError> {
        let sum = self.counts.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
        sum.ok_or(DecodeError::Damaged("its counts do not fit into 64 bits"))
    }

    /// Returns how many bins are in use.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns the bin of the value with this rank, from 0.
    pub(super) fn at_rank(&self, rank: u64) -> Option<i32> {
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += count;
            seen > rank
        });
        found.map(|(bin, _)| *bin)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.counts.capacity() * Self::BYTES
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.lowest.to_le_bytes());
        codec::write_length(self.counts.len(), out);
        for (bin, count) in &self.counts {
            out.extend(bin.to_le_bytes());
            out.extend(count.to_le_bytes());
        }
    }

    /// Reads bins. Their counts may overflow when they are added.
    pub(super) fn decode(scale: &Scale, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let lowest = input.i32()?;
        let counts = input.list(12, |input| Ok((input.i32()?, input.u64()?)))?;
        // A float has no bins beyond these.
        let range = scale.bin(f64::MIN_POSITIVE)..=scale.bin(f64::MAX);
        let is_valid = |(bin, count): &(i32, u64)| *count > 0 && range.contains(bin);
        let bins = Self { counts, lowest };
        let first = bins.counts.first().map(|(bin, _)| *bin);
        let is_sorted = bins.counts.is_sorted_by(|(one, _), (next, _)| one < next);
        if !is_sorted
            || !bins.counts.iter().all(is_valid)
            || first.is_some_and(|first| first < bins.floor(scale))
        {
            return Err(DecodeError::Damaged("its bins are not valid"));
        }
        // The lowest bin is that of the first value, unless that was collapsed into the lowest of the range.
        let is_lowest = match first {
            None => lowest == 0,
            Some(first) if first == bins.floor(scale) => lowest <= first && range.contains(&lowest),
            Some(first) => lowest == first,
        };
        if !is_lowest {
            return Err(DecodeError::Damaged("its lowest bin is not valid"));
        }
        Ok(bins)
    }
}
