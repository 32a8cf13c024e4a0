//! The metrics of the line to a store on the network.
//!
//! The line counts by itself; here its totals become metrics when they are gathered. Invariant: where
//! there is no line there are no such metrics.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

use crate::store::LinkStatus;

const DURATION: (&str, &str) =
    ("holdall_store_round_trip_duration_seconds", "Time that round trips to the store took.");
const FAILURES: (&str, &str) = (
    "holdall_store_round_trip_failures_total",
    "Round trips to the store that were not answered, not in time, or refused.",
);
const IN_FLIGHT: (&str, &str) =
    ("holdall_store_round_trips_in_flight", "Round trips to the store that run.");

/// The metrics.
#[derive(Clone, Default)]
pub struct LinkMetrics(Arc<RwLock<Option<LinkStatus>>>);

impl std::fmt::Debug for LinkMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkMetrics").finish_non_exhaustive()
    }
}

impl LinkMetrics {
    /// Takes over what the line counted.
    pub fn show(&self, status: Option<LinkStatus>) {
        *self.0.write() = status;
    }
}

impl Collector for LinkMetrics {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(status) = self.0.read().clone() else { return Vec::new() };
        vec![
            family(FAILURES, MetricType::COUNTER, counter(status.failures)),
            family(IN_FLIGHT, MetricType::GAUGE, gauge(status.in_flight)),
            family(DURATION, MetricType::HISTOGRAM, histogram(&status)),
        ]
    }
}

fn family((name, help): (&str, &str), kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
fn counter(total: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(total as f64);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
fn gauge(value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn histogram(status: &LinkStatus) -> Metric {
    let buckets = status.within_seconds.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(status.round_trips);
    histogram.set_sample_sum(status.seconds);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn a_line_is_shown_and_no_line_is_not() {
        let registry = Registry::new();
        let metrics = LinkMetrics::default();
        registry.register(Box::new(metrics.clone())).expect("no name twice");
        assert!(registry.gather().is_empty());
        metrics.show(Some(LinkStatus {
            in_flight: 1,
            failures: 2,
            within_seconds: vec![(0.001, 3), (0.01, 4)],
            round_trips: 5,
            seconds: 0.5,
        }));
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("valid");
        let text = String::from_utf8(text).expect("UTF-8");
        for line in [
            "holdall_store_round_trip_duration_seconds_bucket{le=\"0.01\"} 4",
            "holdall_store_round_trip_duration_seconds_bucket{le=\"+Inf\"} 5",
            "holdall_store_round_trip_failures_total 2",
            "holdall_store_round_trips_in_flight 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
