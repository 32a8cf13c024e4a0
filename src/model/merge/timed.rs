//! The first or the last of JSON values, by the time of their updates.
//!
//! Not by their arrival. Invariant: of two values with the same time, their content decides, so a replay in another order
//! leads to the same value.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::codec::{self, Reader};
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp, tag,
};

/// Which of two values is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    First,
    Last,
}

/// The value of the first or last update.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timed {
    pub(super) end: End,
    /// The most bytes that the JSON of a value can have.
    pub(super) max_value_bytes: usize,
}

/// A value and the time of its update. The order of the fields is that of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimedValue {
    at: Timestamp,
    /// Canonical JSON: without blanks, the members of objects sorted.
    json: Box<str>,
}

impl Monoid for Timed {
    type State = Option<Box<TimedValue>>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(match self.end {
            End::First => tag::FIRST,
            End::Last => tag::LAST,
        });
    }

    fn signature(&self) -> String {
        match self.end {
            End::First => "first".to_owned(),
            End::Last => "last".to_owned(),
        }
    }

    fn empty(&self) -> Self::State {
        None
    }

    fn delta(&self, json: &Value, at: Timestamp) -> Result<Self::State, Invalid> {
        let mut canonical = String::new();
        write_canonical(json, &mut canonical);
        let (length, most) = (canonical.len(), self.max_value_bytes);
        if length > most {
            return Err(Invalid::new(format!(
                "the value has {length} bytes of JSON, more than {most}"
            )));
        }
        Ok(Some(Box::new(TimedValue { at, json: canonical.into() })))
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) -> Result<(), MergeError> {
        let (Some(new), Some(old)) = (other, &*into) else {
            if into.is_none() {
                into.clone_from(other);
            }
            return Ok(());
        };
        let preferred = match self.end {
            End::First => Ordering::Less,
            End::Last => Ordering::Greater,
        };
        if new.cmp(old) == preferred {
            into.clone_from(other);
        }
        Ok(())
    }

    fn encode(&self, state: &Self::State, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        codec::write_option(state.as_ref().map(|value| value.at.as_nanos()), out, i64::to_le_bytes);
        if let Some(value) = state {
            codec::write_bytes(value.json.as_bytes(), out);
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Self::State, DecodeError> {
        let Some(at) = input.option(Reader::i64)? else { return Ok(None) };
        let json = input.text()?;
        if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
            return Err(DecodeError::Damaged("a value is not JSON"));
        }
        Ok(Some(Box::new(TimedValue { at: Timestamp::from_nanos(at), json: json.into() })))
    }

    fn value(&self, state: &Self::State, _now: Timestamp) -> Result<Value, OtherKind> {
        let Some(value) = state else { return Ok(Value::Null) };
        // What was stored is JSON.
        let content: Value = serde_json::from_str(&value.json).unwrap_or_default();
        Ok(json!({ "value": content, "at": value.at }))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Self::State, _now: Timestamp) -> Vec<MetricSample> {
        let number = state.as_ref().and_then(|value| serde_json::from_str::<f64>(&value.json).ok());
        number.map(MetricSample::plain).into_iter().collect()
    }

    fn heap_bytes(&self, state: &Self::State) -> usize {
        state.as_ref().map_or(0, |value| size_of::<TimedValue>() + value.json.len())
    }

    fn max_bytes(&self) -> usize {
        size_of::<TimedValue>() + self.max_value_bytes
    }
}

/// Appends a value without blanks and with the members of objects sorted, in whatever order they were read.
fn write_canonical(json: &Value, out: &mut String) {
    match json {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::merge::laws::{kind, total};

    fn value(name: &str, updates: &[(Value, i64)]) -> Value {
        let kind = kind(&json!({ "kind": name }));
        let state = total(&kind, updates).expect("in range");
        kind.value(&state, Timestamp::from_nanos(0)).expect("its kind")
    }

    #[test]
    fn the_time_of_the_update_decides_and_not_its_arrival() {
        let updates = [(json!("late"), 2_000_000_000), (json!("early"), 1_000_000_000)];
        let first = json!({"value": "early", "at": "1970-01-01T00:00:01.000Z"});
        let last = json!({"value": "late", "at": "1970-01-01T00:00:02.000Z"});
        assert_eq!((value("first", &updates), value("last", &updates)), (first, last));
        assert_eq!(value("last", &[]), Value::Null);
    }

    #[test]
    fn ties_are_broken_by_content() {
        let updates = [(json!("b"), 0), (json!("a"), 0), (json!("c"), 0)];
        assert_eq!(value("first", &updates)["value"], json!("a"));
        assert_eq!(value("last", &updates)["value"], json!("c"));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let mut canonical = String::new();
        let text = r#"{"b": [1, {"y": null, "x": "\""}], "a": 1.5}"#;
        write_canonical(&serde_json::from_str(text).expect("JSON"), &mut canonical);
        assert_eq!(canonical, r#"{"a":1.5,"b":[1,{"x":"\"","y":null}]}"#);
    }

    #[test]
    fn large_values_are_refused() {
        let kind = kind(&json!({"kind": "last", "max_value_bytes": 4}));
        assert!(kind.delta(&json!("ab"), Timestamp::MIN).is_ok());
        assert!(kind.delta(&json!("abc"), Timestamp::MIN).is_err());
    }
}
