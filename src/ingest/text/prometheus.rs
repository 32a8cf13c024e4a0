//! The Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! It accepts what Prometheus' own parser accepts, and also CRLF line ends, a missing last line end
//! and blanks at the end of a line. Names outside the classic data model are refused.
//! Invariant: a family with exactly the name of a sample takes precedence over any other.

use super::families::Naming;
use super::lexer::{self, token};
use super::reader::{LineError, TextReader};
use super::timestamps::timestamp_millis;
use crate::ingest::batch_builder::{InputLimits, ParseError, ParsedBatch};
use crate::model::Invalid;
use crate::model::number::parse_float;
use crate::model::time::Timestamp;

/// Reads a body in the text format.
///
/// # Errors
/// [`ParseError::Points`] with every invalid line; [`ParseError::TooManyPoints`].
pub(in crate::ingest) fn parse_text(
    body: &[u8],
    limits: &InputLimits,
) -> Result<ParsedBatch, ParseError> {
    TextReader::new(body, limits, Naming::Text, value_and_millis).read(body, read_line)?.finish()
}

fn read_line<'a>(
    reader: &mut TextReader<'a>,
    number: usize,
    line: &'a str,
) -> Result<(), LineError> {
    let line = lexer::skip_blanks(line);
    match line.as_bytes().first() {
        None => Ok(()),
        Some(b'#') => Ok(comment(reader, &line[1..])?),
        Some(_) => reader.sample(number, line),
    }
}

/// Reads what follows a `#`: a declaration, or a comment, which is ignored.
fn comment<'a>(reader: &mut TextReader<'a>, text: &'a str) -> Result<(), Invalid> {
    let (keyword, rest) = token(lexer::skip_blanks(text));
    if !matches!(keyword, "HELP" | "TYPE") || rest.is_empty() {
        return Ok(());
    }
    let (name, rest) = token(rest);
    match keyword {
        "HELP" => reader.help_line(name, &lexer::unescape(rest, false)),
        // Prometheus' parser ignores a type line that ends after the name.
        _ if rest.is_empty() => Ok(()),
        _ => reader.type_line(name, &rest.trim_end_matches([' ', '\t']).to_ascii_lowercase()),
    }
}

