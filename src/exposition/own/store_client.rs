//! The metrics of the client of a store on the network.
//!
//! The client counts itself; here its totals become metrics when they are gathered.
//! Invariant: without such a client there are no such metrics.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

use crate::store::ClientStatus;

/// The names and help texts of the metrics.
#[derive(Debug, Clone, Copy)]
pub struct ClientMetricNames {
    /// How long round trips took.
    pub duration: (&'static str, &'static str),
    /// The round trips that failed.
    pub failures: (&'static str, &'static str),
    /// The round trips in flight.
    pub in_flight: (&'static str, &'static str),
}

/// The metrics.
#[derive(Clone)]
pub struct ClientMetrics {
    names: ClientMetricNames,
    status: Arc<RwLock<Option<ClientStatus>>>,
}

impl std::fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientMetrics").finish_non_exhaustive()
    }
}

impl ClientMetrics {
    /// Makes the metrics. They are not shown before the first [`Self::show`].
    pub fn new(names: ClientMetricNames) -> Self {
        Self { names, status: Arc::default() }
    }

    /// Shows what the client counted; `None` without a client.
    pub fn show(&self, status: Option<ClientStatus>) {
        *self.status.write() = status;
    }
}

impl Collector for ClientMetrics {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(status) = self.status.read().clone() else { return Vec::new() };
        vec![
            family(self.names.failures, MetricType::COUNTER, counter(status.failures)),
            family(self.names.in_flight, MetricType::GAUGE, gauge(status.in_flight)),
            family(self.names.duration, MetricType::HISTOGRAM, histogram(&status)),
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

fn histogram(status: &ClientStatus) -> Metric {
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
    fn a_client_is_shown_only_where_there_is_one() {
        let registry = Registry::new();
        let metrics = ClientMetrics::new(ClientMetricNames {
            duration: ("duration_seconds", "x"),
            failures: ("failures_total", "x"),
            in_flight: ("in_flight", "x"),
        });
        registry.register(Box::new(metrics.clone())).expect("no name twice");
        assert!(registry.gather().is_empty());
        metrics.show(Some(ClientStatus {
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
            "duration_seconds_bucket{le=\"0.01\"} 4",
            "duration_seconds_bucket{le=\"+Inf\"} 5",
            "failures_total 2",
            "in_flight 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
