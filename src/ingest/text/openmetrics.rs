//! OpenMetrics text, version 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Series are named as in the text format: the counter `x` becomes the series `x_total`, and
//! `x_created` a gauge of its own. Exemplars are checked and dropped. Several blanks count as
//! one; the samples of a family need not be contiguous.
//! Invariant: a body that does not end with `# EOF`, such as a truncated one, is refused.

use super::families::Naming;
use super::lexer::{self, LabelScratch, token};
use super::reader::TextReader;
use super::timestamps::timestamp_seconds;
use crate::ingest::batch_builder::{InputLimits, ParseError, ParsedBatch};
use crate::model::Invalid;
use crate::model::number::parse_float;
use crate::model::series::PointLimits;
use crate::model::time::Timestamp;

/// Reads a body in OpenMetrics' text format.
///
/// # Errors
/// [`ParseError::Points`] with every invalid line, a missing `# EOF` among them;
/// [`ParseError::TooManyPoints`].
pub(in crate::ingest) fn parse_openmetrics(
    body: &[u8],
    limits: &InputLimits,
) -> Result<ParsedBatch, ParseError> {
    let (mut ended, mut last) = (false, 0);
    let reader = TextReader::new(body, limits, Naming::OpenMetrics, value_and_seconds);
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
            Some(text) => Ok(declaration(reader, text)?),
            None => reader.sample(number, line),
        }
    })?;
    if !ended {
        reader.add_error(last + 1, Invalid::new("the body ends without # EOF"));
    }
    reader.finish()
}

/// Reads what follows a `#`: a declaration. OpenMetrics has no comments.
fn declaration<'a>(reader: &mut TextReader<'a>, text: &'a str) -> Result<(), Invalid> {
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
    let (_, rest) = lexer::labels(text, &PointLimits::default(), &mut LabelScratch::default())?;
    let (_, rest) = number(lexer::skip_blanks(rest))?;
    let (_, rest) = time(rest)?;
    if rest.is_empty() { Ok(()) } else { Err(lexer::unexpected("nothing more", rest)) }
}

