//! The values that a sketch of quantiles has seen: bins for each sign, and what is kept exactly.
//!
//! Invariant: min and max are there if and only if there are values; the number of values fits into a signed 64-bit
//! integer, so no count in a bin overflows.

use super::super::codec::Reader;
use super::super::exact::Total;
use super::super::number::Float;
use super::super::{DecodeError, MergeError};
use super::bins::{Bins, Scale};

/// A sketch of values.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::merge) struct Summary {
    positive: Bins,
    /// By the absolute values.
    negative: Bins,
    /// Zeros, and subnormal values, which are closer to zero than to have a relative accuracy.
    zeros: u64,
    count: u64,
    sum: Total,
    range: Option<(Float, Float)>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            positive: Bins::default(),
            negative: Bins::default(),
            zeros: 0,
            count: 0,
            sum: Total::ZERO,
            range: None,
        }
    }
}

const MAX_COUNT: u64 = i64::MAX.unsigned_abs();

impl Summary {
    pub(super) fn max_bytes(scale: &Scale) -> usize {
        size_of::<Self>() + 2 * Bins::max_bytes(scale) + Total::MAX_BYTES
    }

    /// Adds a finite value.
    pub(super) fn add(&mut self, scale: &Scale, value: f64) -> Result<(), MergeError> {
        let value = value + 0.0;
        self.grow(1, &Total::new(value))?;
        if value.abs() < f64::MIN_POSITIVE {
            self.zeros += 1;
        } else if value > 0.0 {
            self.positive.add(scale, scale.bin(value));
        } else {
            self.negative.add(scale, scale.bin(-value));
        }
        self.widen(Some((Float::new(value), Float::new(value))));
        Ok(())
    }

    pub(super) fn merge(&mut self, scale: &Scale, other: &Self) -> Result<(), MergeError> {
        self.grow(other.count, &other.sum)?;
        self.zeros += other.zeros;
        self.positive.merge(scale, &other.positive);
        self.negative.merge(scale, &other.negative);
        self.widen(other.range);
        Ok(())
    }

    /// Adds to the count and to the sum, if both stay in range.
    fn grow(&mut self, count: u64, sum: &Total) -> Result<(), MergeError> {
        let count = self.count.checked_add(count).filter(|count| *count <= MAX_COUNT);
        let count = count.ok_or(MergeError::Overflow("a count must fit into 64 bits"))?;
        self.sum.add(sum)?;
        self.count = count;
        Ok(())
    }

    fn widen(&mut self, other: Option<(Float, Float)>) {
        self.range = match (self.range, other) {
            (Some((min, max)), Some((low, high))) => Some((min.min(low), max.max(high))),
            (one, other) => one.or(other),
        };
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum.nearest()
    }

    /// Returns the value of which a share `q` of the others is not greater: the one with the rank `q (n - 1)`, rounded
    /// down. `None` if there are no values.
    pub(super) fn quantile(&self, scale: &Scale, q: f64) -> Option<f64> {
        let (min, max) = self.range?;
        let last = self.count - 1;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank that is rounded, not negative and at most the last"
        )]
        let rank = ((q * last as f64) as u64).min(last);
        if rank == 0 || rank == last {
            return Some(if rank == 0 { min } else { max }.get());
        }
        let negative = self.negative.count();
        let value = if rank < negative {
            -scale.value(self.negative.at_rank(negative - 1 - rank)?)
        } else if rank < negative + self.zeros {
            0.0
        } else {
            scale.value(self.positive.at_rank(rank - negative - self.zeros)?)
        };
        Some(value.clamp(min.get(), max.get()))
    }

    /// Returns how many values may be outside of the accuracy, since they were collapsed.
    pub(super) fn collapsed(&self, scale: &Scale) -> u64 {
        self.positive.collapsed(scale) + self.negative.collapsed(scale)
    }

    /// Returns the share of the bins of one sign that are in use, of the sign with the more.
    pub(super) fn fill(&self, scale: &Scale) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "below 2^31")]
        let used = self.positive.len().max(self.negative.len()) as f64;
        used / f64::from(scale.max_bins())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let bins = self.positive.heap_bytes() + self.negative.heap_bytes();
        size_of::<Self>() + bins + self.sum.heap_bytes()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.zeros.to_le_bytes());
        self.positive.encode(out);
        self.negative.encode(out);
        if let Some((min, max)) = self.range {
            out.extend([min, max].iter().flat_map(|float| float.get().to_le_bytes()));
            self.sum.encode(out);
        }
    }

    pub(super) fn decode(scale: &Scale, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let zeros = input.u64()?;
        let (positive, negative) = (Bins::decode(scale, input)?, Bins::decode(scale, input)?);
        let counts = [zeros, positive.checked_count()?, negative.checked_count()?];
        let count = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        let Some(count) = count.filter(|count| *count <= MAX_COUNT) else {
            return Err(DecodeError::Damaged("its counts do not fit into 64 bits"));
        };
        let mut summary = Self { positive, negative, zeros, count, ..Self::default() };
        if count > 0 {
            let (min, max) = (input.f64()?, input.f64()?);
            summary.sum = Total::decode(input)?;
            if !(min <= max && min.is_finite() && max.is_finite() && summary.sum().is_finite()) {
                return Err(DecodeError::Damaged("its range is not valid"));
            }
            summary.range = Some((Float::new(min + 0.0), Float::new(max + 0.0)));
        }
        Ok(summary)
    }
}
