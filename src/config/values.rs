//! The kinds of values that settings have, as they are written in a file or the environment.
//!
//! Not the settings themselves. Invariant: a value that could be built is within the range
//! that its kind allows, so that nobody has to ask again whether an interval is zero.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Duration;

use config::{File, FileFormat, Source, Value};
use ipnet::IpNet;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::time::parse_duration;

/// A duration that is longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let span = parse_duration(&String::deserialize(deserializer)?).map_err(Error::custom)?;
        if span.is_zero() {
            return Err(Error::custom("must be longer than zero"));
        }
        Ok(Self(span))
    }
}

/// A duration, or nothing where it is not positive: `"0s"`, `"-1s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalSpan(pub Option<Duration>);

impl<'de> Deserialize<'de> for OptionalSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (negative, text) = match text.trim().strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.trim()),
        };
        let span = parse_duration(text).map_err(Error::custom)?;
        Ok(Self(Some(span).filter(|span| !negative && !span.is_zero())))
    }
}

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text)
            .map(Self)
            .ok_or_else(|| Error::custom("not a size such as 4096, \"64KiB\" or \"16MiB\""))
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

/// How many of something, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            0 => Err(Error::custom("must be at least 1")),
            count => Ok(Self(count)),
        }
    }
}

/// A range of addresses such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| {
                Error::custom(format!("{text:?} is not an address range such as 10.0.0.0/8"))
            })
    }
}

/// A list: an array, or in one text `one,two` or a TOML array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData)).map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let items = if text.trim_start().starts_with('[') {
            parse_toml_array(text).ok_or_else(|| E::custom("not a TOML array"))?
        } else {
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect()
        };
        items
            .into_iter()
            .map(|item| item.try_deserialize().map_err(|error| E::custom(error.to_string())))
            .collect()
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

/// Reads one of a few words.
///
/// # Errors
/// A sentence that names all of them, and not what stood there.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

fn parse_toml_array(text: &str) -> Option<Vec<Value>> {
    let document = format!("list = {text}");
    let mut table = File::from_str(&document, FileFormat::Toml).collect().ok()?;
    table.remove("list")?.into_array().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(value: impl Into<Value>) -> Result<T, String> {
        value.into().try_deserialize().map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, size) in [("4096", 4096), ("64KiB", 65536), ("16 MiB", 16 << 20), ("7B", 7)] {
            assert_eq!(read::<Size>(text), Ok(Size(size)), "{text}");
        }
        assert_eq!(read::<Size>(512_i64), Ok(Size(512)));
        for text in ["", "KiB", "1KB", "-1", "0", "1.5MiB", "99999999999999999GiB"] {
            assert!(read::<Size>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_longer_than_zero() {
        assert_eq!(read::<Span>("1m30s"), Ok(Span(Duration::from_secs(90))));
        for text in ["0s", "30", "-1s", ""] {
            assert!(read::<Span>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_come_as_arrays_or_in_one_text() {
        let two = || List(vec!["a".to_owned(), "b=c".to_owned()]);
        assert_eq!(read::<List<String>>("a, b=c"), Ok(two()));
        assert_eq!(read::<List<String>>("[\"a\", \"b=c\"]"), Ok(two()));
        assert_eq!(read::<List<String>>(vec!["a", "b=c"]), Ok(two()));
        assert_eq!(read::<List<String>>(""), Ok(List(Vec::new())));
        assert!(read::<List<String>>("[\"a\"").is_err());
        assert!(read::<List<usize>>("1,x").is_err());
    }
}
