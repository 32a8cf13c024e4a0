//! Counters, which only grow.
//!
//! Invariant: a count is at least 0 and fits into a signed 64-bit integer, which every client can read.

use serde_json::Value;

use super::codec::Reader;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp,
    number, tag,
};

/// The sum of steps that are not negative.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Count;

impl Monoid for Count {
    type State = i64;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::COUNT);
    }

    fn signature(&self) -> String {
        "count".to_owned()
    }

    fn empty(&self) -> i64 {
        0
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<i64, Invalid> {
        let step = number::integer(json)?;
        if step < 0 {
            return Err(Invalid::new("the delta of a count must not be negative"));
        }
        Ok(step)
    }

    fn merge(&self, into: &mut i64, other: &i64) -> Result<(), MergeError> {
        let sum = into.checked_add(*other);
        *into = sum.ok_or(MergeError::Overflow("a count must fit into a signed 64-bit integer"))?;
        Ok(())
    }

    fn encode(&self, state: &i64, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        out.extend_from_slice(&state.to_le_bytes());
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<i64, DecodeError> {
        let count = input.i64()?;
        if count < 0 {
            return Err(DecodeError::Damaged("a count is negative"));
        }
        Ok(count)
    }

    fn value(&self, state: &i64, _now: Timestamp) -> Result<Value, OtherKind> {
        Ok(Value::from(*state))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Counter)
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
