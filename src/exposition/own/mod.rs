//! The own metrics, `holdall_...`: their names, help texts and handles.
//!
//! Not the values of the store and of caches, which are set by the refresher.
//! Invariant: every name begins with [`OWN_PREFIX`](crate::model::series::OWN_PREFIX), also those of the process, so that
//! no mirrored series, such as another exporter's `process_cpu_seconds_total`, can have the same name.

pub mod aggregates;
pub(super) mod export;
mod gauge_family;
mod process;
mod store_client;
pub(super) mod totals;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use self::aggregates::OperationMetrics;
pub use self::gauge_family::GaugeFamily;
use self::process::ProcessCollector;
pub use self::store_client::{ClientMetricNames, ClientMetrics};

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
    /// Requests that were responded to, by `method`, `route` (the matched one, never the path) and `status`.
    pub http_requests: IntCounterVec,
    /// How long requests took, by `route`.
    pub http_duration: HistogramVec,
    /// Requests that are being served now.
    pub http_in_flight: IntGauge,
    /// Permits that requests have now, by `kind`.
    pub http_permits: IntGaugeVec,
    /// Lines that the log has dropped.
    pub log_dropped_lines: IntCounter,
    /// How long refreshes took.
    pub refresh_duration: Histogram,
    /// Refreshes that failed.
    pub refresh_failures: IntCounter,
    /// The age of the pages; set by each scrape.
    pub page_age: Gauge,
    /// Mirrored series.
    pub mirrored_series: IntGauge,
    /// Pushed samples that are not mirrored because their names are reserved.
    pub mirror_clashes: IntCounter,
    /// How far the system's clock was set forward since the start; negative when it was set back.
    pub clock_offset: Gauge,
    /// When each background task last succeeded, by `task`, in seconds since 1970; 0 before.
    pub task_last_success: GaugeVec,
    /// Ticks of background tasks that failed, by `task`.
    pub task_failures: IntCounterVec,
    /// Cache hits, by `cache` and `namespace`. The cache `values` has the namespaces of the clients; all other
    /// caches are internal and have none.
    pub cache_hits: IntCounterVec,
    /// Cache misses, by `cache`, `namespace` and `reason`.
    pub cache_misses: IntCounterVec,
    /// The metrics of the operations on aggregates.
    pub aggregate_operations: OperationMetrics,
    /// The metrics of the store.
    pub store: StoreMetrics,
}

