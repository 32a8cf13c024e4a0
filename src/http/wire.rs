//! Values as JSON and query strings have them: durations and times as text, integers that may be written `5.0`.
//!
//! Invariant: a refusal gives the reason that the model gives.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64_STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::model::Invalid;
use crate::model::generations::Generation;
use crate::model::number::parse_whole;
use crate::model::time::{parse_duration, parse_ttl};

/// A JSON object that is read as `T`. What serde derives for a struct also takes an array, as the fields in their order.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Reads a list of objects. To be named by each field that is one.
pub(crate) fn objects<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|object| object.0).collect())
}

/// A duration such as `"30s"`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(Error::custom)
    }
}

/// A duration that is longer than zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttl(pub(crate) Duration);

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_ttl(&text).map(Self).map_err(Error::custom)
    }
}

/// An int64 in JSON, also written as `5.0`, as some clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Integer(pub(crate) i64);

impl Integer {
    /// Returns the integer as a count.
    ///
    /// # Errors
    /// 400 when it is less than 1.
    pub(crate) fn count(self) -> Result<Count, Problem> {
        let count = usize::try_from(self.0).ok().filter(|count| *count > 0);
        count.map(Count).ok_or_else(|| Problem::invalid("limit is not a whole number from 1"))
    }
}

/// The largest magnitude up to which every whole double is exactly one integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lenient;
        impl Visitor<'_> for Lenient {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an int64")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                i64::try_from(value)
                    .map(Integer)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
                if value.fract() == 0.0 && value.abs() <= EXACT {
                    // Whole and below 2^53: printing it is the exact conversion.
                    format!("{value:.0}").parse().map(Integer).map_err(E::custom)
                } else {
                    Err(E::invalid_value(Unexpected::Float(value), &self))
                }
            }
        }
        deserializer.deserialize_any(Lenient)
    }
}

/// A count in a query string, from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count(pub(crate) usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_suffix(".0").unwrap_or(&text);
        match parse_whole(digits).and_then(|count| usize::try_from(count).ok()) {
            None | Some(0) => Err(Error::custom("not a whole number from 1")),
            Some(count) => Ok(Self(count)),
        }
    }
}

/// An integer from 0 in a query string, also written as `5.0`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(pub(crate) i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_suffix(".0").unwrap_or(&text);
        parse_whole(digits).map(Self).ok_or_else(|| Error::custom("not an int64 from 0"))
    }
}

/// An int64 in a query string, also written as `5.0`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole(pub(crate) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_suffix(".0").unwrap_or(&text);
        digits.parse().map(Self).map_err(|_| Error::custom("not an int64"))
    }
}

/// Reads an optional value of a query string. A value that is present but empty is read as such: without this, the
/// query string's reader would take it for absent.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Bytes in JSON, in base64 with its padding (RFC 4648, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Base64, E> {
                let bytes = BASE64_STANDARD.decode(text);
                bytes.map(|bytes| Base64(bytes.into())).map_err(|_| E::custom("not base64"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &BASE64_STANDARD))
    }
}

/// The generation of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationState {
    /// How often the key was bumped since it was last removed; 0 when the key is not known.
    generation: i64,
    /// The fence of the key's last bump: an opaque string. Read the source after this fence, and put the value with
    /// it: the value is then valid until the next bump.
    fence: String,
}

impl From<&Generation> for GenerationState {
    fn from(generation: &Generation) -> Self {
        Self { generation: generation.number, fence: generation.fence.to_string() }
    }
}

/// Points at the field that the model refused.
pub(crate) fn field<T>(pointer: &str, value: Result<T, Invalid>) -> Result<T, Problem> {
    value.map_err(|why| Problem::invalid_at(pointer, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_be_written_as_floats_but_never_rounded() {
        let read = |text: &str| serde_json::from_str::<Integer>(text).ok().map(|i| i.0);
        assert_eq!(read("5"), Some(5));
        assert_eq!(read("5.0"), Some(5));
        assert_eq!(read("-3.0"), Some(-3));
        assert_eq!(read("9223372036854775807"), Some(i64::MAX));
        assert_eq!(read("9223372036854775808"), None);
        assert_eq!(read("5.5"), None);
        assert_eq!(read("1e300"), None);
        assert_eq!(read("\"5\""), None);
    }

    #[test]
    fn bytes_are_written_in_base64_and_read_back() {
        for (bytes, text) in
            [(&b""[..], "\"\""), (&[0xff, 0, 0xfb], "\"/wD7\""), (b"a", "\"YQ==\"")]
        {
            let bytes = Base64(Bytes::copy_from_slice(bytes));
            assert_eq!(serde_json::to_string(&bytes).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Base64>(text).expect("base64"), bytes);
        }
        for text in ["\"YQ\"", "\"YQ=\"", "\"_wD7\"", "\" YQ==\"", "\"YR==\"", "1"] {
            assert!(serde_json::from_str::<Base64>(text).is_err(), "{text}");
        }
    }
}
