//! Distinct counts: HyperLogLog sketches of the DataSketches family.
//!
//! The state is a function of the set of elements only: their coupons (hashes of 32 bits) while they are few, and one
//! register for each of 2^lg_k slots from then on. The library hashes and estimates; states and merges are our own, since
//! the library's depend on the order of updates, and lower lg_k silently. Invariant: merges are exactly a monoid.

mod family;
mod registers;

use datasketches::common::NumStdDev;
use datasketches::hll::HllSketch;
use serde_json::{Value, json};

use self::registers::Registers;
use super::codec::Reader;
use super::element::Element;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp,
    sketch, tag,
};

/// A distinct count with 2^lg_k registers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hll {
    pub(super) lg_k: u8,
}

impl Hll {
    pub(super) const LG_K: std::ops::RangeInclusive<i64> = 4..=21;
}

impl Monoid for Hll {
    type State = Box<Registers>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.extend([tag::HLL, self.lg_k]);
    }

    fn signature(&self) -> String {
        format!("hll(lg_k={})", self.lg_k)
    }

    fn empty(&self) -> Box<Registers> {
        Box::new(Registers::EMPTY)
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Box<Registers>, Invalid> {
        if let Some(bytes) = sketch::in_delta(json)? {
            return self.import(&bytes);
        }
        let elements = Element::parse_all(json)?;
        let coupons = elements.iter().map(registers::coupon).collect();
        Ok(Box::new(Registers::from_coupons(self.lg_k, coupons)))
    }

    fn merge(&self, into: &mut Box<Registers>, other: &Box<Registers>) -> Result<(), MergeError> {
        if !into.fit(self.lg_k) || !other.fit(self.lg_k) {
            return Err(OtherKind.into());
        }
        into.merge(self.lg_k, other);
        Ok(())
    }

    fn encode(&self, state: &Box<Registers>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        state.encode(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<Registers>, DecodeError> {
        Registers::decode(self.lg_k, input).map(Box::new)
    }

    fn value(&self, state: &Box<Registers>, _now: Timestamp) -> Result<Value, OtherKind> {
        // The image is one of our own, which the library reads. Its bounds are those of a merged sketch, so they hold
        // whatever the state was merged from.
        let image = family::write(self.lg_k, state);
        let sketch = HllSketch::deserialize(&image).map_err(|_| OtherKind)?;
        Ok(json!({
            "estimate": sketch.estimate(),
            "lower": sketch.lower_bound(NumStdDev::Two),
            "upper": sketch.upper_bound(NumStdDev::Two),
            "fill": state.fill(self.lg_k),
        }))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Box<Registers>, _now: Timestamp) -> Vec<MetricSample> {
        let image = family::write(self.lg_k, state);
        let sketch = HllSketch::deserialize(&image).ok();
        sketch.map(|sketch| MetricSample::plain(sketch.estimate())).into_iter().collect()
    }

    fn export(&self, state: &Box<Registers>) -> Option<Vec<u8>> {
        Some(family::write(self.lg_k, state))
    }

    fn import(&self, bytes: &[u8]) -> Result<Box<Registers>, Invalid> {
        family::read(self.lg_k, bytes).map(Box::new)
    }

    fn heap_bytes(&self, state: &Box<Registers>) -> usize {
        size_of::<Registers>() + state.heap_bytes()
    }

    fn max_bytes(&self) -> usize {
        size_of::<Registers>() + Registers::max_bytes(self.lg_k)
    }
}

#[cfg(test)]
mod tests;
