//! The Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! It takes what Prometheus' own parser takes, and CRLF line ends, a missing last line end
//! and blanks at the end of a line. Names outside the classic data model are refused.
//! Invariant: a sample belongs to the family of its exact name before any other.

use super::families::Naming;
use super::lexer::{self, token};
use super::number::{float, timestamp_millis};
use super::samples::{LineError, SampleReader};
use super::{InputLimits, ParseError, ParsedBatch};
use crate::model::Invalid;
use crate::model::time::Timestamp;

/// Reads a body in the text format.
///
/// # Errors
/// [`ParseError::Points`] with every line that is refused; [`ParseError::TooManyPoints`].
pub fn parse_text(body: &[u8], limits: &InputLimits) -> Result<ParsedBatch, ParseError> {
    SampleReader::new(body, limits, Naming::Text, value_and_millis).read(body, line)?.finish()
}

fn line<'a>(reader: &mut SampleReader<'a>, number: usize, line: &'a str) -> Result<(), LineError> {
    let line = lexer::skip_blanks(line);
    match line.as_bytes().first() {
        None => Ok(()),
        Some(b'#') => Ok(comment(reader, &line[1..])?),
        Some(_) => reader.sample(number, line),
    }
}

/// Reads what follows a `#`: a fact about a family, or anything at all.
fn comment<'a>(reader: &mut SampleReader<'a>, text: &'a str) -> Result<(), Invalid> {
    let (keyword, rest) = token(lexer::skip_blanks(text));
    if !matches!(keyword, "HELP" | "TYPE") || rest.is_empty() {
        return Ok(());
    }
    let (name, rest) = token(rest);
    match keyword {
        "HELP" => reader.help_line(name, &lexer::unescape(rest, false)),
        // Prometheus' parser takes a type line that stops after the name as saying nothing.
        _ if rest.is_empty() => Ok(()),
        _ => reader.type_line(name, &rest.trim_end_matches([' ', '\t']).to_ascii_lowercase()),
    }
}

fn value_and_millis(text: &str) -> Result<(f64, Option<Timestamp>), Invalid> {
    let (value_text, rest) = token(text);
    let value = float(value_text).ok_or_else(|| lexer::unexpected("a number", text))?;
    if rest.is_empty() {
        return Ok((value, None));
    }
    let (time, rest) = token(rest);
    let time = timestamp_millis(time)
        .ok_or_else(|| lexer::unexpected("a time in milliseconds within its range", time))?;
    if rest.is_empty() {
        Ok((value, Some(time)))
    } else {
        Err(lexer::unexpected("nothing more", rest))
    }
}