fn value_and_millis(text: &str) -> Result<(f64, Option<Timestamp>), Invalid> {
    let (value_text, rest) = token(text);
    let value = parse_float(value_text).ok_or_else(|| lexer::unexpected("a number", text))?;
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

#[cfg(test)]
mod tests {
    use super::parse_text;
    use crate::ingest::{InputLimits, ParseError, ParsedBatch};
    use crate::model::batch::{BatchPoint, PointErrors, Position};
    use crate::model::series::{MetricType, PointLimits};

    const LIMITS: InputLimits = InputLimits {
        points: 10_000,
        point: PointLimits { name_bytes: 99, label_value_bytes: 99, labels: 9, help_bytes: 999 },
    };

    fn read(body: &str) -> ParsedBatch {
        parse_text(body.as_bytes(), &LIMITS).unwrap_or_else(|error| panic!("{error:?}: {body}"))
    }

    fn errors(body: &[u8]) -> PointErrors {
        match parse_text(body, &LIMITS) {
            Err(ParseError::Points(errors)) => errors,
            other => panic!("{other:?}"),
        }
    }

    fn invalid_lines(body: &str) -> Vec<usize> {
        let line = |position| match position {
            Position::Line(line) => line,
            Position::Index(_) => panic!("a text has lines"),
        };
        errors(body.as_bytes()).reported.iter().map(|error| line(error.position)).collect()
    }

    /// Returns type and help of the point with this index.
    fn metadata(parsed: &ParsedBatch, index: usize) -> Option<(MetricType, &str)> {
        let point = parsed.batch.iter().nth(index).expect("a point");
        let family = &parsed.batch.metadata()[point.metadata?];
        Some((family.metric_type, &family.help))
    }

    #[test]
    fn output_of_real_exporters_is_accepted_unchanged() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/expositions");
        for (file, families) in [
            ("node.prom", 283),
            ("prometheus.prom", 169),
            ("pushgateway.prom", 35),
            ("redis_exporter.prom", 158),
        ] {
            let body = std::fs::read_to_string(format!("{folder}/{file}")).expect("the file");
            let samples: Vec<_> = body.lines().filter(|line| !line.starts_with('#')).collect();
            for body in [body.clone(), body.replace('\n', "\r\n"), body.trim_end().to_owned()] {
                let parsed = read(&body);
                assert_eq!(parsed.batch.len(), samples.len(), "{file}");
                assert_eq!(parsed.batch.metadata().len(), families, "{file}");
                for (point, sample) in parsed.batch.iter().zip(&samples) {
                    let (_, value) = sample.rsplit_once(' ').expect("a value");
                    let value: f64 = value.parse().expect("a float");
                    assert!(sample.starts_with(point.name), "{sample}");
                    assert_eq!(point.value.to_bits(), value.to_bits(), "{sample}");
                    assert!(point.metadata.is_some(), "{sample}");
                }
            }
        }
    }

    #[test]
    fn every_spelling_of_a_sample_is_accepted() {
        let parsed = read(
            "\n \t\n# any comment\n#\n#HELP\n# HELP a\n# TYPE a\n  a 1\n\ta\t2\t\n\
             a{} 3 \na { } 4\na{b=\"c\"}5\na{ b = \"c\" , d = \"\" , } 6 -7\n\
             a{d=\"x\\\\\\\"\\n\",b=\"}\"} +Inf\r\n\r\na 8",
        );
        let points: Vec<_> = parsed.batch.iter().map(|p| (p.name, p.labels, p.value)).collect();
        let expected = [
            ("a", "", 1.0),
            ("a", "", 2.0),
            ("a", "", 3.0),
            ("a", "", 4.0),
            ("a", "b=\"c\"", 5.0),
            ("a", "b=\"c\"", 6.0),
            ("a", "b=\"}\",d=\"x\\\\\\\"\\n\"", f64::INFINITY),
            ("a", "", 8.0),
        ];
        assert_eq!(points, expected);
        let times: Vec<_> = parsed.batch.iter().filter_map(|p| p.updated_at).collect();
        assert_eq!(times.iter().map(|t| t.as_nanos()).collect::<Vec<_>>(), [-7_000_000]);
        assert_eq!(parsed.positions.position(7), Position::Line(16));
    }

    #[test]
    fn every_invalid_line_is_reported() {
        let invalid = [
            "0a 1",
            "a",
            "a ",
            "a 1 2 3",
            "a 1.5 1.5",
            "a 1 9223372036855",
            "a one",
            "a -NaN",
            "a 1e999",
            "a{b=\"c\" 1",
            "a{b=\"c} 1",
            "a{b=\"c\"} ",
            "a{b=c} 1",
            "a{b} 1",
            "a{,} 1",
            "a{b=\"c\",,} 1",
            "a{b=\"c\" d=\"e\"} 1",
            "a{b=\"\\t\"} 1",
            "a{b=\"c\",b=\"d\"} 1",
            "a{b=\"\",b=\"\"} 1",
            "a{__name__=\"b\"} 1",
            "a{0=\"b\"} 1",
            "{a=\"b\"} 1",
            "{\"a\"} 1",
            "a.b 1",
            "é 1",
            "a 1 # {} 1",
            "# TYPE a.b counter",
            "# HELP 0 text",
            "# TYPE c number",
        ];
        let body = format!("ok 1\n{}\nok 2", invalid.join("\n"));
        assert_eq!(invalid_lines(&body), (2..2 + invalid.len()).collect::<Vec<_>>());
        let utf8 = errors(b"a 1\na{b=\"\xff\"} 1\na 2\n\xc3\nb").reported;
        let lines: Vec<_> = utf8.iter().map(|error| error.position).collect();
        assert_eq!(lines, [2, 4, 5].map(Position::Line));
    }

    #[test]
    fn limits_are_enforced() {
        let label = |name: usize, value: usize| {
            format!("a{{{}=\"{}\"}} 1", "n".repeat(name), "v".repeat(value))
        };
        let labels = |n: usize| {
            let labels: Vec<_> = (0..n).map(|i| format!("l{i}=\"x\"")).collect();
            format!("a{{{}}} 1", labels.join(","))
        };
        let escaped = |n: usize| format!("a{{b=\"{}\"}} 1", "\\n".repeat(n));
        let help = |n: usize| format!("# HELP a {}", "x".repeat(n));
        let name = |n: usize| format!("{} 1", "n".repeat(n));
        for allowed in [label(99, 99), labels(9), escaped(99), help(999), name(99)] {
            read(&allowed);
        }
        for refused in
            [label(100, 1), label(1, 100), labels(10), escaped(100), help(1000), name(100)]
        {
            assert_eq!(invalid_lines(&refused), [1], "{refused}");
        }
        let limits = InputLimits { points: 2, ..LIMITS };
        assert!(parse_text(b"a 1\na 2\n", &limits).is_ok());
        let many = parse_text(b"a 1\n0 2\na 3\n", &limits).err();
        assert_eq!(many, Some(ParseError::TooManyPoints { limit: 2 }));
    }

    #[test]
    fn a_sample_has_the_metadata_of_its_family() {
        let parsed = read(
            "# HELP h \\\\ and\\nmore \\d\n# TYPE h HISTOGRAM\nh_bucket{le=\"1\"} 1\nh_sum 1\n\
             h_count 1\nh_total 1\n# TYPE s summary\ns 1\ns_sum 1\ns_bucket 1\n\
             # TYPE t histogram\n# TYPE t_sum gauge\nt_sum 1\nt_count 1\n# HELP u text\nu 1\n\
             v 1\n# TYPE c_total counter\nc_total 1\nc 1\n_sum 1\n",
        );
        let help = "\\ and\nmore \\d";
        let expected = [
            Some((MetricType::Histogram, help)),
            Some((MetricType::Histogram, help)),
            Some((MetricType::Histogram, help)),
            None,
            Some((MetricType::Summary, "")),
            Some((MetricType::Summary, "")),
            None,
            Some((MetricType::Gauge, "")),
            Some((MetricType::Histogram, "")),
            Some((MetricType::Unknown, "text")),
            None,
            Some((MetricType::Counter, "")),
            None,
            None,
        ];
        assert_eq!(parsed.batch.len(), expected.len());
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(metadata(&parsed, index), expected, "point {index}");
        }
    }

    #[test]
    fn the_last_declaration_counts_as_in_prometheus_own_parser() {
        for (body, expected) in [
            ("# TYPE a gauge\n# TYPE a counter\na 1\n", (MetricType::Counter, "")),
            ("# TYPE a gauge\na 1\n# TYPE a counter\n", (MetricType::Counter, "")),
            ("# HELP a x\na 1\n# HELP a y\n# TYPE a gauge\n", (MetricType::Gauge, "y")),
            ("# TYPE h histogram\nh_sum 2\n# TYPE h histogram\n", (MetricType::Histogram, "")),
        ] {
            assert_eq!(metadata(&read(body), 0), Some(expected), "{body}");
        }
        let parsed = read("a 1\n# TYPE a gauge\na 2\n");
        assert_eq!(metadata(&parsed, 0), None);
        assert_eq!(metadata(&parsed, 1), Some((MetricType::Gauge, "")));
    }

    #[test]
    fn a_help_text_may_follow_the_samples() {
        let parsed = read("# TYPE a gauge\na 1\n# HELP a late\nb 1\n# HELP b late\nb 2\na 2\n");
        assert_eq!(metadata(&parsed, 0), Some((MetricType::Gauge, "late")));
        assert_eq!(metadata(&parsed, 1), None);
        assert_eq!(metadata(&parsed, 2), Some((MetricType::Unknown, "late")));
        assert_eq!(metadata(&parsed, 3), Some((MetricType::Gauge, "late")));
    }

    #[test]
    fn unsorted_labels_do_not_affect_the_next_line() {
        let parsed = read("a{c=\"1\",b=\"2\"} 1\na{d=\"3\"} 1\na{f=\"4\",e=\"5\"} 1\na 1\n");
        let labels: Vec<_> = parsed.batch.iter().map(|p: BatchPoint<'_>| p.labels).collect();
        assert_eq!(labels, ["b=\"2\",c=\"1\"", "d=\"3\"", "e=\"5\",f=\"4\"", ""]);
    }
}
