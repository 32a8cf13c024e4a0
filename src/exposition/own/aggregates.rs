//! The metrics of aggregates: what became of the updates of each pipeline, how long its operations take, and what of it
//! is exported.
//!
//! Invariant: only declared pipelines are labels, so the number of series is bounded.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::engine::Engine;
use crate::engine::aggregates::{DeclaredPipeline, UpdateFate};
use crate::store::timed::{OperationRecorder, OperationTimer};

/// The bounds of the durations of operations, in seconds.
const OPERATION_SECONDS: &[f64] =
    &[0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The durations and failures of operations, by `operation`.
#[derive(Debug, Clone)]
pub struct OperationMetrics {
    duration: HistogramVec,
    failures: IntCounterVec,
}

impl OperationMetrics {
    /// Makes the metrics and registers them in `registry`.
    ///
    /// # Errors
    /// When a name is registered there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(
            "holdall_aggregate_operation_duration_seconds",
            "Duration of operations on aggregates, by pipeline and operation.",
        );
        let by = &["operation"];
        let duration = HistogramVec::new(opts.buckets(OPERATION_SECONDS.to_vec()), by)?;
        let opts = Opts::new(
            "holdall_aggregate_operation_failures_total",
            "Operations on aggregates that failed, by pipeline and operation.",
        );
        let failures = IntCounterVec::new(opts, by)?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self { duration, failures })
    }
}

/// The metrics of one operation.
struct OperationMetric {
    duration: Histogram,
    failures: IntCounter,
}

impl OperationRecorder for OperationMetrics {
    fn timer(&self, operation: &str) -> Arc<dyn OperationTimer> {
        let by = &[operation];
        let duration = self.duration.with_label_values(by);
        Arc::new(OperationMetric { duration, failures: self.failures.with_label_values(by) })
    }
}

impl OperationTimer for OperationMetric {
    fn record(&self, took: Duration, failed: bool) {
        self.duration.observe(took.as_secs_f64());
        if failed {
            self.failures.inc();
        }
    }
}

/// Shows what the engine counts about updates and exports.
pub struct PipelineCollector {
    engine: Arc<Engine>,
    desc: Vec<Desc>,
}

impl PipelineCollector {
    /// Shows the totals of `engine`.
    ///
    /// # Errors
    /// Never: the names and the labels are valid.
    pub fn new(engine: Arc<Engine>) -> prometheus::Result<Self> {
        let families = Families::new()?;
        let exports = families.exports.iter().flat_map(Collector::desc);
        let desc = families.updates.desc().into_iter().chain(exports).cloned().collect();
        Ok(Self { engine, desc })
    }
}

/// The families, made anew for each scrape.
struct Families {
    updates: IntCounterVec,
    /// The exported entities, those of them that are not shown, and whether there are more.
    exports: [IntGaugeVec; 3],
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let opts = Opts::new(
            "holdall_aggregate_updates_total",
            "Updates of aggregates, by pipeline and what became of them.",
        );
        let updates = IntCounterVec::new(opts, &["pipeline", "outcome"])?;
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["pipeline"]);
        let exports = [
            gauge(
                "holdall_exported_entities",
                "Entities whose values are exported to /metrics, by pipeline.",
            )?,
            gauge(
                "holdall_exported_unreadable_entities",
                "Exported entities that have no series, since they are no labels or their values no numbers.",
            )?,
            gauge(
                "holdall_export_truncated",
                "1 while a pipeline has more entities than it may export, 0 otherwise.",
            )?,
        ];
        Ok(Self { updates, exports })
    }

    fn fill(&self, declared: &DeclaredPipeline) {
        let name = declared.pipeline().name.as_str();
        for fate in UpdateFate::ALL {
            let counter = self.updates.with_label_values(&[name, fate.as_str()]);
            counter.inc_by(declared.totals().get(fate));
        }
        let Some(export) = declared.export() else { return };
        let values = [export.entities(), export.unreadable(), usize::from(export.is_truncated())];
        for (gauge, value) in self.exports.iter().zip(values) {
            gauge.with_label_values(&[name]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

impl Collector for PipelineCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        for declared in self.engine.aggregates.pipelines() {
            families.fill(declared);
        }
        let exports = families.exports.iter().flat_map(Collector::collect);
        families.updates.collect().into_iter().chain(exports).collect()
    }
}
