//! Exact sums of floats: additions that lose nothing, so that the order of additions does not matter.
//!
//! A sum is kept as one float as long as it is one, and otherwise as an integer of as many 64-bit limbs as it needs, in
//! units of the smallest float, 2^-1074. It is rounded only when it is read. Not the rounding of each addition that `+`
//! does, for which no law holds. Invariant: each sum has one form only, so equal sums are equal.

use super::codec::Reader;
use super::number::Float;
use super::{DecodeError, MergeError};

/// The limbs of the widest sum: floats have bits from 2^-1074 to 2^1023, the rest is for carries and the sign.
const LIMBS: usize = 34;

/// The bit of 2^1024, from which on no float can hold a sum.
const TOO_LARGE: usize = 1074 + 1024;

/// The sum of any number of floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Total {
    /// A sum that is a float, or is not finite. Never -0.
    Float(Float),
    /// A sum that no float can hold without rounding.
    Wide(Box<Wide>),
}

/// A number in two's complement, in units of 2^-1074, without the limbs that its sign or zeros say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wide {
    /// The number of low limbs that are zero and left out.
    base: usize,
    limbs: Vec<u64>,
}

impl Total {
    /// The most bytes of the stored form, and on the heap.
    pub(super) const MAX_BYTES: usize = 40 + LIMBS * 8;

    pub(super) const ZERO: Self = Self::Float(Float::ZERO);

    pub(super) fn new(float: f64) -> Self {
        // Adding 0 turns -0 into 0 and changes nothing else.
        Self::Float(Float::new(float + 0.0))
    }

    /// Returns the float that is nearest to the sum.
    pub(super) fn nearest(&self) -> f64 {
        match self {
            Self::Float(float) => float.get(),
            Self::Wide(wide) => {
                let mut sum = Accumulator::default();
                sum.add_wide(wide);
                sum.nearest()
            }
        }
    }

    /// Adds; unchanged after an error.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), MergeError> {
        if let (Self::Float(one), Self::Float(other)) = (&*self, other) {
            let (one, other) = (one.get(), other.get());
            let sum = one + other;
            if !(one.is_finite() && other.is_finite()) {
                // An infinity stays one, and NaN follows from two different ones or from NaN, whatever the order.
                *self = Self::new(sum);
                return Ok(());
            }
            if sum.is_finite() && rounding_error(one, other, sum) == 0.0 {
                *self = Self::new(sum);
                return Ok(());
            }
        }
        if other.is_special() {
            self.clone_from(other);
        }
        if self.is_special() {
            return Ok(());
        }
        let mut sum = Accumulator::default();
        sum.add_total(self);
        sum.add_total(other);
        if !sum.nearest().is_finite() {
            return Err(MergeError::Overflow("a sum must fit into a 64-bit float"));
        }
        sum.store(self);
        Ok(())
    }

    fn is_special(&self) -> bool {
        matches!(self, Self::Float(float) if !float.get().is_finite())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Float(_) => 0,
            Self::Wide(wide) => size_of::<Wide>() + wide.limbs.capacity() * size_of::<u64>(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Float(float) => {
                out.push(0);
                out.extend_from_slice(&float.get().to_le_bytes());
            }
            Self::Wide(wide) => {
                // Both are at most LIMBS, and the number of limbs is not 0, which stands for a float.
                out.extend([wide.limbs.len(), wide.base].map(|n| n.to_le_bytes()[0]));
                out.extend(wide.limbs.iter().flat_map(|limb| limb.to_le_bytes()));
            }
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = usize::from(input.u8()?);
        if length == 0 {
            return input.f64().map(Self::new);
        }
        let base = usize::from(input.u8()?);
        if base + length > LIMBS {
            return Err(DecodeError::Damaged("a sum is too wide"));
        }
        let mut limbs = [0; LIMBS];
        for limb in &mut limbs[..length] {
            *limb = input.u64()?;
        }
        let mut sum = Accumulator::default();
        sum.add_limbs(base, &limbs[..length]);
        if !sum.nearest().is_finite() {
            return Err(DecodeError::Damaged("a sum is out of range"));
        }
        let mut total = Self::ZERO;
        sum.store(&mut total);
        Ok(total)
    }
}

/// Returns what `one + other` lost by rounding to `sum`; not 0 where it can't tell. (Knuth, TAOCP 2, 4.2.2, theorem B.)
fn rounding_error(one: f64, other: f64, sum: f64) -> f64 {
    let part = sum - one;
    (one - (sum - part)) + (other - part)
}

/// A sum at full width, in two's complement.
struct Accumulator {
    limbs: [u64; LIMBS],
}

impl Default for Accumulator {
    fn default() -> Self {
        Self { limbs: [0; LIMBS] }
    }
}