fn number(text: &str) -> Result<(f64, &str), Invalid> {
    let (value, rest) = token(text);
    parse_float(value).map(|value| (value, rest)).ok_or_else(|| lexer::unexpected("a number", text))
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

#[cfg(test)]
mod tests {
    use super::parse_openmetrics;
    use crate::ingest::{InputLimits, ParseError};
    use crate::model::batch::Position;
    use crate::model::series::PointLimits;

    const LIMITS: InputLimits = InputLimits {
        points: 100,
        point: PointLimits { name_bytes: 99, label_value_bytes: 99, labels: 9, help_bytes: 99 },
    };

    fn invalid_lines(body: &str) -> Vec<Position> {
        match parse_openmetrics(body.as_bytes(), &LIMITS) {
            Err(ParseError::Points(errors)) => {
                errors.reported.iter().map(|error| error.position).collect()
            }
            other => panic!("{other:?}: {body}"),
        }
    }

    /// Prints each point as name, labels, value, nanoseconds, type, help and unit.
    fn read(body: &str) -> Vec<String> {
        let parsed = parse_openmetrics(body.as_bytes(), &LIMITS)
            .unwrap_or_else(|error| panic!("{error:?}: {body}"));
        let print = |point: crate::model::batch::BatchPoint<'_>| {
            let mut out = format!("{}{{{}}} {}", point.name, point.labels, point.value);
            if let Some(at) = point.updated_at {
                out.push_str(&format!(" at {}", at.as_nanos()));
            }
            if let Some(about) = point.metadata.map(|index| &parsed.batch.metadata()[index]) {
                let word = about.metric_type.as_str();
                out.push_str(&format!(": {word} {:?} {:?}", about.help, about.unit));
            }
            out
        };
        parsed.batch.iter().map(print).collect()
    }

    #[test]
    fn series_are_named_as_in_the_text_format() {
        let points = read(
            "# TYPE c_seconds counter\n# UNIT c_seconds seconds\n# HELP c_seconds say \\\"c\\\"\n\
             c_seconds_total{a=\"b\"} 1 1520879607.789\nc_seconds_created{a=\"b\"} 1.5e9\n\
             # TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\nh_created 4\n\
             # TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 2\ng_gcount 2\ng_gsum -3\n\
             # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 1\ns_sum 1\ns_created 1\n\
             # TYPE i info\ni_info{version=\"1\"} 1\n# TYPE e stateset\ne{e=\"on\"} 1\n\
             # TYPE u unknown\nu 1\nu_total 1\nbare 1\n# EOF",
        );
        let expected = [
            "c_seconds_total{a=\"b\"} 1 at 1520879607789000000: counter \"say \\\"c\\\"\" \"seconds\"",
            "c_seconds_created{a=\"b\"} 1500000000: gauge \"say \\\"c\\\"\" \"\"",
            "h_bucket{le=\"+Inf\"} 2: histogram \"\" \"\"",
            "h_count{} 2: histogram \"\" \"\"",
            "h_sum{} 3: histogram \"\" \"\"",
            "h_created{} 4: gauge \"\" \"\"",
            "g_bucket{le=\"+Inf\"} 2: gaugehistogram \"\" \"\"",
            "g_gcount{} 2: gaugehistogram \"\" \"\"",
            "g_gsum{} -3: gaugehistogram \"\" \"\"",
            "s{quantile=\"0.5\"} 1: summary \"\" \"\"",
            "s_count{} 1: summary \"\" \"\"",
            "s_sum{} 1: summary \"\" \"\"",
            "s_created{} 1: gauge \"\" \"\"",
            "i_info{version=\"1\"} 1: info \"\" \"\"",
            "e{e=\"on\"} 1: stateset \"\" \"\"",
            "u{} 1: unknown \"\" \"\"",
            "u_total{} 1",
            "bare{} 1",
        ];
        assert_eq!(points, expected);
    }

    #[test]
    fn exemplars_are_checked_and_dropped() {
        let points = read(
            "# TYPE a counter\na_total 1 # {} 0.5\na_total{b=\" # \"} 1 2 # {t=\"} #\"} 0.5 3.25\n\
             # EOF\n",
        );
        assert_eq!(
            points,
            [
                "a_total{} 1: counter \"\" \"\"",
                "a_total{b=\" # \"} 1 at 2000000000: counter \"\" \"\""
            ]
        );
        for exemplar in ["#", "# {}", "# {} x", "# 1", "# {a} 1", "# {} 1 x", "# {} 1 1 1"] {
            let body = format!("a 1 {exemplar}\n# EOF\n");
            assert_eq!(invalid_lines(&body), [Position::Line(1)], "{body}");
        }
    }

    #[test]
    fn a_body_without_eof_is_refused() {
        assert_eq!(read("# EOF"), [""; 0]);
        assert_eq!(invalid_lines(""), [Position::Line(1)]);
        assert_eq!(invalid_lines("a 1\n"), [Position::Line(2)]);
        assert_eq!(invalid_lines("a 1\n# EO"), [Position::Line(2), Position::Line(3)]);
        assert_eq!(invalid_lines("# EOF\na 1\n\n"), [Position::Line(2), Position::Line(3)]);
        assert_eq!(invalid_lines("# EOF\n# EOF\n"), [Position::Line(2)]);
    }

    #[test]
    fn anything_else_is_refused() {
        for invalid in [
            "",
            "# a comment",
            "# TYPE a number",
            "# TYPE a",
            "# TYPE a COUNTER",
            "# UNIT a seconds",
            "# UNIT seconds seconds",
            "# HELP",
            "a 1 2 3",
            "a 1 NaN",
            "a 1 9223372037",
            " a 1",
        ] {
            assert_eq!(
                invalid_lines(&format!("{invalid}\n# EOF\n")),
                [Position::Line(1)],
                "{invalid:?}"
            );
        }
        for (body, line) in [
            ("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", 2),
            ("# UNIT a_s s\n# UNIT a_s s\n# EOF\n", 2),
            ("# TYPE a counter\na_total 1\n# TYPE a counter\n# EOF\n", 3),
            ("# TYPE a_s counter\na_s_total 1\n# UNIT a_s s\n# EOF\n", 3),
        ] {
            assert_eq!(invalid_lines(body), [Position::Line(line)], "{body}");
        }
    }
}
