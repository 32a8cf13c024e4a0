//! The forms of values, as they are written in a file or in the environment.
//!
//! Functions for `#[serde(deserialize_with)]`, so that the fields of settings are plain types. Invariant:
//! a value that was read is within the range of its form; no duration, size or count is zero.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use config::{File, FileFormat, Source, Value};
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::time::parse_duration;

/// Reads a duration that is longer than zero.
///
/// # Errors
/// When it is not one.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = parse_duration(&String::deserialize(deserializer)?).map_err(Error::custom)?;
    if duration.is_zero() {
        return Err(Error::custom("must be longer than zero"));
    }
    Ok(duration)
}

/// Reads a duration; `None` where it is not positive, such as `"0s"` or `"-1s"`.
///
/// # Errors
/// When it is not a duration.
pub fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (negative, text) = match text.trim().strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.trim()),
    };
    let duration = parse_duration(text).map_err(Error::custom)?;
    Ok(Some(duration).filter(|duration| !negative && !duration.is_zero()))
}

/// Reads a number of bytes, at least 1: `4096`, `"64KiB"`.
///
/// # Errors
/// When it is not one.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(&text)
        .ok_or_else(|| Error::custom("not a size such as 4096, \"64KiB\" or \"16MiB\""))
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// Reads how many of something, at least 1.
///
/// # Errors
/// When it is not a whole number, or zero.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::try_from(whole(deserializer)?) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::custom("must be at least 1")),
    }
}

/// Reads a whole number, also from a text. Not by serde's own rules for numbers: the values of a file would then be
/// converted, `1.7` to 2 and `true` to 1.
///
/// # Errors
/// When it is anything else.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::custom("is too large a number"))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
            text.trim().parse().map_err(|_| E::custom("is not a whole number"))
        }
    }

    deserializer.deserialize_any(Whole)
}

/// Reads whether something is so: `true` or `false`, also as a text.
///
/// # Errors
/// When it is anything else, such as a number.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Flag;

    impl Visitor<'_> for Flag {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
            Ok(flag)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
            one_of(text.trim(), &[("true", true), ("false", false)]).map_err(E::custom)
        }
    }

    deserializer.deserialize_any(Flag)
}

/// Reads a text; `None` where it is empty.
///
/// # Errors
/// When it is not a text.
pub fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = String::deserialize(deserializer)?;
    Ok(Some(text).filter(|text| !text.is_empty()).map(T::from))
}

/// Reads one of a few words.
///
/// # Errors
/// A sentence that names all of them, and not the text itself, which may be a misplaced secret.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

/// Reads a [`List`] as a vector.
///
/// # Errors
/// When it is not a list, or one of its items is not valid.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    List::deserialize(deserializer).map(|list| list.0)
}

/// A list: an array, or a text that holds `one,two` or a TOML array.
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

fn parse_toml_array(text: &str) -> Option<Vec<Value>> {
    let document = format!("list = {text}");
    let mut table = File::from_str(&document, FileFormat::Toml).collect().ok()?;
    table.remove("list")?.into_array().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read<T> = fn(Value) -> Result<T, config::ConfigError>;

    const BYTES: Read<usize> = |value| bytes(value);
    const DURATION: Read<Duration> = |value| duration(value);

    fn read_list<T: DeserializeOwned>(value: impl Into<Value>) -> Result<Vec<T>, String> {
        list(value.into()).map_err(|error: config::ConfigError| error.to_string())
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, size) in [("4096", 4096), ("64KiB", 65536), ("16 MiB", 16 << 20), ("7B", 7)] {
            assert_eq!(BYTES(text.into()).ok(), Some(size), "{text}");
        }
        assert_eq!(BYTES(512_i64.into()).ok(), Some(512));
        for text in ["", "KiB", "1KB", "-1", "0", "1.5MiB", "99999999999999999GiB"] {
            assert!(BYTES(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_longer_than_zero() {
        assert_eq!(DURATION("1m30s".into()).ok(), Some(Duration::from_secs(90)));
        for text in ["0s", "30", "-1s", ""] {
            assert!(DURATION(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_that_are_not_positive_can_mean_none() {
        let read = |text: &str| optional_duration::<Value>(text.into()).ok();
        assert_eq!(read("36h"), Some(Some(Duration::from_secs(36 * 3600))));
        assert_eq!([read("0s"), read("-1s")], [Some(None), Some(None)]);
        assert_eq!([read("soon"), read(""), read("-")], [None, None, None]);
    }

    #[test]
    fn counts_are_at_least_one() {
        assert_eq!(count::<Value>("7".into()).ok(), Some(7));
        let not_counts: [Value; 6] =
            [0_i64.into(), (-1_i64).into(), "x".into(), "1.7".into(), 1.7.into(), true.into()];
        for value in not_counts {
            assert!(count::<Value>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn numbers_and_flags_are_not_converted_into_each_other() {
        assert_eq!(whole::<Value>("-3".into()).ok(), Some(-3));
        assert!(whole::<Value>(true.into()).is_err() && whole::<Value>(1.0.into()).is_err());
        assert_eq!(flag::<Value>("true".into()).ok(), Some(true));
        assert_eq!(flag::<Value>(false.into()).ok(), Some(false));
        assert!(flag::<Value>(1_i64.into()).is_err() && flag::<Value>("on".into()).is_err());
    }

    #[test]
    fn empty_texts_can_mean_none() {
        let read = |text: &str| optional::<Value, String>(text.into()).expect("a text");
        assert_eq!((read(""), read("x")), (None, Some("x".to_owned())));
    }

    #[test]
    fn lists_are_arrays_or_one_text() {
        let two = || Ok(vec!["a".to_owned(), "b=c".to_owned()]);
        assert_eq!(read_list::<String>("a, b=c"), two());
        assert_eq!(read_list::<String>("[\"a\", \"b=c\"]"), two());
        assert_eq!(read_list::<String>(vec!["a", "b=c"]), two());
        assert_eq!(read_list::<String>(""), Ok(Vec::new()));
        assert!(read_list::<String>("[\"a\"").is_err());
        assert!(read_list::<usize>("1,x").is_err());
    }
}
