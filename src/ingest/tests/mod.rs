//! Properties of all input formats: what is written reads back, all formats agree, and no bytes make a
//! parser panic or return a batch that violates its invariant.
//!
//! The environment variable `HOLDALL_FUZZ_CASES` multiplies the number of cases, for a long run.

mod generate;

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::{prop_assert_eq, proptest};

use self::generate::{families, plain, write_body, write_json, write_text};
use super::json::{parse_json, parse_ndjson};
use super::text::{parse_openmetrics, parse_text};
use super::{InputLimits, ParsedBatch};
use crate::model::batch::Position;
use crate::model::series::{
    PointLimits, canonicalize, check_metric_name, split_canonical, unescape_label_value,
};

const LIMITS: InputLimits = InputLimits {
    points: 10_000,
    point: PointLimits { name_bytes: 256, label_value_bytes: 4096, labels: 64, help_bytes: 4096 },
};

fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("HOLDALL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    ProptestConfig::with_cases(usual.saturating_mul(times))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn text_reads_back_and_agrees_with_json(families in families(1_000_000)) {
        let (text, points) = write_text(&families, false);
        let from_text = parse_text(text.as_bytes(), &LIMITS).expect("valid text");
        prop_assert_eq!(&plain(&from_text.batch), &points, "{}", text);
        for (index, line) in (1..).zip(text.lines()).filter(|(_, l)| !l.starts_with('#')).enumerate() {
            prop_assert_eq!(from_text.positions.position(index), Position::Line(line.0));
        }
        let body = write_body(&points);
        let from_json = parse_json(body.as_bytes(), &LIMITS).expect("valid JSON");
        prop_assert_eq!(plain(&from_json.parsed.batch), points, "{}", body);
    }

    #[test]
    fn openmetrics_json_and_ndjson_read_back(families in families(1)) {
        let (text, points) = write_text(&families, true);
        let read = parse_openmetrics(text.as_bytes(), &LIMITS).expect("valid OpenMetrics");
        prop_assert_eq!(&plain(&read.batch), &points, "{}", text);
        let body = write_body(&points);
        let read = parse_json(body.as_bytes(), &LIMITS).expect("valid JSON");
        prop_assert_eq!(&plain(&read.parsed.batch), &points, "{}", body);
        prop_assert_eq!((read.role.as_deref(), read.source.as_deref()), (Some("r"), Some("s")));
        let lines: Vec<_> = points.iter().map(|point| write_json(point, 3)).collect();
        let read = parse_ndjson(lines.join("\n\n").as_bytes(), &LIMITS).expect("valid NDJSON");
        prop_assert_eq!(plain(&read.batch), points);
    }
}

/// Parses a body in every format, and checks the invariant of what is accepted.
fn check_parsers(body: &[u8]) {
    let read = [
        parse_text(body, &LIMITS),
        parse_openmetrics(body, &LIMITS),
        parse_json(body, &LIMITS).map(|body| body.parsed),
        parse_ndjson(body, &LIMITS),
    ];
    for parsed in read.into_iter().flatten() {
        check_invariant(&parsed);
    }
}

fn check_invariant(parsed: &ParsedBatch) {
    for (index, point) in parsed.batch.iter().enumerate() {
        check_metric_name(point.name, &LIMITS.point).expect("a metric name");
        let mut pairs: Vec<_> = split_canonical(point.labels)
            .map(|(name, value)| (name, unescape_label_value(value)))
            .collect();
        let mut again = String::new();
        canonicalize(&mut pairs, &LIMITS.point, &mut again).expect("canonical labels");
        assert_eq!(again, point.labels);
        assert!(point.metadata.is_none_or(|metadata| metadata < parsed.batch.metadata().len()));
        let _ = parsed.positions.position(index);
    }
}

/// Bodies of every format to mutate: parts of real files, and one document of each format.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expositions");
    let mut seeds = Vec::new();
    for file in std::fs::read_dir(folder).expect("the test data") {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        seeds.extend(lines.chunks(24).map(|lines| lines.join("\n").into_bytes()));
        let openmetrics = |lines: &[&str]| format!("{}\n# EOF\n", lines.join("\n")).into_bytes();
        seeds.extend(lines.chunks(24).map(openmetrics));
    }
    let point = r#"{"name":"up","labels":{"a":"é\n"},"value":null,"special":"NaN","updated_at":"2026-01-31T12:00:00Z","type":"gauge","help":"h","unit":"u"}"#;
    let body = format!(r#"{{"role":"leader","source":"scrape","points":[{point},{point}]}}"#);
    for _ in 0..seeds.len() / 2 {
        seeds.push(body.clone().into_bytes());
        seeds.push(format!("{point}\n\n{point}\n").into_bytes());
    }
    seeds
}

fn mutation() -> impl Strategy<Value = (Index, Index, Vec<u8>)> {
    let snippets = [
        "",
        "\n",
        "\r\n",
        "\"",
        "\\",
        "{",
        "}",
        "=",
        ",",
        "#",
        " ",
        "\t",
        "\0",
        "é",
        "NaN",
        "-",
        "1e999",
        "# TYPE up counter\n",
        "# EOF\n",
        "[",
        "null",
        "a=\"\"",
        "__name__",
        "_total",
        "_bucket",
        "9223372036854775807",
    ];
    let snippet = prop_oneof![
        select(snippets.to_vec()).prop_map(|snippet| snippet.as_bytes().to_vec()),
        vec(any::<u8>(), 1..3),
    ];
    (any::<Index>(), any::<Index>(), snippet)
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn no_mutated_body_breaks_a_parser(
        seed in select(seeds()),
        mutations in vec(mutation(), 0..6),
    ) {
        let mut body = seed;
        for (at, length, snippet) in mutations {
            let at = at.index(body.len() + 1);
            let end = (at + length.index(4)).min(body.len());
            body.splice(at..end, snippet);
        }
        check_parsers(&body);
    }

    #[test]
    fn no_bytes_break_a_parser(
        body in prop_oneof![
            vec(any::<u8>(), 0..64),
            "[a-c_0-9{}=\",\\\\ \t\r\n#.:+-]{0,64}".prop_map(String::into_bytes),
            "([a-c]\\{[a-c]=\"[a-c\\\\\"n]{0,3}\"\\} 1\n|# (TYPE|HELP|EOF) ?[a-c]?[a-z ]{0,8}\n){0,6}"
                .prop_map(String::into_bytes),
        ],
    ) {
        check_parsers(&body);
    }
}
