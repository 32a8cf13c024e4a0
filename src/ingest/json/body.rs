//! The JSON body `{"role", "source", "points": [...]}`.
//!
//! Points go straight into the batch; no tree of values is built.
//! Invariant: an error within a point is reported for that point, and the others are still parsed; only
//! invalid JSON, or a wrong shape of the body itself, refuses the body at once.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::point::{PointSeed, Scratch};
use super::value::describe;
use crate::ingest::batch_builder::{BatchBuilder, InputLimits, ParseError, ParsedPush};
use crate::model::batch::Position;

/// Reads a JSON body.
///
/// # Errors
/// [`ParseError::Malformed`] with line and column when it is not JSON, or not of this shape;
/// [`ParseError::Points`] with every point that is refused; [`ParseError::TooManyPoints`].
pub(in crate::ingest) fn parse_json(
    body: &[u8],
    limits: &InputLimits,
) -> Result<ParsedPush, ParseError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &body[..error.valid_up_to()]).count();
        ParseError::Malformed(format!("not UTF-8 at line {line}"))
    })?;
    // Half of a typical point is names and labels, the rest is JSON.
    let mut builder = BatchBuilder::new(limits, body.len() / 2);
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json
        .deserialize_map(BodyVisitor { builder: &mut builder })
        .and_then(|members| json.end().map(|()| members));
    // Too many points end the parse with an error of serde, which says less.
    builder.check_count()?;
    let (role, source) = read.map_err(|error| {
        let (what, line, column) = (describe(&error, text), error.line(), error.column());
        ParseError::Malformed(format!("{what} at line {line} column {column}"))
    })?;
    Ok(ParsedPush { role, source, parsed: builder.finish()? })
}

type RoleAndSource = (Option<String>, Option<String>);

struct BodyVisitor<'s> {
    builder: &'s mut BatchBuilder,
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
            let duplicate = match &*member {
                "role" => role.replace(map.next_value()?).is_some(),
                "source" => source.replace(map.next_value()?).is_some(),
                "points" => {
                    let seed = PointsSeed { builder: &mut *self.builder };
                    points.replace(map.next_value_seed(seed)?).is_some()
                }
                unknown => return Err(A::Error::unknown_field(unknown, MEMBERS)),
            };
            if duplicate {
                return Err(A::Error::custom(format_args!("duplicate field `{member}`")));
            }
        }
        points.ok_or_else(|| A::Error::missing_field("points"))?;
        Ok((role.flatten(), source.flatten()))
    }
}

