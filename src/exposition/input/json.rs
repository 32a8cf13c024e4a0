//! The JSON body `{"role", "source", "points": [...]}`.
//!
//! Points go straight into the batch; no tree of them is built.
//! Invariant: what is wrong within a point is said of that point, and the others are still
//! read; only what breaks JSON or the body's own shape refuses it at once.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json_point::{PointSeed, Scratch};
use super::sink::Sink;
use super::{InputLimits, ParseError, ParsedBatch};
use crate::model::batch::Position;

/// What a JSON body holds.
#[derive(Debug, Default)]
pub struct JsonBody {
    /// Who writes, where the body says so.
    pub role: Option<String>,
    /// On which path, where the body says so.
    pub source: Option<String>,
    /// The points.
    pub parsed: ParsedBatch,
}

/// Reads a JSON body.
///
/// # Errors
/// [`ParseError::Malformed`] with line and column when it is not JSON, or not of this shape;
/// [`ParseError::Points`] with every point that is refused; [`ParseError::TooManyPoints`].
pub fn parse_json(body: &[u8], limits: &InputLimits) -> Result<JsonBody, ParseError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &body[..error.valid_up_to()]).count();
        ParseError::Malformed(format!("not UTF-8 at line {line}"))
    })?;
    // Half of a typical point is names and labels, the rest is JSON.
    let mut sink = Sink::new(limits, body.len() / 2);
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json
        .deserialize_map(BodyVisitor { sink: &mut sink })
        .and_then(|members| json.end().map(|()| members));
    sink.check_count()?;
    let (role, source) = read.map_err(|error| ParseError::Malformed(error.to_string()))?;
    Ok(JsonBody { role, source, parsed: sink.finish()? })
}

type RoleAndSource = (Option<String>, Option<String>);

struct BodyVisitor<'s> {
    sink: &'s mut Sink,
}

impl<'de> Visitor<'de> for BodyVisitor<'_> {
    type Value = RoleAndSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with points")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RoleAndSource, A::Error> {
        const MEMBERS: &[&str] = &["role", "source", "points"];
        let (mut role, mut source, mut points) = (None, None, None);
        while let Some(member) = map.next_key::<Cow<'de, str>>()? {
            let twice = match &*member {
                "role" => role.replace(map.next_value()?).is_some(),
                "source" => source.replace(map.next_value()?).is_some(),
                "points" => {
                    let seed = PointsSeed { sink: &mut *self.sink };
                    points.replace(map.next_value_seed(seed)?).is_some()
                }
                unknown => return Err(A::Error::unknown_field(unknown, MEMBERS)),
            };
            if twice {
                return Err(A::Error::custom(format_args!("duplicate field `{member}`")));
            }
        }
        points.ok_or_else(|| A::Error::missing_field("points"))?;
        Ok((role.flatten(), source.flatten()))
    }
}

struct PointsSeed<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for PointsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PointsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of points")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut points: A) -> Result<(), A::Error> {
        let mut scratch = Scratch::default();
        for index in 0.. {
            let position = Position::Index(index);
            let seed = PointSeed { sink: &mut *self.sink, scratch: &mut scratch, position };
            if points.next_element_seed(seed)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}
