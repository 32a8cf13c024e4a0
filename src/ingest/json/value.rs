//! Reads any JSON value without failing on one of the wrong type, so that a point of a wrong shape is an
//! error of that point and not of the whole body.
//!
//! Invariant: only invalid JSON is an error here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::Invalid;

/// A JSON value. The content of arrays and objects is skipped.
pub(super) enum Scalar<'de> {
    Null,
    Bool,
    Number(f64),
    Text(Cow<'de, str>),
    Array,
    Object,
}

impl Scalar<'_> {
    /// Makes the error that `what` is this and not `wanted`.
    pub(super) fn expected(&self, what: &str, wanted: &str) -> Invalid {
        let found = match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        };
        Invalid::new(format!("{what} must be {wanted}, not {found}"))
    }
}

/// Describes an error of the JSON parser in `text`: in particular the words that some programs write for numbers that
/// JSON does not have. The position is not included.
pub(super) fn describe(error: &serde_json::Error, text: &str) -> String {
    let full = error.to_string();
    let what = full.rsplit_once(" at line ").map_or(full.as_str(), |(what, _)| what);
    match word_at(text.as_bytes(), error.line(), error.column()).and_then(special_of) {
        Some((word, special)) => format!("JSON has no {word}; {}", use_special(special)),
        None => what.to_owned(),
    }
}

/// Says how a value that is no number in JSON is written.
pub(super) fn use_special(special: &str) -> String {
    format!("write \"value\": null, \"special\": {special:?}")
}

/// Returns `word` and the special value that it means, if it means one.
pub(super) fn special_of(word: &str) -> Option<(&str, &'static str)> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let is = |text: &str| unsigned.eq_ignore_ascii_case(text);
    match word.starts_with('-') {
        _ if is("nan") => Some((word, "NaN")),
        minus if is("inf") || is("infinity") => Some((word, if minus { "-Inf" } else { "+Inf" })),
        _ => None,
    }
}

/// Returns the letters and signs around a position, of which the parser has read one or two.
fn word_at(text: &[u8], line: usize, column: usize) -> Option<&str> {
    let line = text.split(|&byte| byte == b'\n').nth(line.checked_sub(1)?)?;
    let in_word = |byte: &u8| byte.is_ascii_alphabetic() || b"+-".contains(byte);
    let at = column.checked_sub(1)?.min(line.len());
    let start = line[..at].iter().rposition(|byte| !in_word(byte)).map_or(0, |before| before + 1);
    let length = line[start..].iter().take_while(|byte| in_word(byte)).count();
    std::str::from_utf8(&line[start..start + length]).ok()
}

/// Turns any JSON value into a result: an object through its members, everything else as a scalar.
pub(super) trait AnyValue<'de>: Sized {
    type Out;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out;

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Out, A::Error>;
}

/// Reads a value as a [`Scalar`], skipping the content of arrays and objects.
pub(super) struct ReadScalar;

impl<'de> AnyValue<'de> for ReadScalar {
    type Out = Scalar<'de>;

    fn scalar(self, scalar: Scalar<'de>) -> Scalar<'de> {
        scalar
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Object)
    }
}

/// Drives an [`AnyValue`] with serde.
pub(super) struct ReadAny<S>(pub(super) S);

impl<'de, S: AnyValue<'de>> DeserializeSeed<'de> for ReadAny<S> {
    type Value = S::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: AnyValue<'de>> Visitor<'de> for ReadAny<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Null))
    }

    fn visit_bool<E>(self, _: bool) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Bool))
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample is the nearest float")]
    fn visit_i64<E>(self, number: i64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Number(number as f64)))
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample is the nearest float")]
    fn visit_u64<E>(self, number: u64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Number(number as f64)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Number(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<S::Out, E> {
        Ok(self.0.scalar(Scalar::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<S::Out, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.0.scalar(Scalar::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S::Out, A::Error> {
        self.0.object(map)
    }
}
