//! The bits of a Bloom filter: the positions of those that are set while they are few, all of them from then on.
//!
//! Invariant: which of the two forms there is depends only on the number of bits that are set, so filters with the same
//! bits are equal.

use super::super::DecodeError;
use super::super::codec::{self, Reader};

/// Some bits of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::merge) enum Bits {
    /// The sorted positions of the bits that are set.
    Sparse(Vec<u32>),
    /// All bits, 64 in each word, the lowest first.
    Dense(Box<[u64]>),
}

/// Returns the most positions that are kept as such: half of the memory of all bits.
fn max_positions(bits: u64) -> usize {
    usize::try_from(bits / 64).unwrap_or(usize::MAX)
}

fn words(bits: u64) -> usize {
    usize::try_from(bits / 64).unwrap_or(usize::MAX)
}

impl Bits {
    pub(super) const EMPTY: Self = Self::Sparse(Vec::new());

    pub(super) fn max_bytes(bits: u64) -> usize {
        // A vector of positions grows by doubling, to what all bits take.
        5 + words(bits).saturating_mul(8)
    }

    pub(super) fn from_positions(bits: u64, mut positions: Vec<u32>) -> Self {
        positions.sort_unstable();
        positions.dedup();
        if positions.len() <= max_positions(bits) {
            positions.shrink_to(positions.len().next_power_of_two());
            return Self::Sparse(positions);
        }
        let mut words = vec![0; words(bits)].into_boxed_slice();
        set(&mut words, &positions);
        Self::Dense(words)
    }

    /// Takes all words of a filter that comes from elsewhere.
    pub(super) fn from_words(bits: u64, words: Box<[u64]>) -> Self {
        let all = Self::Dense(words);
        if all.count() > max_positions(bits) {
            return all;
        }
        let Self::Dense(words) = all else { return all };
        let positions = words.iter().zip((0_u32..).step_by(64)).flat_map(|(word, base)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| base + bit)
        });
        Self::Sparse(positions.collect())
    }

    pub(super) fn words(&self, bits: u64) -> Box<[u64]> {
        match self {
            Self::Sparse(positions) => {
                let mut words = vec![0; words(bits)].into_boxed_slice();
                set(&mut words, positions);
                words
            }
            Self::Dense(words) => words.clone(),
        }
    }

    /// Returns whether these are bits of a filter of this size.
    pub(super) fn fit(&self, bits: u64) -> bool {
        match self {
            Self::Sparse(positions) => positions.last().is_none_or(|last| u64::from(*last) < bits),
            Self::Dense(all) => all.len() == words(bits),
        }
    }

    pub(super) fn merge(&mut self, bits: u64, other: &Self) {
        match (&mut *self, other) {
            (Self::Dense(into), Self::Dense(other)) => {
                for (into, other) in into.iter_mut().zip(other) {
                    *into |= other;
                }
            }
            (Self::Dense(into), Self::Sparse(positions)) => set(into, positions),
            (Self::Sparse(positions), Self::Dense(other)) => {
                let mut words = other.clone();
                set(&mut words, positions);
                *self = Self::Dense(words);
            }
            (Self::Sparse(into), Self::Sparse(other)) => {
                if other.iter().all(|position| into.binary_search(position).is_ok()) {
                    return;
                }
                let mut positions = std::mem::take(into);
                positions.extend_from_slice(other);
                *self = Self::from_positions(bits, positions);
            }
        }
    }

    pub(super) fn is_set(&self, position: u32) -> bool {
        match self {
            Self::Sparse(positions) => positions.binary_search(&position).is_ok(),
            Self::Dense(words) => words[position as usize / 64] >> (position % 64) & 1 == 1,
        }
    }

    /// Returns the number of bits that are set.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Sparse(positions) => positions.len(),
            Self::Dense(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Sparse(positions) => positions.capacity() * size_of::<u32>(),
            Self::Dense(words) => words.len() * size_of::<u64>(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sparse(positions) => {
                out.push(0);
                codec::write_length(positions.len(), out);
                out.extend(positions.iter().flat_map(|position| position.to_le_bytes()));
            }
            Self::Dense(words) => {
                out.push(1);
                out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
        }
    }

    pub(super) fn decode(bits: u64, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.flag()? {
            let all = Self::Dense(read_words(bits, input)?);
            if all.count() <= max_positions(bits) {
                return Err(DecodeError::Damaged("a filter has fewer bits than its form says"));
            }
            return Ok(all);
        }
        let positions = input.list(size_of::<u32>(), Reader::u32)?;
        let is_last_inside = positions.last().is_none_or(|last| u64::from(*last) < bits);
        if !positions.is_sorted_by(|one, next| one < next)
            || !is_last_inside
            || positions.len() > max_positions(bits)
        {
            return Err(DecodeError::Damaged("the positions of a filter are not valid"));
        }
        Ok(Self::Sparse(positions))
    }
}

/// Reads all words of a filter; allocates them once they are known to be there.
pub(super) fn read_words(bits: u64, input: &mut Reader<'_>) -> Result<Box<[u64]>, DecodeError> {
    let bytes = input.take(words(bits).saturating_mul(8))?;
    let (words, _) = bytes.as_chunks();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

fn set(words: &mut [u64], positions: &[u32]) {
    for position in positions {
        words[*position as usize / 64] |= 1 << (position % 64);
    }
}
