//! Sums whose addends lose half of their weight in each half-life.
//!
//! Invariant: a state is its value at one moment. Two states are combined at the later of their moments, so the result
//! does not depend on which came first. Floats round, so the sum is commutative exactly, and associative within
//! about 1e-12 of the sum of what was added, each taken without its sign.

use std::time::Duration;

use serde_json::{Value, json};

use super::codec::Reader;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp,
    number, tag,
};
use crate::model::time::format_duration;

/// A sum of floats that decays.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecayedSum {
    pub(super) half_life: Duration,
}

/// A finite value and its moment. The identity is 0 at the earliest moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Decayed {
    value: f64,
    at: Timestamp,
}

impl DecayedSum {
    /// Returns the value at a moment that is not earlier than that of the state.
    fn at(&self, state: Decayed, moment: Timestamp) -> f64 {
        // Up to 585 years, so not by a duration in nanoseconds, which would saturate.
        let nanos = i128::from(moment.as_nanos()) - i128::from(state.at.as_nanos());
        #[expect(clippy::cast_precision_loss, reason = "a float has digits enough for a weight")]
        let half_lives = nanos as f64 / self.half_life.as_nanos() as f64;
        state.value * (-half_lives).exp2() + 0.0
    }
}

impl Monoid for DecayedSum {
    type State = Decayed;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::DECAYED_SUM);
        out.extend_from_slice(&self.half_life.as_nanos().to_le_bytes());
    }

    fn signature(&self) -> String {
        format!("decayed_sum(half_life={})", format_duration(self.half_life))
    }

    fn empty(&self) -> Decayed {
        Decayed { value: 0.0, at: Timestamp::MIN }
    }

    fn delta(&self, json: &Value, at: Timestamp) -> Result<Decayed, Invalid> {
        let value = number::float(json)?;
        if !value.is_finite() {
            return Err(Invalid::new(
                "the delta of a decayed_sum must be finite, or it would never decay",
            ));
        }
        Ok(Decayed { value: value + 0.0, at })
    }

    fn merge(&self, into: &mut Decayed, other: &Decayed) -> Result<(), MergeError> {
        let at = into.at.max(other.at);
        let value = self.at(*into, at) + self.at(*other, at);
        if !value.is_finite() {
            return Err(MergeError::Overflow("a sum must fit into a 64-bit float"));
        }
        *into = Decayed { value, at };
        Ok(())
    }

    fn encode(&self, state: &Decayed, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        out.extend_from_slice(&state.value.to_le_bytes());
        out.extend_from_slice(&state.at.as_nanos().to_le_bytes());
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Decayed, DecodeError> {
        let (value, at) = (input.f64()?, Timestamp::from_nanos(input.i64()?));
        if !value.is_finite() {
            return Err(DecodeError::Damaged("a decayed sum is not finite"));
        }
        Ok(Decayed { value: value + 0.0, at })
    }

    fn value(&self, state: &Decayed, now: Timestamp) -> Result<Value, OtherKind> {
        // An update can be ahead of the clock by as much as the pipeline allows.
        let at = now.max(state.at);
        let half_life = format_duration(self.half_life);
        Ok(json!({ "value": self.at(*state, at), "at": at, "half_life": half_life }))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Decayed, now: Timestamp) -> Vec<MetricSample> {
        vec![MetricSample::plain(self.at(*state, now.max(state.at)))]
    }

    fn changes_with_time(&self) -> bool {
        true
    }

    fn heap_bytes(&self, _state: &Decayed) -> usize {
        0
    }

    fn max_bytes(&self) -> usize {
        size_of::<Decayed>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_oneof, proptest};

    use super::*;
    use crate::model::merge::laws::{Update, kind, reread, sum_of, total};

    const HOUR: i64 = 3_600_000_000_000;

    fn value_at(updates: &[Update], now: i64) -> f64 {
        let kind = kind(&json!({"kind": "decayed_sum", "half_life": "1h"}));
        let state = total(&kind, updates).expect("in range");
        let value = kind.value(&state, Timestamp::from_nanos(now)).expect("its kind");
        assert_eq!(value["half_life"], "1h");
        value["value"].as_f64().expect("a number")
    }

    #[test]
    fn a_value_halves_in_each_half_life() {
        let updates = [(json!(8), 0), (json!(1), HOUR)];
        assert_eq!(value_at(&updates, HOUR), 5.0);
        assert_eq!(value_at(&updates, 3 * HOUR), 1.25);
        assert_eq!(value_at(&[(json!(1), HOUR), (json!(8), 0)], HOUR), 5.0);
        // Before the last update, the value is that of the update.
        assert_eq!(value_at(&updates, 0), 5.0);
        assert_eq!(value_at(&[], HOUR), 0.0);
        assert_eq!(value_at(&[(json!(1), i64::MIN)], i64::MAX), 0.0);
    }

    #[test]
    fn what_would_never_decay_is_refused() {
        let kind = kind(&json!({"kind": "decayed_sum", "half_life": "1h"}));
        assert!(kind.delta(&json!({"special": "+Inf"}), Timestamp::MIN).is_err());
        let largest = kind.delta(&json!(f64::MAX), Timestamp::MIN).expect("finite");
        assert!(matches!(sum_of(&kind, &largest, &largest), Err(MergeError::Overflow(_))));
    }

    proptest! {
        #[test]
        fn a_sum_is_commutative_and_associative_within_rounding(
            updates in proptest::collection::vec(
                (prop_oneof![-1e3..1e3, -1e-3..1e-3], prop_oneof![0..9 * HOUR, any::<i64>()]), 3..9,
            ),
        ) {
            let kind = kind(&json!({"kind": "decayed_sum", "half_life": "1h"}));
            let updates: Vec<(f64, i64)> = updates;
            let now = updates.iter().map(|(_, at)| *at).max().expect("three at least");
            let number = |value: &Value| value["value"].as_f64().expect("a number");
            let value = |state| number(&kind.value(state, Timestamp::from_nanos(now)).expect("its kind"));
            let states: Vec<_> = updates
                .iter()
                .map(|(value, at)| kind.delta(&json!(value), Timestamp::from_nanos(*at)).expect("finite"))
                .collect();
            let mut left = kind.empty();
            for state in &states {
                let sum = sum_of(&kind, &left, state).expect("in range");
                assert_eq!(Ok(&sum), sum_of(&kind, state, &left).as_ref());
                left = reread(&kind, &sum);
            }
            let right = states.iter().rev().fold(kind.empty(), |sum, state| {
                sum_of(&kind, state, &sum).expect("in range")
            });
            let mass: f64 = updates
                .iter()
                .map(|(value, at)| value.abs() * (-((now as f64 - *at as f64) / HOUR as f64)).exp2())
                .sum();
            let difference = (value(&left) - value(&right)).abs();
            assert!(difference <= 1e-12 * mass + f64::MIN_POSITIVE, "{difference} of {mass}");
        }
    }
}