/// The metrics of the store, as of the last refresh.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// 1 when the store responded.
    pub up: IntGauge,
    /// The number of entries, by `resource`.
    pub entries: GaugeFamily,
    /// The most entries, by `resource`, where their number has a limit.
    pub limits: GaugeFamily,
    /// The most bytes, by `resource`, where they have a limit.
    pub bytes_limits: GaugeFamily,
    /// The size of the entries, by `resource`, where it is bounded in bytes.
    pub bytes: GaugeFamily,
    /// Buffered writes that are not on disk yet.
    pub unflushed: IntGauge,
    /// The age of the oldest of these writes.
    pub oldest_unflushed: Gauge,
    /// Flushes that failed.
    pub flush_failures: IntCounter,
    /// Commits that failed.
    pub commit_failures: IntCounter,
    /// The client of a store on the network.
    pub client: ClientMetrics,
    /// Committed groups of durable writes.
    pub commits: IntCounter,
    /// Committed durable writes.
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
                "HTTP requests that were responded to.",
                &["method", "route", "status"],
            )?,
            http_duration: r.add(HistogramVec::new(
                HistogramOpts::new(
                    "holdall_http_request_duration_seconds",
                    "Time from the head of an HTTP request to the head of its response.",
                )
                .buckets(REQUEST_SECONDS.to_vec()),
                &["route"],
            )?)?,
            http_in_flight: r
                .int_gauge("holdall_http_requests_in_flight", "HTTP requests being served.")?,
            http_permits: r.add(IntGaugeVec::new(
                Opts::new("holdall_http_permits_in_use", "Permits that HTTP requests have."),
                &["kind"],
            )?)?,
            log_dropped_lines: r.counter(
                "holdall_log_dropped_lines_total",
                "Lines of the log that found no room, or could not be written.",
            )?,
            refresh_duration: r.add(Histogram::with_opts(
                HistogramOpts::new(
                    "holdall_refresh_duration_seconds",
                    "Time to bring the mirrored series up to date.",
                )
                .buckets(REFRESH_SECONDS.to_vec()),
            )?)?,
            refresh_failures: r.counter(
                "holdall_refresh_failures_total",
                "Refreshes of the mirrored series that failed; the last pages stay.",
            )?,
            page_age: r.gauge(
                "holdall_page_age_seconds",
                "Time since the mirrored series were last brought up to date.",
            )?,
            mirrored_series: r
                .int_gauge("holdall_mirrored_series", "Pushed series shown on /metrics.")?,
            mirror_clashes: r.counter(
                "holdall_mirror_clashes_total",
                "Pushed samples that are not shown on /metrics because their names are reserved for holdall.",
            )?,
            clock_offset: r.gauge(
                "holdall_clock_offset_seconds",
                "How far the system's clock was set forward since the start of the server; negative when it was set back.",
            )?,
            task_last_success: r.add(GaugeVec::new(
                Opts::new(
                    "holdall_task_last_success_timestamp_seconds",
                    "When the background task last succeeded, since 1970; 0 before its first success.",
                ),
                &["task"],
            )?)?,
            task_failures: r.counters(
                "holdall_task_failures_total",
                "Runs of the background task that failed; it is tried again after its interval.",
                &["task"],
            )?,
            cache_hits: r.counters(
                "holdall_cache_hits_total",
                "Cache lookups that found a value.",
                &["cache", "namespace"],
            )?,
            cache_misses: r.counters(
                "holdall_cache_misses_total",
                "Cache lookups that did not find a value.",
                &["cache", "namespace", "reason"],
            )?,
            aggregate_operations: OperationMetrics::register(registry)?,
            store: StoreMetrics::register(&r)?,
        })
    }

    /// Returns the registry that holds them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts one request that was responded to.
    pub fn observe_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.http_requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.http_duration.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}

impl StoreMetrics {
    fn register(r: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            up: r.int_gauge(
                "holdall_store_up",
                "1 when the store responded to the last refresh, otherwise 0.",
            )?,
            entries: r.add(GaugeFamily::new(
                "holdall_store_entries",
                "Entries in the store, by resource.",
                &["resource"],
            )?)?,
            limits: r.add(GaugeFamily::new(
                "holdall_store_entries_limit",
                "The most live entries that the store takes, by resource.",
                &["resource"],
            )?)?,
            bytes_limits: r.add(GaugeFamily::new(
                "holdall_store_bytes_limit",
                "The most bytes of all entries that the store takes, by resource.",
                &["resource"],
            )?)?,
            bytes: r.add(GaugeFamily::new(
                "holdall_store_bytes",
                "Size of the entries with their keys, by resource.",
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
            commit_failures: r.counter(
                "holdall_store_commit_failures_total",
                "Groups of durable writes whose commit failed.",
            )?,
            client: r.add(ClientMetrics::new(ClientMetricNames {
                duration: (
                    "holdall_store_round_trip_duration_seconds",
                    "Duration of round trips to the store.",
                ),
                failures: (
                    "holdall_store_round_trip_failures_total",
                    "Round trips to the store that failed, timed out or were refused.",
                ),
                in_flight: (
                    "holdall_store_round_trips_in_flight",
                    "Round trips to the store in flight.",
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
        let opts =
            Opts::new("holdall_build_info", "The version of the server; the value is always 1.");
        let info = self.add(GaugeVec::new(opts, &["version"])?)?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::OWN_PREFIX;

    #[test]
    fn every_name_has_the_prefix_and_follows_the_conventions() {
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