impl Accumulator {
    fn add_total(&mut self, total: &Total) {
        match total {
            Total::Float(float) => self.add_float(float.get()),
            Total::Wide(wide) => self.add_wide(wide),
        }
    }

    /// Adds a finite float.
    fn add_float(&mut self, float: f64) {
        const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
        let bits = float.to_bits();
        let exponent = (bits >> FRACTION) & 0x7FF;
        let fraction = bits & ((1 << FRACTION) - 1);
        // Numbers without an exponent are in units of 2^-1074; those with exponent 1 are so as well.
        let (shift, digits) = match exponent {
            0 => (0, fraction),
            exponent => (exponent - 1, fraction | (1 << FRACTION)),
        };
        let shifted = u128::from(digits) << (shift % 64);
        let shifted = if float.is_sign_negative() { shifted.wrapping_neg() } else { shifted };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken apart")]
        let halves = [shifted as u64, (shifted >> 64) as u64];
        // 53 bits were shifted by at most 63, so the sign is still in the upper half.
        self.add_limbs(usize::try_from(shift / 64).unwrap_or(0), &halves);
    }

    fn add_wide(&mut self, wide: &Wide) {
        self.add_limbs(wide.base, &wide.limbs);
    }

    /// Adds a number whose lowest limb has this place. Above its highest limb, its sign goes on.
    fn add_limbs(&mut self, base: usize, limbs: &[u64]) {
        let sign = sign_of(limbs.last());
        let addends = limbs.iter().copied().chain(std::iter::repeat(sign));
        let mut carry = false;
        for (limb, addend) in self.limbs[base..].iter_mut().zip(addends) {
            let (sum, first) = limb.overflowing_add(addend);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Returns the absolute value, and whether the number is negative.
    fn magnitude(&self) -> ([u64; LIMBS], bool) {
        let negative = sign_of(self.limbs.last()) != 0;
        let mut limbs = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        (limbs, negative)
    }

    /// Returns the nearest float, of two equally near ones the even one; infinite where there is none.
    fn nearest(&self) -> f64 {
        let (limbs, negative) = self.magnitude();
        let length = bit_length(&limbs);
        if length > TOO_LARGE {
            return if negative { f64::NEG_INFINITY } else { f64::INFINITY };
        }
        // The highest 53 bits are the digits. With them as a number, the place of their lowest bit is the exponent minus
        // one, and their highest bit adds the one. So a carry from rounding, too, leads to the right float.
        let place = length.saturating_sub(53);
        let mut bits = bits_at(&limbs, place) + ((place as u64) << 52);
        if place > 0 && bit(&limbs, place - 1) {
            let is_tie = lowest_bit(&limbs) == place - 1;
            bits += u64::from(!is_tie || bits & 1 == 1);
        }
        let float = f64::from_bits(bits);
        if negative { -float } else { float }
    }

    /// Puts the sum into its only form. Reuses the limbs that `total` has.
    fn store(&self, total: &mut Total) {
        let (limbs, _) = self.magnitude();
        let length = bit_length(&limbs);
        if length == 0 || length - lowest_bit(&limbs) <= 53 {
            *total = Total::new(self.nearest());
            return;
        }
        let base = self.limbs.iter().take_while(|limb| **limb == 0).count();
        let sign = sign_of(self.limbs.last());
        let mut end = LIMBS;
        // A limb that only repeats the sign of the one below says nothing.
        while end - base > 1
            && self.limbs[end - 1] == sign
            && sign_of(self.limbs.get(end - 2)) == sign
        {
            end -= 1;
        }
        if let Total::Float(_) = total {
            *total = Total::Wide(Box::new(Wide { base, limbs: Vec::new() }));
        }
        if let Total::Wide(wide) = total {
            wide.base = base;
            wide.limbs.clear();
            wide.limbs.reserve_exact(end - base);
            wide.limbs.extend_from_slice(&self.limbs[base..end]);
        }
    }
}

/// Returns the limb that a two's complement goes on with above this one.
fn sign_of(highest: Option<&u64>) -> u64 {
    if highest.is_some_and(|limb| limb >> 63 == 1) { u64::MAX } else { 0 }
}

fn bit_length(limbs: &[u64; LIMBS]) -> usize {
    let highest = limbs.iter().rposition(|limb| *limb != 0);
    highest.map_or(0, |at| at * 64 + 64 - limbs[at].leading_zeros() as usize)
}

fn lowest_bit(limbs: &[u64; LIMBS]) -> usize {
    let lowest = limbs.iter().position(|limb| *limb != 0);
    lowest.map_or(0, |at| at * 64 + limbs[at].trailing_zeros() as usize)
}

fn bit(limbs: &[u64; LIMBS], at: usize) -> bool {
    limbs[at / 64] >> (at % 64) & 1 == 1
}

/// Returns the 53 bits from `place` upwards.
fn bits_at(limbs: &[u64; LIMBS], place: usize) -> u64 {
    let (low, above) = (limbs[place / 64], limbs.get(place / 64 + 1).copied().unwrap_or(0));
    let both = u128::from(low) | u128::from(above) << 64;
    #[expect(clippy::cast_possible_truncation, reason = "53 bits are left")]
    let bits = (both >> (place % 64)) as u64;
    bits & ((1 << 53) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn sum(floats: &[f64]) -> Result<Total, MergeError> {
        let mut total = Total::ZERO;
        floats.iter().try_for_each(|float| total.add(&Total::new(*float)))?;
        Ok(total)
    }

    fn nearest(floats: &[f64]) -> f64 {
        sum(floats).expect("in range").nearest()
    }

    #[test]
    fn nothing_is_lost_in_between() {
        assert_eq!(nearest(&[0.1; 10]), 1.0);
        assert_eq!(nearest(&[1e308, 1.0, -1e308]), 1.0);
        assert_eq!(nearest(&[1e16, 1.0, 1.0, -1e16]), 2.0);
        assert_eq!(nearest(&[f64::MAX, 5e-324, -f64::MAX]), 5e-324);
        assert_eq!(nearest(&[-0.0, -0.0]).to_bits(), 0.0_f64.to_bits());
        assert_eq!(sum(&[0.1, 0.2, -0.1, -0.2]), Ok(Total::ZERO));
    }

    #[test]
    fn a_sum_is_rounded_to_the_nearest_float_and_ties_to_even() {
        let tie = 2.0_f64.powi(-53);
        assert_eq!(nearest(&[1.0, tie]), 1.0);
        assert_eq!(nearest(&[1.0, tie, 5e-324]), 1.0 + f64::EPSILON);
        assert_eq!(nearest(&[1.0 + f64::EPSILON, tie]), 1.0 + 2.0 * f64::EPSILON);
        assert_eq!(nearest(&[-1.0, -tie]), -1.0);
        assert_eq!(nearest(&[2.0, -5e-324]), 2.0);
        // A carry goes into the exponent.
        assert_eq!(nearest(&[2.0_f64.next_down(), 2.0_f64.powi(-53), 5e-324]), 2.0);
        assert_eq!(nearest(&[f64::MIN_POSITIVE, -5e-324]), f64::MIN_POSITIVE.next_down());
    }

    #[test]
    fn a_sum_beyond_all_floats_is_an_error() {
        let half = 2.0_f64.powi(970);
        assert!(matches!(sum(&[f64::MAX, half]), Err(MergeError::Overflow(_))));
        assert!(matches!(sum(&[f64::MIN, -half]), Err(MergeError::Overflow(_))));
        assert!(matches!(sum(&[f64::MAX, f64::MAX]), Err(MergeError::Overflow(_))));
        assert_eq!(nearest(&[f64::MAX, half.next_down()]), f64::MAX);
    }

    #[test]
    fn what_is_not_finite_absorbs() {
        assert_eq!(nearest(&[0.1, 0.2, f64::INFINITY, 0.3]), f64::INFINITY);
        assert_eq!(nearest(&[f64::NEG_INFINITY, 0.1, 0.2]), f64::NEG_INFINITY);
        assert!(nearest(&[f64::INFINITY, 1.0, f64::NEG_INFINITY, f64::INFINITY]).is_nan());
        let mut wide = sum(&[0.1, 0.2]).expect("in range");
        wide.add(&Total::new(f64::NAN)).expect("NaN");
        assert!(wide.nearest().is_nan());
    }

    proptest! {
        #[test]
        fn integers_are_summed_as_integers_are(
            integers in proptest::collection::vec(any::<i64>().prop_map(|i| i >> 10), 0..20),
        ) {
            let floats: Vec<_> = integers.iter().map(|integer| *integer as f64).collect();
            let exact: i128 = integers.iter().map(|integer| i128::from(*integer)).sum();
            prop_assert_eq!(nearest(&floats), exact as f64);
        }

        #[test]
        fn two_floats_are_summed_as_the_processor_does(
            one in any::<f64>(), other in prop_oneof![any::<f64>(), (-2.0..2.0)],
        ) {
            let expected = one + other;
            match sum(&[one, other]) {
                Ok(sum) if expected.is_nan() => assert!(sum.nearest().is_nan()),
                Ok(sum) => prop_assert_eq!(sum.nearest(), expected),
                Err(_) => assert!(expected.is_infinite() && one.is_finite() && other.is_finite()),
            }
        }
    }
}
