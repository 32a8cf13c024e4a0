//! The elements that sets and sketches are made of: texts and numbers.
//!
//! Invariant: what is one element in JSON is one element here, however it is written: 5 and 5.0 are the same number. A
//! number that would have to be rounded is refused.

use serde_json::Value;

use super::codec::{self, Reader};
use super::number::{self, Float};
use super::{DecodeError, Invalid};
use crate::model::keys::check_key;

/// One element. Numbers come before texts, integers before other numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Integer(i64),
    Float(Float),
    Text(Box<str>),
}

impl Element {
    /// The least bytes of the stored form: a tag and the length of a text.
    pub(super) const MIN_BYTES: usize = 5;

    pub(super) fn parse(json: &Value) -> Result<Self, Invalid> {
        match json {
            Value::Number(number) if number.as_f64().is_some_and(|float| float.fract() != 0.0) => {
                number::float(json).map(|float| Self::Float(Float::new(float)))
            }
            Value::Number(_) => number::integer(json).map(Self::Integer),
            Value::String(text) => Ok(Self::Text(text_element(text)?.into())),
            _ => Err(Invalid::new("an element must be a text or a number")),
        }
    }

    /// Reads the delta of a kind that is made of elements: one of them, or a list.
    pub(super) fn parse_all(json: &Value) -> Result<Vec<Self>, Invalid> {
        match json {
            Value::Array(elements) => elements.iter().map(Self::parse).collect(),
            element => Self::parse(element).map(|element| vec![element]),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Integer(integer) => Value::from(*integer),
            Self::Float(float) => Value::from(float.get()),
            Self::Text(text) => Value::from(&**text),
        }
    }

    /// Passes the bytes to `use_bytes` that the DataSketches libraries hash: of a text its UTF-8, of an integer its 64
    /// bits, of another number those of its float.
    pub(super) fn with_hashed_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Integer(integer) => use_bytes(&integer.to_le_bytes()),
            Self::Float(float) => use_bytes(&float.get().to_le_bytes()),
            Self::Text(text) => use_bytes(text.as_bytes()),
        }
    }

    /// Returns the length of the stored form.
    pub(super) fn stored_bytes(&self) -> usize {
        match self {
            Self::Integer(_) | Self::Float(_) => 9,
            Self::Text(text) => 5 + text.len(),
        }
    }

    /// Returns the bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Integer(_) | Self::Float(_) => 0,
            Self::Text(text) => text.len(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(integer) => {
                out.push(0);
                out.extend_from_slice(&integer.to_le_bytes());
            }
            Self::Float(float) => {
                out.push(1);
                out.extend_from_slice(&float.get().to_le_bytes());
            }
            Self::Text(text) => {
                out.push(2);
                codec::write_bytes(text.as_bytes(), out);
            }
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => input.i64().map(Self::Integer),
            1 => input.f64().map(|float| Self::Float(Float::new(float))),
            2 => input.text().map(|text| Self::Text(text.into())),
            _ => Err(DecodeError::Damaged("an element is neither a text nor a number")),
        }
    }
}

/// Checks that a text can be an element.
pub(super) fn text_element(text: &str) -> Result<&str, Invalid> {
    check_key("an element", text).map(|()| text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::keys::MAX_KEY_BYTES;

    #[test]
    fn one_element_has_one_form() {
        let read = |json| Element::parse_all(&json).expect("elements");
        assert_eq!(read(json!([5, 5.0, -0.0])), [5, 5, 0].map(Element::Integer));
        assert_eq!(read(json!("5")), [Element::Text("5".into())]);
        assert_eq!(read(json!(0.5)), [Element::Float(Float::new(0.5))]);
    }

    #[test]
    fn what_is_no_element_is_refused() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for json in [json!(""), json!(long), json!(null), json!([["a"]]), json!(1e300)] {
            assert!(Element::parse_all(&json).is_err());
        }
    }
}
