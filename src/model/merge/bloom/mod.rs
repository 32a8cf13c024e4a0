//! Membership: Bloom filters of the DataSketches family.
//!
//! Not the DataSketches library, which takes memory for a whole filter also where a few bits are set, such as in a delta;
//! but its hashes and its format. Invariant: merges are exactly a monoid.

mod bits;
mod family;

use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use self::bits::Bits;
use super::codec::Reader;
use super::element::Element;
use super::{DecodeError, Invalid, MergeError, Monoid, OtherKind, Timestamp, sketch, tag};

/// A Bloom filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bloom {
    /// The number of bits: a multiple of 64, at most 2^32.
    pub(super) bits: u64,
    /// How many bits each element sets.
    pub(super) hashes: u16,
    pub(super) seed: u64,
}

impl Bloom {
    /// Makes the filter that has this rate of false positives once it holds this many elements, by the formulas of the
    /// family.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the settings are in a range where all of these are exact and positive"
    )]
    pub(super) fn new(capacity: u64, false_positive_rate: f64, seed: u64) -> Self {
        let ln_2 = std::f64::consts::LN_2;
        let bits = (-(capacity as f64) * false_positive_rate.ln() / (ln_2 * ln_2)).ceil() as u64;
        let hashes = (-false_positive_rate.ln() / ln_2).ceil() as u16;
        Self { bits: bits.next_multiple_of(64), hashes, seed }
    }

    /// Returns the positions of the bits of an element.
    fn positions(&self, element: &Element) -> impl Iterator<Item = u32> {
        let first = element.with_hashed_bytes(|bytes| xxh64(bytes, self.seed));
        let second = element.with_hashed_bytes(|bytes| xxh64(bytes, first));
        let bits = self.bits;
        (1..=u64::from(self.hashes)).map(move |number| {
            let hash = first.wrapping_add(number.wrapping_mul(second)) >> 1;
            // The filter has 2^32 bits at most.
            u32::try_from(hash % bits).unwrap_or(0)
        })
    }
}

impl Monoid for Bloom {
    type State = Box<Bits>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::BLOOM);
        out.extend(self.bits.to_le_bytes());
        out.extend(self.hashes.to_le_bytes());
        out.extend(self.seed.to_le_bytes());
    }

    fn signature(&self) -> String {
        format!("bloom(bits={},hashes={},seed={})", self.bits, self.hashes, self.seed)
    }

    fn empty(&self) -> Box<Bits> {
        Box::new(Bits::EMPTY)
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Box<Bits>, Invalid> {
        if let Some(bytes) = sketch::in_delta(json)? {
            return self.import(&bytes);
        }
        let elements = Element::parse_all(json)?;
        let positions = elements.iter().flat_map(|element| self.positions(element)).collect();
        Ok(Box::new(Bits::from_positions(self.bits, positions)))
    }

    fn merge(&self, into: &mut Box<Bits>, other: &Box<Bits>) -> Result<(), MergeError> {
        if !into.fit(self.bits) || !other.fit(self.bits) {
            return Err(OtherKind.into());
        }
        into.merge(self.bits, other);
        Ok(())
    }

    fn encode(&self, state: &Box<Bits>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        state.encode(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<Bits>, DecodeError> {
        Bits::decode(self.bits, input).map(Box::new)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 2^32")]
    fn value(&self, state: &Box<Bits>, _now: Timestamp) -> Result<Value, OtherKind> {
        let (bits, hashes) = (self.bits as f64, f64::from(self.hashes));
        let fill = state.count() as f64 / bits;
        // The estimate of Swamidass and Baldi. A full filter can hold any number.
        let estimate = -bits / hashes * (1.0 - fill).ln() + 0.0;
        Ok(json!({
            "fill": fill,
            "false_positive_rate": fill.powf(hashes),
            "estimated_count": if fill < 1.0 { json!(estimate) } else { Value::Null },
        }))
    }

    fn contains(&self, state: &Box<Bits>, element: &Element) -> Option<bool> {
        let is_set = |position| state.is_set(position);
        state.fit(self.bits).then(|| self.positions(element).all(is_set))
    }

    fn export(&self, state: &Box<Bits>) -> Option<Vec<u8>> {
        Some(family::write(self, state))
    }

    fn import(&self, bytes: &[u8]) -> Result<Box<Bits>, Invalid> {
        family::read(self, bytes).map(Box::new)
    }

    fn heap_bytes(&self, state: &Box<Bits>) -> usize {
        size_of::<Bits>() + state.heap_bytes()
    }

    fn max_bytes(&self) -> usize {
        size_of::<Bits>() + Bits::max_bytes(self.bits)
    }
}

#[cfg(test)]
mod tests;
