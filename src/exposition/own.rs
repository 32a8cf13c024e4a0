//! Every metric of holdall's own: its name, its help text, and the handle to count with.
//!
//! Invariant: every name begins with [`OWN_PREFIX`](super::mirror::OWN_PREFIX), also those of the
//! process, so that no mirrored series, such as another exporter's `process_cpu_seconds_total`, can
//! clash with them.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry,
};

use super::process::ProcessCollector;
use super::store_client::{ClientMetricNames, ClientMetrics};
use super::totals::GaugeFamily;

/// The bounds of request durations, in seconds.
const REQUEST_SECONDS: &[f64] = &[
    0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// The bounds of refresh durations, in seconds.
const REFRESH_SECONDS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The handles.
#[derive(Debug, Clone)]
pub struct OwnMetrics {
    registry: Registry,
    /// Answered requests, by `method`, `route` (the matched one, never the path) and `status`.
    pub http_requests: IntCounterVec,
    /// How long requests took, by `route`.
    pub http_duration: HistogramVec,
    /// Requests that are being served now.
    pub http_in_flight: IntGauge,
    /// How long refreshes took.
    pub refresh_duration: Histogram,
    /// Refreshes that failed.
    pub refresh_failures: IntCounter,
    /// The age of what /metrics shows; set when it is shown.
    pub page_age: Gauge,
    /// Series that /metrics mirrors.
    pub mirrored_series: IntGauge,
    /// Pushed samples that /metrics does not show because of their names.
    pub mirror_clashes: IntCounter,
    /// How far the system's clock is ahead of the server's; negative when behind.
    pub clock_offset: Gauge,
    /// Lookups that found what they sought, by `cache` and `namespace`: `values` holds those of
    /// clients, in their namespaces; all other caches are our own, and have none.
    pub cache_hits: IntCounterVec,
    /// Lookups that did not, by `cache`, `namespace` and `reason`.
    pub cache_misses: IntCounterVec,
    /// What the store reports of itself.
    pub store: StoreMetrics,
}

/// What the store reports of itself, as of the last refresh.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// 1 when the store answered.
    pub up: IntGauge,
    /// What the store holds, by `resource`.
    pub entries: GaugeFamily,
    /// What the entries take, by `resource`, where it is bounded in bytes.
    pub bytes: GaugeFamily,
    /// Buffered writes that are not on disk yet.
    pub unflushed: IntGauge,
    /// The age of the oldest of them.
    pub oldest_unflushed: Gauge,
    /// Flushes that failed.
    pub flush_failures: IntCounter,
    /// The client of a store on the network.
    pub client: ClientMetrics,
    /// Groups of durable writes.
    pub commits: IntCounter,
    /// Durable writes.
    pub committed_writes: IntCounter,
}