struct PointsSeed<'s> {
    builder: &'s mut BatchBuilder,
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
            let seed = PointSeed { builder: &mut *self.builder, scratch: &mut scratch, position };
            if points.next_element_seed(seed)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ParsedPush, parse_json};
    use crate::ingest::json::parse_ndjson;
    use crate::ingest::{InputLimits, ParseError};
    use crate::model::batch::Position;
    use crate::model::series::{Metadata, MetricType, PointLimits};

    const LIMITS: InputLimits = InputLimits {
        points: 100,
        point: PointLimits { name_bytes: 99, label_value_bytes: 99, labels: 9, help_bytes: 99 },
    };

    fn read(body: &str) -> ParsedPush {
        parse_json(body.as_bytes(), &LIMITS).unwrap_or_else(|error| panic!("{error:?}: {body}"))
    }

    fn malformed(body: &[u8]) -> String {
        match parse_json(body, &LIMITS) {
            Err(ParseError::Malformed(why)) => why,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(body)),
        }
    }

    #[test]
    fn a_word_for_a_number_that_json_lacks_is_named_with_its_line() {
        let why = malformed(b"{\"points\":[\n{\"name\":\"up\",\"value\":-Infinity}]}");
        let expected =
            "JSON has no -Infinity; write \"value\": null, \"special\": \"-Inf\" at line 2";
        assert!(why.starts_with(expected), "{why}");
    }

    const VALID_POINTS: [&str; 5] = [
        r#"{"unit":"u","labels":{"b":"2","a":"\u00e9\"","c":""},"value":null,"help":"h\n","special":"NaN","name":"up","type":"counter","updated_at":"2026-01-31T12:00:00.000000001Z"}"#,
        r#"{"name":"up","value":-0}"#,
        r#"{"name":"up","value":18446744073709551615,"labels":null,"special":null,"updated_at":null,"type":null,"help":null,"unit":null}"#,
        r#"{"name":"up","special":"-Inf","type":"untyped"}"#,
        r#"{"name":"up","value":5e-324,"labels":{}}"#,
    ];

    const INVALID_POINTS: [&str; 24] = [
        r#"{"extra":1,"name":"up","value":1}"#,
        r#"{"labels":{"a":1,"b":"1"},"name":"up","value":1}"#,
        r#"{"name":"up","value":null}"#,
        r#"{"name":"up"}"#,
        r#"{"name":"up","value":1,"special":"NaN"}"#,
        r#"{"name":"up","value":null,"special":"Inf"}"#,
        r#"{"name":"up","value":"1"}"#,
        r#"{"name":"up","value":true}"#,
        r#"{"name":"up","value":[1,{"a":[]}]}"#,
        r#"{"value":1}"#,
        r#"{"name":"0","value":1}"#,
        r#"{"name":{"a":{"b":1}},"value":1}"#,
        r#"{"name":"up","value":1,"labels":{"a":"1","a":"1"}}"#,
        r#"{"name":"up","value":1,"labels":{"a":1}}"#,
        r#"{"name":"up","value":1,"labels":{"__a":"1"}}"#,
        r#"{"name":"up","value":1,"labels":[]}"#,
        r#"{"name":"up","value":1,"labels":{},"labels":{}}"#,
        r#"{"name":"up","value":1,"name":"up"}"#,
        r#"{"name":"up","value":1,"extra":{"a":[1]}}"#,
        r#"{"name":"up","value":1,"type":"number"}"#,
        r#"{"name":"up","value":1,"updated_at":"yesterday"}"#,
        r#"{"name":"up","value":1,"updated_at":1}"#,
        r#"["up",1]"#,
        "null",
    ];

    #[test]
    fn members_are_read_in_any_order() {
        let points = VALID_POINTS.join(",");
        let body = read(&format!(r#" {{"points":[{points}],"source":"s","role":"r"}} "#));
        assert_eq!((body.role.as_deref(), body.source.as_deref()), (Some("r"), Some("s")));
        let ndjson = parse_ndjson(VALID_POINTS.join("\r\n \n").as_bytes(), &LIMITS).expect("valid");
        for parsed in [&body.parsed, &ndjson] {
            let points: Vec<_> = parsed.batch.iter().collect();
            assert_eq!((points[0].name, points[0].labels), ("up", "a=\"é\\\"\",b=\"2\""));
            assert_eq!(points[0].updated_at.map(|t| t.as_nanos() % 1000), Some(1));
            let values = [f64::NAN, -0.0, 18_446_744_073_709_551_615.0, f64::NEG_INFINITY, 5e-324];
            assert_eq!(
                points.iter().map(|p| p.value.to_bits()).collect::<Vec<_>>(),
                values.map(f64::to_bits)
            );
            assert!(points[1..].iter().all(|p| p.labels.is_empty() && p.updated_at.is_none()));
            let metadata = |metric_type, help: &str, unit: &str| Metadata {
                metric_type,
                help: help.into(),
                unit: unit.into(),
            };
            let expected =
                [metadata(MetricType::Counter, "h\n", "u"), metadata(MetricType::Unknown, "", "")];
            assert_eq!(parsed.batch.metadata(), expected);
            let indexes: Vec<_> = points.iter().map(|p| p.metadata).collect();
            assert_eq!(indexes, [Some(0), None, None, Some(1), None]);
        }
        assert_eq!(body.parsed.positions.position(4), Position::Index(4));
        assert_eq!(ndjson.positions.position(4), Position::Line(9));
        assert_eq!(read(r#"{"points":[],"role":null}"#).role, None);
    }

    #[test]
    fn every_invalid_point_is_reported() {
        let valid = r#"{"name":"up","value":1}"#;
        let points: Vec<_> = INVALID_POINTS.iter().flat_map(|invalid| [valid, invalid]).collect();
        let body = format!(r#"{{"points":[{}]}}"#, points.join(","));
        let Err(ParseError::Points(errors)) = parse_json(body.as_bytes(), &LIMITS) else {
            panic!("invalid points were accepted")
        };
        let positions: Vec<_> = errors.reported.iter().map(|error| error.position).collect();
        let odd = (0..INVALID_POINTS.len()).map(|n| Position::Index(2 * n + 1));
        assert_eq!(positions, odd.collect::<Vec<_>>(), "{errors:?}");
    }

    #[test]
    fn equal_metadata_is_stored_once() {
        let point = |help| format!(r#"{{"name":"up","value":1,"help":"{help}"}}"#);
        let points: Vec<_> = ["a", "b", "a", "\\u0062"].into_iter().map(point).collect();
        let body = read(&format!(r#"{{"points":[{}]}}"#, points.join(",")));
        let indexes: Vec<_> = body.parsed.batch.iter().filter_map(|p| p.metadata).collect();
        assert_eq!(indexes, [0, 1, 0, 1]);
    }

    #[test]
    fn invalid_json_and_other_shapes_are_refused_with_their_position() {
        assert!(malformed(b"{\"points\":[\n{]}").contains("line 2 column 2"));
        assert!(malformed(b"{\"points\":[\n\"\xff\"]}").contains("line 2"));
        assert!(malformed(b"{\"points\":[],\"extra\":1}").contains("extra"));
        for body in [
            "",
            "[]",
            "{}",
            "{\"points\":{}}",
            "{\"points\":null}",
            "{\"points\":[],\"points\":[]}",
            "{\"points\":[],\"role\":1}",
            "{\"points\":[]}{}",
            "{\"points\":[{\"name\":\"up\",\"value\":NaN}]}",
            "{\"points\":[{\"name\":\"up\",\"value\":1e999}]}",
            "{\"points\":[{\"name\":\"up\",\"value\":1},]}",
        ] {
            malformed(body.as_bytes());
        }
        let deep = format!("{{\"points\":[{}", "[".repeat(100_000));
        malformed(deep.as_bytes());
    }

    #[test]
    fn limits_are_enforced() {
        let body = br#"{"points":[{"name":"up","value":1},{},{"name":"up","value":1}]}"#;
        let limits = InputLimits { points: 2, ..LIMITS };
        let many = ParseError::TooManyPoints { limit: 2 };
        assert_eq!(parse_json(body, &limits).err(), Some(many.clone()));
        assert_eq!(parse_ndjson(b"{}\n{}\n{}\n", &limits).err(), Some(many));
        for (member, bytes) in [("help", 100), ("unit", 100), ("name", 100)] {
            let point = format!(r#"{{"{member}":"{}"}}"#, "x".repeat(bytes));
            let point = point.replace('{', r#"{"value":1,"#);
            let point =
                if member == "name" { point } else { point.replace('{', r#"{"name":"up","#) };
            let body = format!(r#"{{"points":[{point}]}}"#);
            assert!(matches!(parse_json(body.as_bytes(), &LIMITS), Err(ParseError::Points(_))));
        }
    }
}
