//! NDJSON: one point of the JSON format per line (<https://github.com/ndjson/ndjson-spec>).
//!
//! Invariant: an invalid line does not affect how the others are read.

use serde::de::DeserializeSeed;

use super::point::{PointSeed, Scratch};
use super::value::describe;
use crate::ingest::batch_builder::{BatchBuilder, InputLimits, ParseError, ParsedBatch};
use crate::ingest::lines::Lines;
use crate::model::Invalid;
use crate::model::batch::Position;

/// Reads one point from each line that is not blank.
///
/// # Errors
/// [`ParseError::Points`] with every line that is refused; [`ParseError::TooManyPoints`].
pub(in crate::ingest) fn parse_ndjson(
    body: &[u8],
    limits: &InputLimits,
) -> Result<ParsedBatch, ParseError> {
    // Half of a typical point is names and labels, the rest is JSON.
    let mut builder = BatchBuilder::new(limits, body.len() / 2);
    let mut scratch = Scratch::default();
    for (number, line) in Lines::new(body) {
        let position = Position::Line(number);
        let Some(line) = line else {
            builder.add_error(position, Invalid::new("not UTF-8"));
            continue;
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let index = builder.parsed.batch.len();
        let mut json = serde_json::Deserializer::from_str(line);
        let seed = PointSeed { builder: &mut builder, scratch: &mut scratch, position };
        let read = seed.deserialize(&mut json).and_then(|()| json.end());
        builder.check_count()?;
        match read {
            Ok(()) => builder.parsed.positions.add_line(index, number),
            // The parser takes the line for line 1, which would mislead.
            Err(error) => {
                let (what, column) = (describe(&error, line), error.column());
                builder.add_error(position, Invalid::new(format!("{what} at column {column}")));
            }
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::parse_ndjson;
    use crate::ingest::{InputLimits, ParseError};
    use crate::model::batch::Position;
    use crate::model::series::PointLimits;

    #[test]
    fn every_invalid_line_is_reported_and_the_others_are_read() {
        let limits = InputLimits { points: 100, point: PointLimits::default() };
        let valid: &[u8] = br#"{"name":"up","value":1}"#;
        let lines: &[&[u8]] = &[
            valid,
            b"{",
            valid,
            b"\xff",
            b"",
            b"{}",
            b"[]",
            b"{\"name\":\"up\",\"value\":1} 2",
            b"\"",
            valid,
        ];
        let Err(ParseError::Points(errors)) = parse_ndjson(&lines.join(&b'\n'), &limits) else {
            panic!("invalid lines were accepted")
        };
        let positions: Vec<_> = errors.reported.iter().map(|error| error.position).collect();
        assert_eq!(positions, [2, 4, 6, 7, 8, 9].map(Position::Line), "{errors:?}");
        assert!(errors.reported[0].detail.ends_with("at column 1"), "{errors:?}");
    }

    #[test]
    fn words_for_numbers_that_json_lacks_are_named_with_what_to_write() {
        let limits = InputLimits { points: 100, point: PointLimits::default() };
        for (word, special) in [
            ("NaN", "NaN"),
            ("nan", "NaN"),
            ("-NaN", "NaN"),
            ("Infinity", "+Inf"),
            ("+Infinity", "+Inf"),
            ("-Infinity", "-Inf"),
            ("Inf", "+Inf"),
            ("inf", "+Inf"),
            ("-inf", "-Inf"),
        ] {
            for line in [
                format!("{{\"value\":{word},\"name\":\"up\"}}"),
                format!("{{\"name\":\"up\",\"value\": {word} }}"),
                format!("{{\"name\":\"up\",\"value\":\"{word}\"}}"),
                format!("{{\"name\":\"up\",\"value\":{word}"),
            ] {
                let Err(ParseError::Points(errors)) = parse_ndjson(line.as_bytes(), &limits) else {
                    panic!("{line} was accepted")
                };
                let detail = &errors.reported[0].detail;
                let write = format!("write \"value\": null, \"special\": \"{special}\"");
                assert!(detail.contains(word) && detail.contains(&write), "{line}: {detail}");
            }
        }
        let Err(ParseError::Points(errors)) = parse_ndjson(b"{\"value\":nul}", &limits) else {
            panic!("it was accepted")
        };
        assert!(!errors.reported[0].detail.contains("special"), "{errors:?}");
    }
}
