//! Families and points as plain values, and plain writers of them in every format.
//!
//! Invariant: nothing here uses the parsers that it is there to test.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

use crate::model::batch::{BatchPoint, PointBatch};
use crate::model::series::{Metadata, MetricType, split_canonical, unescape_label_value};
use crate::model::time::Timestamp;

/// A point as plainly as it can be held, NaN as one bit pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plain {
    name: String,
    labels: BTreeMap<String, String>,
    bits: u64,
    nanos: Option<i64>,
    metadata: Option<Metadata>,
}

pub(super) fn plain(batch: &PointBatch) -> Vec<Plain> {
    let point = |point: BatchPoint<'_>| Plain {
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
pub(super) struct Family {
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
    prop_oneof![
        any::<i64>().prop_map(multiple),
        (0..4_000_000_000_000_000_000_i64).prop_map(multiple)
    ]
}

pub(super) fn families(step: i64) -> impl Strategy<Value = Vec<Family>> {
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
pub(super) fn write_text(families: &[Family], openmetrics: bool) -> (String, Vec<Plain>) {
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

pub(super) fn write_json(point: &Plain, turn: usize) -> String {
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

pub(super) fn write_body(points: &[Plain]) -> String {
    let points: Vec<_> = (0..).zip(points).map(|(turn, point)| write_json(point, turn)).collect();
    format!("{{\"role\":\"r\",\"points\":[{}],\"source\":\"s\"}}", points.join(",\n"))
}
