//! What an HLL sketch remembers: coupons, or registers.
//!
//! Invariant: there are coupons as long as they are few enough (by the rule of the DataSketches libraries), each once and
//! sorted. Sketches of the same elements are therefore equal, whatever they were merged from.

use std::hash::{Hash, Hasher};

use datasketches::hash::value::raw_bytes;
use datasketches::hll::Coupon;

use super::super::DecodeError;
use super::super::codec::{self, Reader};
use super::super::element::Element;

/// The low bits of a coupon, which choose the slot; the six above are the value of the register, from 1.
const SLOT_BITS: u32 = 26;

/// The greatest value of a register.
pub(super) const MAX_VALUE: u8 = 63;

/// The hashes of elements, or the greatest of them in each slot.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model::merge) enum Registers {
    /// Sorted coupons.
    Sparse(Vec<u32>),
    /// A value for each of 2^lg_k slots.
    Dense(Box<[u8]>),
}

/// Returns the coupon of an element, as all libraries of the family do.
pub(super) fn coupon(element: &Element) -> u32 {
    /// Takes the number of a coupon out of it: the library shows it nowhere else.
    #[derive(Default)]
    struct Taken(u32);

    impl Hasher for Taken {
        fn write(&mut self, _bytes: &[u8]) {}

        fn write_u32(&mut self, number: u32) {
            self.0 = number;
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    let coupon =
        element.with_hashed_bytes(|bytes| Coupon::from_value(raw_bytes::from_slice(bytes)));
    let mut taken = Taken::default();
    coupon.hash(&mut taken);
    taken.0
}

/// Returns the slot and the value of a coupon.
fn split(lg_k: u8, coupon: u32) -> (usize, u8) {
    let slot = coupon & ((1 << lg_k) - 1);
    (slot as usize, (coupon >> SLOT_BITS).to_le_bytes()[0])
}

/// Whether this can be a coupon of an element.
pub(super) fn is_coupon(number: u32) -> bool {
    number >> SLOT_BITS > 0
}

/// Returns the most coupons that are kept as such.
pub(super) fn max_coupons(lg_k: u8) -> usize {
    // A list of 8 that is not full; from lg_k = 8 on also a table of an eighth of the slots, at most three quarters full.
    if lg_k < 8 { 7 } else { 3 << (lg_k - 3) >> 2 }
}

impl Registers {
    pub(super) const EMPTY: Self = Self::Sparse(Vec::new());

    pub(super) fn max_bytes(lg_k: u8) -> usize {
        // A vector of coupons grows by doubling.
        5 + (1 << lg_k).max(8 * max_coupons(lg_k))
    }

    pub(super) fn from_coupons(lg_k: u8, mut coupons: Vec<u32>) -> Self {
        coupons.sort_unstable();
        coupons.dedup();
        if coupons.len() <= max_coupons(lg_k) {
            return Self::Sparse(coupons);
        }
        let mut registers = vec![0; 1 << lg_k].into_boxed_slice();
        update(lg_k, &mut registers, &coupons);
        Self::Dense(registers)
    }

    /// Returns whether these are registers of a sketch with this lg_k.
    pub(super) fn fit(&self, lg_k: u8) -> bool {
        match self {
            Self::Sparse(coupons) => coupons.len() <= max_coupons(lg_k),
            Self::Dense(registers) => registers.len() == 1 << lg_k,
        }
    }

    pub(super) fn merge(&mut self, lg_k: u8, other: &Self) {
        match (&mut *self, other) {
            (Self::Dense(into), Self::Dense(other)) => {
                for (into, other) in into.iter_mut().zip(other) {
                    *into = (*into).max(*other);
                }
            }
            (Self::Dense(into), Self::Sparse(coupons)) => update(lg_k, into, coupons),
            (Self::Sparse(coupons), Self::Dense(other)) => {
                let mut registers = other.clone();
                update(lg_k, &mut registers, coupons);
                *self = Self::Dense(registers);
            }
            (Self::Sparse(into), Self::Sparse(other)) => {
                if other.iter().all(|coupon| into.binary_search(coupon).is_ok()) {
                    return;
                }
                let mut coupons = std::mem::take(into);
                coupons.extend_from_slice(other);
                *self = Self::from_coupons(lg_k, coupons);
            }
        }
    }

    /// Returns the share of the slots that are in use, from 0 to 1.
    pub(super) fn fill(&self, lg_k: u8) -> f64 {
        let used = match self {
            Self::Sparse(coupons) => {
                let mut slots: Vec<_> =
                    coupons.iter().map(|coupon| split(lg_k, *coupon).0).collect();
                slots.sort_unstable();
                slots.dedup();
                slots.len()
            }
            Self::Dense(registers) => registers.iter().filter(|value| **value > 0).count(),
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 2^21")]
        let used = used as f64;
        used / f64::from(1 << lg_k)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Sparse(coupons) => coupons.capacity() * size_of::<u32>(),
            Self::Dense(registers) => registers.len(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sparse(coupons) => {
                out.push(0);
                codec::write_length(coupons.len(), out);
                out.extend(coupons.iter().flat_map(|coupon| coupon.to_le_bytes()));
            }
            Self::Dense(registers) => {
                out.push(1);
                out.extend_from_slice(registers);
            }
        }
    }

    pub(super) fn decode(lg_k: u8, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.flag()? {
            return Self::dense(input.take(1 << lg_k)?);
        }
        let coupons = input.list(size_of::<u32>(), Reader::u32)?;
        if !coupons.is_sorted_by(|one, next| one < next)
            || !coupons.iter().all(|coupon| is_coupon(*coupon))
            || coupons.len() > max_coupons(lg_k)
        {
            return Err(DecodeError::Damaged("the coupons of an hll are not valid"));
        }
        Ok(Self::Sparse(coupons))
    }

    /// Takes registers that come from elsewhere.
    pub(super) fn dense(registers: &[u8]) -> Result<Self, DecodeError> {
        if registers.iter().any(|value| *value > MAX_VALUE) {
            return Err(DecodeError::Damaged("a register of an hll is too large"));
        }
        Ok(Self::Dense(registers.into()))
    }
}

fn update(lg_k: u8, registers: &mut [u8], coupons: &[u32]) {
    for coupon in coupons {
        let (slot, value) = split(lg_k, *coupon);
        registers[slot] = registers[slot].max(value);
    }
}
