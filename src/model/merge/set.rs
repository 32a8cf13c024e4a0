//! Sets of elements, bounded in items and bytes.
//!
//! Not a sketch: a set is exact, and one that would become too large is an error. Invariant: the elements are sorted, and
//! each is there once.

use serde_json::{Value, json};

use super::codec::{self, Reader};
use super::element::Element;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp, tag,
};

/// A set of elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Set {
    pub(super) max_items: usize,
    /// The most bytes that the stored elements can have together.
    pub(super) max_bytes: usize,
}

/// Sorted elements.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Elements {
    sorted: Vec<Element>,
    /// The length of their stored form.
    bytes: usize,
}

impl Elements {
    fn new(sorted: Vec<Element>) -> Self {
        let bytes = sorted.iter().map(Element::stored_bytes).sum();
        Self { sorted, bytes }
    }

    fn contains(&self, element: &Element) -> bool {
        self.sorted.binary_search(element).is_ok()
    }
}

impl Set {
    fn check(&self, items: usize, bytes: usize) -> Result<(), String> {
        if items > self.max_items {
            return Err(format!("{items} elements, more than {}", self.max_items));
        }
        if bytes > self.max_bytes {
            return Err(format!("elements of {bytes} bytes, more than {}", self.max_bytes));
        }
        Ok(())
    }
}

impl Monoid for Set {
    type State = Box<Elements>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::SET);
    }

    fn signature(&self) -> String {
        "set".to_owned()
    }

    fn empty(&self) -> Box<Elements> {
        Box::default()
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Box<Elements>, Invalid> {
        let mut sorted = Element::parse_all(json)?;
        sorted.sort_unstable();
        sorted.dedup();
        let elements = Elements::new(sorted);
        self.check(elements.sorted.len(), elements.bytes)
            .map_err(|what| Invalid::new(format!("the delta has {what}")))?;
        Ok(Box::new(elements))
    }

    fn merge(&self, into: &mut Box<Elements>, other: &Box<Elements>) -> Result<(), MergeError> {
        let is_new = |element: &&Element| !into.contains(element);
        let new = Elements::new(other.sorted.iter().filter(is_new).cloned().collect());
        if new.sorted.is_empty() {
            return Ok(());
        }
        self.check(into.sorted.len() + new.sorted.len(), into.bytes + new.bytes)
            .map_err(|what| MergeError::Full(format!("the set would have {what}")))?;
        into.bytes += new.bytes;
        into.sorted.extend(new.sorted);
        // Two sorted runs, which the sort of the standard library merges in linear time.
        into.sorted.sort();
        Ok(())
    }

    fn encode(&self, state: &Box<Elements>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        codec::write_length(state.sorted.len(), out);
        for element in &state.sorted {
            element.encode(out);
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<Elements>, DecodeError> {
        let sorted = input.list(Element::MIN_BYTES, Element::decode)?;
        if !sorted.is_sorted_by(|one, next| one < next) {
            return Err(DecodeError::Damaged("the elements of a set are not sorted"));
        }
        Ok(Box::new(Elements::new(sorted)))
    }

    fn value(&self, state: &Box<Elements>, _now: Timestamp) -> Result<Value, OtherKind> {
        let items: Vec<_> = state.sorted.iter().map(Element::json).collect();
        Ok(json!({ "count": items.len(), "items": items }))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Gauge)
    }

    fn samples(&self, state: &Box<Elements>, _now: Timestamp) -> Vec<MetricSample> {
        #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
        let count = state.sorted.len() as f64;
        vec![MetricSample::plain(count)]
    }

    fn contains(&self, state: &Box<Elements>, element: &Element) -> Option<bool> {
        Some(state.contains(element))
    }

    fn heap_bytes(&self, state: &Box<Elements>) -> usize {
        let texts: usize = state.sorted.iter().map(Element::heap_bytes).sum();
        size_of::<Elements>() + state.sorted.capacity() * size_of::<Element>() + texts
    }

    fn max_bytes(&self) -> usize {
        // A vector grows by doubling.
        size_of::<Elements>() + self.max_bytes + 2 * self.max_items * size_of::<Element>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::merge::laws::{kind, sum_of, total};

    #[test]
    fn a_set_has_each_element_once() {
        let set = kind(&json!({"kind": "set"}));
        let updates = [(json!("b"), 0), (json!(["a", "b", 1.0]), 0), (json!(1), 0), (json!([]), 0)];
        let state = total(&set, &updates).expect("in range");
        let value = set.value(&state, Timestamp::MIN).expect("its kind");
        assert_eq!(value, json!({"count": 3, "items": [1, "a", "b"]}));
    }

    #[test]
    fn a_full_set_is_an_error_and_keeps_what_it_has() {
        for limit in
            [json!({"kind": "set", "max_items": 2}), json!({"kind": "set", "max_bytes": 12})]
        {
            let set = kind(&limit);
            let full = total(&set, &[(json!("a"), 0), (json!("b"), 0)]).expect("in range");
            let known = total(&set, &[(json!(["a", "b"]), 0)]).expect("in range");
            let other = total(&set, &[(json!("c"), 0)]).expect("in range");
            assert_eq!(sum_of(&set, &full, &known), Ok(full.clone()));
            assert!(matches!(sum_of(&set, &full, &other), Err(MergeError::Full(_))));
            assert!(set.delta(&json!(["a", "b", "c"]), Timestamp::MIN).is_err());
        }
    }
}
