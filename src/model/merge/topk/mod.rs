//! The most frequent texts: a Misra-Gries summary with a bounded number of counters.
//!
//! Not the DataSketches library, whose evictions depend on the order of its table and on samples; but its format is read
//! and written. Each text that has no counter was counted `max_error` times at most, and each counter is too low by at
//! most `max_error`. Invariant: this holds for every order of merges, and is exact; merges are commutative exactly, and
//! associative as long as nothing was evicted, within `max_error` from then on.

mod counters;
mod family;

use serde_json::{Map, Value, json};

use self::counters::Counters;
use super::codec::Reader;
use super::element::text_element;
use super::{DecodeError, Invalid, MergeError, Monoid, OtherKind, Timestamp, number, sketch, tag};

/// The `k` most frequent texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopK {
    /// How many texts a value shows.
    pub(super) k: usize,
    /// The logarithm of the size of the family's table, three quarters of which are counters.
    pub(super) lg_map_size: u8,
}

impl TopK {
    fn capacity(&self) -> usize {
        3 << self.lg_map_size >> 2
    }

    /// Adds one part of a delta: a text, or a text and how often it was seen.
    fn add(counters: &mut Counters, json: &Value) -> Result<(), Invalid> {
        const FORM: &str =
            "the delta must be made of texts, or {\"item\": TEXT, \"count\": INTEGER}";
        let (item, count) = match json {
            Value::String(item) => (item, 1),
            Value::Object(object) => match (object.get("item"), object.get("count")) {
                (Some(Value::String(item)), Some(count)) if object.len() == 2 => {
                    (item, number::integer(count)?)
                }
                _ => return Err(Invalid::new(FORM)),
            },
            _ => return Err(Invalid::new(FORM)),
        };
        let count =
            u64::try_from(count).map_err(|_| Invalid::new("a count must not be negative"))?;
        counters
            .add(text_element(item)?, count)
            .map_err(|_| Invalid::new("the counts do not fit into a 64-bit integer"))
    }
}

impl Monoid for TopK {
    type State = Box<Counters>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.extend([tag::TOPK, self.lg_map_size]);
    }

    fn signature(&self) -> String {
        format!("topk(map_size={})", 1_u64 << self.lg_map_size)
    }

    fn empty(&self) -> Box<Counters> {
        Box::default()
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Box<Counters>, Invalid> {
        if let Some(bytes) = sketch::in_delta(json)? {
            return self.import(&bytes);
        }
        let mut counters = Counters::default();
        match json {
            Value::Array(parts) => {
                parts.iter().try_for_each(|part| Self::add(&mut counters, part))?
            }
            part => Self::add(&mut counters, part)?,
        }
        counters.evict(self.capacity());
        Ok(Box::new(counters))
    }

    fn merge(&self, into: &mut Box<Counters>, other: &Box<Counters>) -> Result<(), MergeError> {
        into.merge(other)?;
        into.evict(self.capacity());
        Ok(())
    }

    fn encode(&self, state: &Box<Counters>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        state.encode(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<Counters>, DecodeError> {
        Counters::decode(self.capacity(), input).map(Box::new)
    }

    fn value(&self, state: &Box<Counters>, _now: Timestamp) -> Result<Value, OtherKind> {
        let max_error = state.max_error();
        let ranked = state.ranked();
        let shown = &ranked[..self.k.min(ranked.len())];
        // What is not shown has this count at most.
        let rest = ranked.get(self.k).map_or(0, |(_, count)| *count) + max_error;
        let item = |(text, count): &(&str, u64)| {
            let mut item = Map::new();
            item.insert("item".to_owned(), json!(text));
            item.insert("lower".to_owned(), json!(count));
            item.insert("upper".to_owned(), json!((count + max_error).min(state.total())));
            item.insert("certain".to_owned(), json!(*count >= rest));
            Value::Object(item)
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 2^20 counters")]
        let fill = state.len() as f64 / self.capacity() as f64;
        Ok(json!({
            "items": shown.iter().map(item).collect::<Vec<_>>(),
            "max_error": max_error,
            "total": state.total(),
            "fill": fill,
        }))
    }

    fn export(&self, state: &Box<Counters>) -> Option<Vec<u8>> {
        Some(family::write(self.lg_map_size, state))
    }

    fn import(&self, bytes: &[u8]) -> Result<Box<Counters>, Invalid> {
        family::read(self.lg_map_size, bytes).map(Box::new)
    }

    fn heap_bytes(&self, state: &Box<Counters>) -> usize {
        state.heap_bytes()
    }

    fn max_bytes(&self) -> usize {
        Counters::max_bytes(self.capacity())
    }
}

#[cfg(test)]
mod tests;
