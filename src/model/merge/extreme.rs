//! The least or the greatest of numbers.
//!
//! Invariant: the identity is the absence of a number, not 0, which would hide negative maxima. The order is total, so
//! that the result does not depend on the order of updates: -0 is less than 0, and NaN gives way to each number.

use std::cmp::Ordering;

use serde_json::Value;

use super::codec::{self, Reader};
use super::number::{self, Float};
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp, tag,
};

/// Which of two numbers is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extreme {
    Min,
    Max,
}

impl Extreme {
    /// Whether a number that compares to the present one as `order` replaces it.
    fn prefers(self, order: Ordering) -> bool {
        match self {
            Self::Min => order == Ordering::Less,
            Self::Max => order == Ordering::Greater,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// The extreme of 64-bit integers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IntegerExtreme(pub(super) Extreme);

impl Monoid for IntegerExtreme {
    type State = Option<i64>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(match self.0 {
            Extreme::Min => tag::INTEGER_MIN,
            Extreme::Max => tag::INTEGER_MAX,
        });
    }

    fn signature(&self) -> String {
        format!("{}(integer)", self.0.name())
    }

    fn empty(&self) -> Option<i64> {
        None
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Option<i64>, Invalid> {
        number::integer(json).map(Some)
    }

    fn merge(&self, into: &mut Option<i64>, other: &Option<i64>) -> Result<(), MergeError> {
        if let Some(new) = other
            && into.is_none_or(|old| self.0.prefers(new.cmp(&old)))
        {
            *into = Some(*new);
        }
        Ok(())
    }

    fn encode(&self, state: &Option<i64>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        codec::write_option(*state, out, i64::to_le_bytes);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Option<i64>, DecodeError> {
        input.option(Reader::i64)
    }

    fn value(&self, state: &Option<i64>, _now: Timestamp) -> Result<Value, OtherKind> {
        Ok(Value::from(*state))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Option<i64>, _now: Timestamp) -> Vec<MetricSample> {
        state.map(MetricSample::integer).into_iter().collect()
    }

    fn heap_bytes(&self, _state: &Option<i64>) -> usize {
        0
    }

    fn max_bytes(&self) -> usize {
        1 + size_of::<i64>()
    }
}

/// The extreme of 64-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FloatExtreme(pub(super) Extreme);

impl FloatExtreme {
    /// Compares so that NaN is preferred to no number.
    fn compare(&self, one: f64, other: f64) -> Ordering {
        match (self.0, one.is_nan(), other.is_nan()) {
            (_, false, false) => one.total_cmp(&other),
            (Extreme::Min, one, other) => one.cmp(&other),
            (Extreme::Max, one, other) => other.cmp(&one),
        }
    }
}

impl Monoid for FloatExtreme {
    type State = Option<Float>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(match self.0 {
            Extreme::Min => tag::FLOAT_MIN,
            Extreme::Max => tag::FLOAT_MAX,
        });
    }

    fn signature(&self) -> String {
        format!("{}(float)", self.0.name())
    }

    fn empty(&self) -> Option<Float> {
        None
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Option<Float>, Invalid> {
        number::float(json).map(|float| Some(Float::new(float)))
    }

    fn merge(&self, into: &mut Option<Float>, other: &Option<Float>) -> Result<(), MergeError> {
        if let Some(new) = other
            && into.is_none_or(|old| self.0.prefers(self.compare(new.get(), old.get())))
        {
            *into = Some(*new);
        }
        Ok(())
    }

    fn encode(&self, state: &Option<Float>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        codec::write_option(*state, out, |float| float.get().to_le_bytes());
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Option<Float>, DecodeError> {
        Ok(input.option(Reader::f64)?.map(Float::new))
    }

    fn value(&self, state: &Option<Float>, _now: Timestamp) -> Result<Value, OtherKind> {
        Ok(state.map_or(Value::Null, |float| number::float_json(float.get())))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Option<Float>, _now: Timestamp) -> Vec<MetricSample> {
        state.map(|float| MetricSample::plain(float.get())).into_iter().collect()
    }

    fn heap_bytes(&self, _state: &Option<Float>) -> usize {
        0
    }

    fn max_bytes(&self) -> usize {
        1 + size_of::<f64>()
    }
}
