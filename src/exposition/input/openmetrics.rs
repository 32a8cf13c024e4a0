//! OpenMetrics text, version 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Series are named as in the text format: the counter `x` becomes the series `x_total`, and
//! `x_created` a gauge of its own. Exemplars are checked and dropped. Runs of blanks are taken
//! as one; that families stand together is not required.
//! Invariant: a body without `# EOF` as its end, thus one that was cut off, is refused.

use super::families::Naming;
use super::lexer::{self, token};
use super::number::{float, timestamp_seconds};
use super::samples::SampleReader;
use super::{InputLimits, ParseError, ParsedBatch};
use crate::model::Invalid;
use crate::model::series::PointLimits;
use crate::model::time::Timestamp;

/// Reads a body in OpenMetrics' text format.
///
/// # Errors
/// [`ParseError::Points`] with every line that is refused, the missing `# EOF` among them;
/// [`ParseError::TooManyPoints`].
pub fn parse_openmetrics(body: &[u8], limits: &InputLimits) -> Result<ParsedBatch, ParseError> {
    let (mut ended, mut last) = (false, 0);
    let reader = SampleReader::new(body, limits, Naming::OpenMetrics, value_and_seconds);
    let mut reader = reader.read(body, |reader, number, line| {
        last = number;
        if ended {
            return Err(Invalid::new("a line after # EOF").into());
        }
        if line == "# EOF" {
            ended = true;
            return Ok(());
        }
        match line.strip_prefix('#') {
            Some(text) => Ok(descriptor(reader, text)?),
            None => reader.sample(number, line),
        }
    })?;
    if !ended {
        reader.refuse(last + 1, Invalid::new("the end without # EOF"));
    }
    reader.finish()
}

/// Reads what follows a `#`, which is never a mere comment.
fn descriptor<'a>(reader: &mut SampleReader<'a>, text: &'a str) -> Result<(), Invalid> {
    let (keyword, rest) = token(lexer::skip_blanks(text));
    let (name, rest) = token(rest);
    match keyword {
        "TYPE" => reader.type_line(name, rest),
        "HELP" => reader.help_line(name, &lexer::unescape(rest, true)),
        "UNIT" => reader.unit_line(name, rest),
        _ => Err(lexer::unexpected("TYPE, HELP, UNIT or EOF", text)),
    }
}

fn value_and_seconds(text: &str) -> Result<(f64, Option<Timestamp>), Invalid> {
    let (value, rest) = number(text)?;
    let (time, rest) = time(rest)?;
    match rest.strip_prefix('#') {
        Some(text) => exemplar(lexer::skip_blanks(text))?,
        None if rest.is_empty() => {}
        None => return Err(lexer::unexpected("nothing more", rest)),
    }
    Ok((value, time))
}

fn exemplar(text: &str) -> Result<(), Invalid> {
    let text = text.strip_prefix('{').ok_or_else(|| lexer::unexpected("`{`", text))?;
    let (_, rest) = lexer::labels(text, &PointLimits::default(), &mut Vec::new())?;
    let (_, rest) = number(lexer::skip_blanks(rest))?;
    let (_, rest) = time(rest)?;
    if rest.is_empty() { Ok(()) } else { Err(lexer::unexpected("nothing more", rest)) }
}

fn number(text: &str) -> Result<(f64, &str), Invalid> {
    let (value, rest) = token(text);
    float(value).map(|value| (value, rest)).ok_or_else(|| lexer::unexpected("a number", text))
}

fn time(text: &str) -> Result<(Option<Timestamp>, &str), Invalid> {
    if text.is_empty() || text.starts_with('#') {
        return Ok((None, text));
    }
    let (time, rest) = token(text);
    timestamp_seconds(time)
        .map(|time| (Some(time), rest))
        .ok_or_else(|| lexer::unexpected("a time in seconds within its range", time))
}
