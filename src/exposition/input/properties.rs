//! Properties of all input formats: what is written reads back, all formats agree, and no
//! bytes at all make a parser panic or give out a batch that breaks its invariant.
//!
//! The environment variable `HOLDALL_FUZZ_CASES` multiplies the cases, for a long run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::{prop_assert_eq, proptest};

use super::{InputLimits, ParsedBatch, parse_json, parse_ndjson, parse_openmetrics, parse_text};
use crate::model::batch::{PointBatch, Position};
use crate::model::series::{
    Metadata, MetricType, PointLimits, canonicalize, check_metric_name, split_canonical,
    unescape_label_value,
};
use crate::model::time::Timestamp;

const LIMITS: InputLimits = InputLimits {
    points: 10_000,
    point: PointLimits { name_bytes: 256, label_value_bytes: 4096, labels: 64, help_bytes: 4096 },
};

fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("HOLDALL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    ProptestConfig::with_cases(usual.saturating_mul(times))
}

/// A point as plainly as it can be held, NaN as one bit pattern.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    name: String,
    labels: BTreeMap<String, String>,
    bits: u64,
    nanos: Option<i64>,
    metadata: Option<Metadata>,
}

fn plain(batch: &PointBatch) -> Vec<Plain> {
    let point = |point: crate::model::batch::BatchPoint<'_>| Plain {
        name: point.name.to_owned(),
        labels: split_canonical(point.labels)
            .map(|(name, value)| (name.to_owned(), unescape_label_value(value)))
            .collect(),
        bits: point.value.to_bits(),
        nanos: point.updated_at.map(Timestamp::as_nanos),
        metadata: point.metadata.map(|index| batch.metadata()[index].clone()),
    };
    batch.iter().map(point).collect()
}

/// One sample of a family that is yet to be named.
#[derive(Debug, Clone)]
struct Draft {
    suffix: Index,
    labels: BTreeMap<String, String>,
    value: f64,
    nanos: Option<i64>,
    /// How untidily it is written.
    style: u8,
}

#[derive(Debug, Clone)]
struct Family {
    metric_type: Option<MetricType>,
    help: Option<String>,
    drafts: Vec<Draft>,
}

fn label_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z0-9/_.-]{1,12}",
        "[\"\\\\\n\r\t,{}=# n]{0,6}",
        vec(any::<char>(), 0..8).prop_map(String::from_iter),
    ]
}

fn value() -> impl Strategy<Value = f64> {
    let edges = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MAX, 1e22];
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        select(edges.to_vec()),
        any::<i32>().prop_map(f64::from),
        any::<u64>().prop_map(|n| n as f64),
    ]
}

/// Times as multiples of `step`, in nanoseconds.
fn time(step: i64) -> impl Strategy<Value = i64> {
    let multiple = move |n: i64| n / step * step;
    prop_oneof![any::<i64>().prop_map(multiple), (0..4_000_000_000_000_000_000_i64).prop_map(multiple)]
}

fn families(step: i64) -> impl Strategy<Value = Vec<Family>> {
    let types = [
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::Summary,
        MetricType::GaugeHistogram,
        MetricType::Info,
        MetricType::StateSet,
        MetricType::Unknown,
    ];
    let labels = btree_map("[a-z][a-z0-9_]{0,6}", label_value(), 0..6);
    let draft = (any::<Index>(), labels, value(), option::of(time(step)), any::<u8>()).prop_map(
        |(suffix, labels, value, nanos, style)| Draft { suffix, labels, value, nanos, style },
    );
    let help = label_value().prop_map(|help| help.trim_matches([' ', '\t', '\r']).to_owned());
    let family = (option::of(select(types.to_vec())), option::of(help), vec(draft, 1..5))
        .prop_map(|(metric_type, help, drafts)| Family { metric_type, help, drafts });
    vec(family, 0..5)
}

/// Suffixes of a type's samples; those of OpenMetrics only where it is asked for.
fn suffixes(metric_type: Option<MetricType>, openmetrics: bool) -> &'static [&'static str] {
    match (metric_type, openmetrics) {
        (Some(MetricType::Counter), true) => &["_total", "_created"],
        (Some(MetricType::Histogram), true) => &["_bucket", "_sum", "_count", "_created"],
        (Some(MetricType::Summary), true) => &["", "_sum", "_count", "_created"],
        (Some(MetricType::Info), true) => &["_info"],
        (Some(MetricType::Histogram), false) => &["_bucket", "_sum", "_count"],
        (Some(MetricType::Summary), false) => &["", "_sum", "_count"],
        (Some(MetricType::GaugeHistogram), _) => &["_bucket", "_gsum", "_gcount"],
        _ => &[""],
    }
}

/// Writes the families as text of either format, and says what should be read.
fn write_text(families: &[Family], openmetrics: bool) -> (String, Vec<Plain>) {
    let (mut out, mut points) = (String::new(), Vec::new());
    for (number, family) in families.iter().enumerate() {
        let name = format!("family{number}_seconds");
        let unit = if openmetrics && number % 2 == 1 { "seconds" } else { "" };
        if let Some(help) = &family.help {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let help = if openmetrics { help.replace('"', "\\\"") } else { help };
            writeln!(out, "# HELP {name} {help}").expect("a String takes all");
        }
        if let Some(metric_type) = family.metric_type {
            writeln!(out, "# TYPE {name} {}", metric_type.as_str()).expect("a String takes all");
        }
        if !unit.is_empty() {
            writeln!(out, "# UNIT {name} {unit}").expect("a String takes all");
        }
        let described = family.metric_type.is_some() || family.help.is_some() || !unit.is_empty();
        for draft in &family.drafts {
            let suffixes = suffixes(family.metric_type, openmetrics);
            let suffix = suffixes[draft.suffix.index(suffixes.len())];
            let name = format!("{name}{suffix}");
            write_sample(&mut out, &name, draft, openmetrics);
            let created = suffix == "_created";
            let known = family.metric_type.unwrap_or(MetricType::Unknown);
            let metadata = described.then(|| Metadata {
                metric_type: if created { MetricType::Gauge } else { known },
                help: family.help.as_deref().unwrap_or_default().into(),
                unit: if created { "" } else { unit }.into(),
            });
            points.push(expected(name, draft, metadata));
        }
    }
    out.push_str(if openmetrics { "# EOF\n" } else { "" });
    (out, points)
}

