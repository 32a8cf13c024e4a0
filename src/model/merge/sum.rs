//! Sums of integers.
//!
//! Invariant: a sum is exact; one that does not fit into 64 bits is an error, never a wrap.

use serde_json::Value;

use super::codec::Reader;
use super::{DecodeError, Invalid, MergeError, Monoid, Timestamp, number, tag};

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

    fn encode(&self, state: &i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&state.to_le_bytes());
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<i64, DecodeError> {
        input.i64()
    }

    fn value(&self, state: &i64, _now: Timestamp) -> Value {
        Value::from(*state)
    }

    fn heap_bytes(&self, _state: &i64) -> usize {
        0
    }

    fn max_bytes(&self) -> usize {
        size_of::<i64>()
    }
}
