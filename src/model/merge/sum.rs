//! Sums of integers, and of floats.
//!
//! Invariant: a sum is exact; one that does not fit into 64 bits is an error, never a wrap. A sum of floats is rounded only
//! when it is read.

use serde_json::Value;

use super::codec::Reader;
use super::exact::Total;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp,
    number, tag,
};

/// The sum of 64-bit integers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IntegerSum;

impl Monoid for IntegerSum {
    type State = i64;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::INTEGER_SUM);
    }

    fn signature(&self) -> String {
        "sum(integer)".to_owned()
    }

    fn empty(&self) -> i64 {
        0
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<i64, Invalid> {
        number::integer(json)
    }

    fn merge(&self, into: &mut i64, other: &i64) -> Result<(), MergeError> {
        let sum = into.checked_add(*other);
        *into = sum.ok_or(MergeError::Overflow("a sum must fit into a 64-bit integer"))?;
        Ok(())
    }

    fn encode(&self, state: &i64, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        out.extend_from_slice(&state.to_le_bytes());
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<i64, DecodeError> {
        input.i64()
    }

    fn value(&self, state: &i64, _now: Timestamp) -> Result<Value, OtherKind> {
        Ok(Value::from(*state))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &i64, _now: Timestamp) -> Vec<MetricSample> {
        vec![MetricSample::integer(*state)]
    }

    fn heap_bytes(&self, _state: &i64) -> usize {
        0
    }

    fn max_bytes(&self) -> usize {
        size_of::<i64>()
    }
}

/// The sum of 64-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FloatSum;

impl Monoid for FloatSum {
    type State = Total;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::FLOAT_SUM);
    }

    fn signature(&self) -> String {
        "sum(float)".to_owned()
    }

    fn empty(&self) -> Total {
        Total::ZERO
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Total, Invalid> {
        number::float(json).map(Total::new)
    }

    fn merge(&self, into: &mut Total, other: &Total) -> Result<(), MergeError> {
        into.add(other)
    }

    fn encode(&self, state: &Total, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        state.encode(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Total, DecodeError> {
        Total::decode(input)
    }

    fn value(&self, state: &Total, _now: Timestamp) -> Result<Value, OtherKind> {
        Ok(number::float_json(state.nearest()))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Total, _now: Timestamp) -> Vec<MetricSample> {
        vec![MetricSample::plain(state.nearest())]
    }

    fn heap_bytes(&self, state: &Total) -> usize {
        state.heap_bytes()
    }

    fn max_bytes(&self) -> usize {
        Total::MAX_BYTES
    }
}
