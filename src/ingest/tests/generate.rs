//! Generates families and points as plain values, and writes them in every format.
//!
//! Invariant: nothing here uses the parsers under test.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

use crate::model::batch::{BatchPoint, PointBatch};
use crate::model::series::{Metadata, MetricType, split_canonical, unescape_label_value};
use crate::model::time::Timestamp;

/// A point as plain values; NaN has one bit pattern.
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

/// One generated sample; its name follows from the family and the suffix.
#[derive(Debug, Clone)]
struct GeneratedSample {
    suffix: Index,
    labels: BTreeMap<String, String>,
    value: f64,
    nanos: Option<i64>,
    /// Bits that select among the spellings of the same sample.
    style: u8,
}

#[derive(Debug, Clone)]
pub(super) struct GeneratedFamily {
    metric_type: Option<MetricType>,
    help: Option<String>,
    samples: Vec<GeneratedSample>,
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

pub(super) fn families(step: i64) -> impl Strategy<Value = Vec<GeneratedFamily>> {
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
    let sample = (any::<Index>(), labels, value(), option::of(time(step)), any::<u8>()).prop_map(
        |(suffix, labels, value, nanos, style)| GeneratedSample {
            suffix,
            labels,
            value,
            nanos,
            style,
        },
    );
    let help = label_value().prop_map(|help| help.trim_matches([' ', '\t', '\r']).to_owned());
    let family = (option::of(select(types.to_vec())), option::of(help), vec(sample, 1..5))
        .prop_map(|(metric_type, help, samples)| GeneratedFamily { metric_type, help, samples });
    vec(family, 0..5)
}

/// Suffixes of a type's samples, in either format.
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

/// Writes the families as text of either format; returns it with the points that should be read from it.
pub(super) fn write_text(families: &[GeneratedFamily], openmetrics: bool) -> (String, Vec<Plain>) {
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
        let has_metadata =
            family.metric_type.is_some() || family.help.is_some() || !unit.is_empty();
        for sample in &family.samples {
            let suffixes = suffixes(family.metric_type, openmetrics);
            let suffix = suffixes[sample.suffix.index(suffixes.len())];
            let name = format!("{name}{suffix}");
            write_sample(&mut out, &name, sample, openmetrics);
            let created = suffix == "_created";
            let known = family.metric_type.unwrap_or(MetricType::Unknown);
            let metadata = has_metadata.then(|| Metadata {
                metric_type: if created { MetricType::Gauge } else { known },
                help: family.help.as_deref().unwrap_or_default().into(),
                unit: if created { "" } else { unit }.into(),
            });
            points.push(expected(name, sample, metadata));
        }
    }
    out.push_str(if openmetrics { "# EOF\n" } else { "" });
    (out, points)
}

fn expected(name: String, sample: &GeneratedSample, metadata: Option<Metadata>) -> Plain {
    let present = sample.labels.iter().filter(|(_, value)| !value.is_empty());
    let labels = present.map(|(name, value)| (name.clone(), value.clone())).collect();
    let bits = if sample.value.is_nan() { f64::NAN } else { sample.value }.to_bits();
    Plain { name, labels, bits, nanos: sample.nanos, metadata }
}

fn write_sample(out: &mut String, name: &str, sample: &GeneratedSample, openmetrics: bool) {
    let irregular = sample.style & 1 == 1;
    let blank = if irregular { " \t" } else { "" };
    let escaped = |(name, value): (&String, &String)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}{blank}={blank}\"{value}\"{blank}")
    };
    let mut labels: Vec<String> = sample.labels.iter().map(escaped).collect();
    if irregular {
        labels.reverse();
    }
    out.push_str(name);
    if !labels.is_empty() || irregular {
        let comma = if irregular && !labels.is_empty() { "," } else { "" };
        write!(out, "{blank}{{{blank}{}{comma}{blank}}}", labels.join(",")).expect("takes all");
    }
    let value = match sample.value {
        nan if nan.is_nan() => "NaN".to_owned(),
        infinite if infinite.is_infinite() => if infinite > 0.0 { "+Inf" } else { "-Inf" }.into(),
        finite if sample.style & 2 == 0 => format!("{finite}"),
        finite => format!("{finite:e}"),
    };
    write!(out, " {value}").expect("a String takes all");
    if let Some(nanos) = sample.nanos {
        if openmetrics {
            let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
            write!(out, " {sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
        } else {
            write!(out, " {}", nanos / 1_000_000)
        }
        .expect("a String takes all");
    }
    if openmetrics && sample.style & 4 == 4 {
        out.push_str(" # {trace_id=\"a } # b\"} 1.5 1520879607.789");
    }
    out.push_str(if sample.style & 8 == 8 { "\r\n" } else { "\n" });
}

pub(super) fn write_json(point: &Plain, rotation: usize) -> String {
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
    let rotation = rotation % members.len();
    members.rotate_left(rotation);
    format!("{{{}}}", members.join(","))
}

pub(super) fn write_body(points: &[Plain]) -> String {
    let points: Vec<_> =
        (0..).zip(points).map(|(rotation, point)| write_json(point, rotation)).collect();
    format!("{{\"role\":\"r\",\"points\":[{}],\"source\":\"s\"}}", points.join(",\n"))
}
