//! The own metrics as families, so that the code that renders the mirrored families renders them as well, in
//! both formats.
//!
//! Not the metrics themselves, see [`super`].
//! Invariant: a family has exactly the samples that the registry gathered.

use std::sync::Arc;

use prometheus::Registry;
use prometheus::proto::{self, MetricFamily};

use crate::exposition::family::page::{LineUpdate, LineValue, Scratch};
use crate::exposition::family::{Family, FamilyHeader};
use crate::model::number::write_float;
use crate::model::series::{MetricType, escape_label_value};

/// Returns every metric of `registry` with its present value.
pub(in crate::exposition) fn gather(registry: &Registry) -> Vec<Arc<Family>> {
    let mut scratch = Scratch::default();
    registry.gather().iter().map(|family| Arc::new(convert(family, &mut scratch))).collect()
}

/// One sample: name, labels, value.
type Line = (String, String, f64);

fn convert(own: &MetricFamily, scratch: &mut Scratch) -> Family {
    let header = FamilyHeader {
        name: own.name().into(),
        metric_type: match own.get_field_type() {
            proto::MetricType::COUNTER => MetricType::Counter,
            proto::MetricType::GAUGE => MetricType::Gauge,
            proto::MetricType::HISTOGRAM => MetricType::Histogram,
            _ => MetricType::Unknown,
        },
        help: own.help().into(),
        unit: "".into(),
    };
    let mut lines = Vec::new();
    for metric in own.get_metric() {
        match own.get_field_type() {
            proto::MetricType::HISTOGRAM => histogram_lines(own.name(), metric, &mut lines),
            proto::MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                lines.push((own.name().to_owned(), labels(metric, None), value));
            }
            _ => {
                let value = metric.get_gauge().get_value();
                lines.push((own.name().to_owned(), labels(metric, None), value));
            }
        }
    }
    let sorter = header.sorter();
    let mut updates: Vec<LineUpdate<'_>> = lines
        .iter()
        .map(|(name, labels, value)| LineUpdate {
            sort_key: sorter.sort_key(name.as_bytes(), labels.as_bytes()),
            name: name.as_bytes(),
            labels: labels.as_bytes(),
            value: Some((LineValue::Sample(*value), 0)),
        })
        .collect();
    updates.sort_by(|a, b| a.sort_key.cmp(&b.sort_key));
    let mut family = Family::new(header.clone(), scratch);
    family.apply(&updates, scratch, &mut Vec::new());
    family
}

#[expect(clippy::cast_precision_loss, reason = "counts are samples, which are floats")]
fn histogram_lines(name: &str, metric: &proto::Metric, lines: &mut Vec<Line>) {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count() as f64;
    let mut bucket = |bound: f64, value: f64| {
        lines.push((format!("{name}_bucket"), labels(metric, Some(bound)), value));
    };
    for b in histogram.get_bucket().iter().filter(|b| b.upper_bound().is_finite()) {
        bucket(b.upper_bound(), b.cumulative_count() as f64);
    }
    bucket(f64::INFINITY, count);
    lines.push((format!("{name}_sum"), labels(metric, None), histogram.get_sample_sum()));
    lines.push((format!("{name}_count"), labels(metric, None), count));
}

/// Returns the canonical labels, with `le` where there is a bound.
fn labels(metric: &proto::Metric, bound: Option<f64>) -> String {
    let mut pairs: Vec<(&str, String)> =
        metric.get_label().iter().map(|l| (l.name(), l.value().to_owned())).collect();
    if let Some(bound) = bound {
        let mut text = Vec::new();
        write_float(bound, &mut text);
        pairs.push(("le", String::from_utf8_lossy(&text).into_owned()));
    }
    pairs.sort();
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out += name;
        out += "=\"";
        escape_label_value(&value, &mut out);
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec};

    use super::*;

    #[test]
    fn a_histogram_has_all_its_buckets_a_sum_and_a_count() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("holdall_took_seconds", "Took.").buckets(vec![0.5, 10.0]);
        let took = HistogramVec::new(opts, &["route"]).expect("valid");
        registry.register(Box::new(took.clone())).expect("once");
        took.with_label_values(&["/a\"b"]).observe(1.5);
        let families = gather(&registry);
        let text: String = families[0]
            .lines()
            .map(|(line, _)| String::from_utf8_lossy(line).into_owned() + "\n")
            .collect();
        assert_eq!(
            text,
            "holdall_took_seconds_bucket{le=\"0.5\",route=\"/a\\\"b\"} 0\n\
             holdall_took_seconds_bucket{le=\"10\",route=\"/a\\\"b\"} 1\n\
             holdall_took_seconds_bucket{le=\"+Inf\",route=\"/a\\\"b\"} 1\n\
             holdall_took_seconds_sum{route=\"/a\\\"b\"} 1.5\n\
             holdall_took_seconds_count{route=\"/a\\\"b\"} 1\n"
        );
    }
}