fn expected(name: String, draft: &Draft, metadata: Option<Metadata>) -> Plain {
    let present = draft.labels.iter().filter(|(_, value)| !value.is_empty());
    let labels = present.map(|(name, value)| (name.clone(), value.clone())).collect();
    let bits = if draft.value.is_nan() { f64::NAN } else { draft.value }.to_bits();
    Plain { name, labels, bits, nanos: draft.nanos, metadata }
}

fn write_sample(out: &mut String, name: &str, draft: &Draft, openmetrics: bool) {
    let untidy = draft.style & 1 == 1;
    let blank = if untidy { " \t" } else { "" };
    let escaped = |(name, value): (&String, &String)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}{blank}={blank}\"{value}\"{blank}")
    };
    let mut labels: Vec<String> = draft.labels.iter().map(escaped).collect();
    if untidy {
        labels.reverse();
    }
    out.push_str(name);
    if !labels.is_empty() || untidy {
        let comma = if untidy && !labels.is_empty() { "," } else { "" };
        write!(out, "{blank}{{{blank}{}{comma}{blank}}}", labels.join(",")).expect("takes all");
    }
    let value = match draft.value {
        nan if nan.is_nan() => "NaN".to_owned(),
        infinite if infinite.is_infinite() => if infinite > 0.0 { "+Inf" } else { "-Inf" }.into(),
        finite if draft.style & 2 == 0 => format!("{finite}"),
        finite => format!("{finite:e}"),
    };
    write!(out, " {value}").expect("a String takes all");
    if let Some(nanos) = draft.nanos {
        if openmetrics {
            let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
            write!(out, " {sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
        } else {
            write!(out, " {}", nanos / 1_000_000)
        }
        .expect("a String takes all");
    }
    if openmetrics && draft.style & 4 == 4 {
        out.push_str(" # {trace_id=\"a } # b\"} 1.5 1520879607.789");
    }
    out.push_str(if draft.style & 8 == 8 { "\r\n" } else { "\n" });
}

fn write_json(point: &Plain, turn: usize) -> String {
    let json = |text: &str| serde_json::to_string(text).expect("a string");
    let value = f64::from_bits(point.bits);
    let special = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    };
    let mut members = vec![format!("\"name\": {}", json(&point.name))];
    if value.is_finite() {
        members.push(format!("\"value\":{}", serde_json::to_string(&value).expect("finite")));
    } else {
        members.extend(["\"value\":null".to_owned(), format!("\"special\":\"{special}\"")]);
    }
    if !point.labels.is_empty() {
        members.push(format!("\"labels\":{}", serde_json::to_string(&point.labels).expect("map")));
    }
    if let Some(nanos) = point.nanos {
        members.push(format!("\"updated_at\":\"{}\"", Timestamp::from_nanos(nanos)));
    }
    if let Some(metadata) = &point.metadata {
        members.push(format!("\"type\":\"{}\"", metadata.metric_type.as_str()));
        members.push(format!("\"help\":{}", json(&metadata.help)));
        members.push(format!("\"unit\":{}", json(&metadata.unit)));
    }
    let turn = turn % members.len();
    members.rotate_left(turn);
    format!("{{{}}}", members.join(","))
}

fn write_body(points: &[Plain]) -> String {
    let points: Vec<_> = (0..).zip(points).map(|(turn, point)| write_json(point, turn)).collect();
    format!("{{\"role\":\"r\",\"points\":[{}],\"source\":\"s\"}}", points.join(",\n"))
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

/// Gives a body to every parser. What they do accept must keep the batch's invariant.
fn survives(body: &[u8]) {
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

/// Bodies of every format to begin from: windows of real files, and one document each.
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
    let pieces = [
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
    let piece = prop_oneof![
        select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 1..3),
    ];
    (any::<Index>(), any::<Index>(), piece)
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn mutated_bodies_never_break_a_parser(
        seed in select(seeds()),
        mutations in vec(mutation(), 0..6),
    ) {
        let mut body = seed;
        for (at, length, piece) in mutations {
            let at = at.index(body.len() + 1);
            let end = (at + length.index(4)).min(body.len());
            body.splice(at..end, piece);
        }
        survives(&body);
    }

    #[test]
    fn arbitrary_bytes_never_break_a_parser(
        body in prop_oneof![
            vec(any::<u8>(), 0..64),
            "[a-c_0-9{}=\",\\\\ \t\r\n#.:+-]{0,64}".prop_map(String::into_bytes),
            "([a-c]\\{[a-c]=\"[a-c\\\\\"n]{0,3}\"\\} 1\n|# (TYPE|HELP|EOF) ?[a-c]?[a-z ]{0,8}\n){0,6}"
                .prop_map(String::into_bytes),
        ],
    ) {
        survives(&body);
    }
}