impl OwnMetrics {
    /// Makes all metrics and registers them in `registry`.
    ///
    /// # Errors
    /// When a name is registered there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let r = Registrar(registry);
        r.build_info()?;
        r.add(ProcessCollector::new()?)?;
        Ok(Self {
            registry: registry.clone(),
            http_requests: r.counters(
                "holdall_http_requests_total",
                "Answered HTTP requests.",
                &["method", "route", "status"],
            )?,
            http_duration: r.add(HistogramVec::new(
                HistogramOpts::new(
                    "holdall_http_request_duration_seconds",
                    "Time from the head of an HTTP request to the head of its answer.",
                )
                .buckets(REQUEST_SECONDS.to_vec()),
                &["route"],
            )?)?,
            http_in_flight: r
                .int_gauge("holdall_http_requests_in_flight", "HTTP requests being served.")?,
            refresh_duration: r.add(Histogram::with_opts(
                HistogramOpts::new(
                    "holdall_refresh_duration_seconds",
                    "Time to bring the mirrored series up to date.",
                )
                .buckets(REFRESH_SECONDS.to_vec()),
            )?)?,
            refresh_failures: r.counter(
                "holdall_refresh_failures_total",
                "Refreshes of the mirrored series that failed; the last page stays.",
            )?,
            page_age: r.gauge(
                "holdall_page_age_seconds",
                "Time since the mirrored series were last brought up to date.",
            )?,
            mirrored_series: r
                .int_gauge("holdall_mirrored_series", "Pushed series shown on /metrics.")?,
            mirror_clashes: r.counter(
                "holdall_mirror_clashes_total",
                "Pushed samples not shown on /metrics, their names being reserved for holdall.",
            )?,
            clock_offset: r.gauge(
                "holdall_clock_offset_seconds",
                "How far the system's clock is ahead of the server's, which follows it slowly.",
            )?,
            cache_hits: r.counters(
                "holdall_cache_hits_total",
                "Lookups that found what they sought.",
                &["cache", "namespace"],
            )?,
            cache_misses: r.counters(
                "holdall_cache_misses_total",
                "Lookups that did not find what they sought.",
                &["cache", "namespace", "reason"],
            )?,
            store: StoreMetrics::register(&r)?,
        })
    }

    /// Returns the registry that holds them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts one answered request.
    pub fn observe_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.http_requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.http_duration.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}

impl StoreMetrics {
    fn register(r: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            up: r.int_gauge("holdall_store_up", "1 when the store answered, otherwise 0.")?,
            entries: r.add(GaugeFamily::new(
                "holdall_store_entries",
                "What the store holds, by resource.",
                &["resource"],
            )?)?,
            bytes: r.add(GaugeFamily::new(
                "holdall_store_bytes",
                "What the entries take, with their keys, by resource.",
                &["resource"],
            )?)?,
            unflushed: r.int_gauge(
                "holdall_store_unflushed_writes",
                "Buffered writes that are not on disk yet.",
            )?,
            oldest_unflushed: r.gauge(
                "holdall_store_oldest_unflushed_seconds",
                "How long the oldest buffered write has been waiting for the disk.",
            )?,
            flush_failures: r
                .counter("holdall_store_flush_failures_total", "Flushes to disk that failed.")?,
            client: r.add(ClientMetrics::new(ClientMetricNames {
                duration: (
                    "holdall_store_round_trip_duration_seconds",
                    "Time that round trips to the store took.",
                ),
                failures: (
                    "holdall_store_round_trip_failures_total",
                    "Round trips to the store that were not answered, not in time, or refused.",
                ),
                in_flight: (
                    "holdall_store_round_trips_in_flight",
                    "Round trips to the store that run.",
                ),
            }))?,
            commits: r.counter(
                "holdall_store_commits_total",
                "Groups of durable writes that were committed.",
            )?,
            committed_writes: r.counter(
                "holdall_store_committed_writes_total",
                "Durable writes that were committed.",
            )?,
        })
    }
}

/// Makes metrics and registers them in one go.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, by: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), by)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.add(Gauge::new(name, help)?)
    }

    fn int_gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    fn build_info(&self) -> prometheus::Result<()> {
        let opts = Opts::new("holdall_build_info", "The running program; the value is always 1.");
        let info = self.add(GaugeVec::new(opts, &["version"])?)?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::mirror::OWN_PREFIX;

    #[test]
    fn every_name_is_our_own_and_keeps_the_conventions() {
        let registry = Registry::new();
        let own = OwnMetrics::register(&registry).expect("no name twice");
        own.observe_request("GET", "/metrics", 200, Duration::from_millis(3));
        own.cache_hits.with_label_values(&["pages", ""]).inc();
        for family in registry.gather() {
            let (name, kind) = (family.name(), family.get_field_type());
            assert!(name.starts_with(OWN_PREFIX), "{name}");
            let counter = kind == prometheus::proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), counter, "{name}");
            assert!(family.help().ends_with('.'), "{name}");
        }
        assert!(OwnMetrics::register(&registry).is_err());
    }
}
