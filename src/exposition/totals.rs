//! Totals that other parts keep, made into counters that never go down.
//!
//! A cache counts its own hits and misses; the refresher takes over the difference since its last
//! look. Invariant: a counter grows by exactly what its source counted, and when a source starts
//! again at 0 it grows by what was counted since.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};
use std::collections::HashMap;

/// The totals of one cache, since it was made.
pub trait CacheTotals: Send + Sync {
    /// Gives the cache's name, the value of a label: one of few.
    fn name(&self) -> &str;
    /// Gives how many lookups found what they sought.
    fn hits(&self) -> u64;
    /// Gives how many lookups did not.
    fn misses(&self) -> u64;
}

/// The caches whose totals are shown.
#[derive(Default)]
pub struct CacheRegistry {
    sources: Mutex<Vec<Arc<dyn CacheTotals>>>,
    seen: Mutex<HashMap<String, (Seen, Seen)>>,
}

impl std::fmt::Debug for CacheRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRegistry").finish_non_exhaustive()
    }
}

impl CacheRegistry {
    /// Adds a cache. One of the same name takes the place of the former: it is the same cache,
    /// started again.
    pub fn register(&self, source: Arc<dyn CacheTotals>) {
        let mut sources = self.sources.lock();
        sources.retain(|s| s.name() != source.name());
        self.seen.lock().remove(source.name());
        sources.push(source);
    }

    /// Adds to the counters, which have the label `cache`, what was counted since the last call.
    pub fn mirror(&self, hits: &IntCounterVec, misses: &IntCounterVec) {
        let sources = self.sources.lock().clone();
        let mut seen = self.seen.lock();
        for source in sources {
            let name = source.name();
            let (seen_hits, seen_misses) = seen.entry(name.to_owned()).or_default();
            hits.with_label_values(&[name]).inc_by(seen_hits.growth(source.hits()));
            misses.with_label_values(&[name]).inc_by(seen_misses.growth(source.misses()));
        }
    }
}

/// The last total of a source.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen(u64);

impl Seen {
    /// Notes a total; gives how much was counted since the last one. A smaller total
    /// means that the source started again: all of it is new.
    pub fn growth(&mut self, total: u64) -> u64 {
        let before = std::mem::replace(&mut self.0, total);
        total.checked_sub(before).unwrap_or(total)
    }
}

/// A gauge by label set that is always replaced as a whole, so that a label set which is there no
/// more does not stay.
#[derive(Clone)]
pub struct GaugeFamily {
    opts: Opts,
    labels: Vec<String>,
    desc: Vec<Desc>,
    values: Arc<RwLock<GaugeVec>>,
}

impl std::fmt::Debug for GaugeFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GaugeFamily").field("name", &self.opts.name).finish_non_exhaustive()
    }
}

impl GaugeFamily {
    /// Makes a family without values.
    ///
    /// # Errors
    /// When the name, the help or a label is not a valid one.
    pub fn new(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self> {
        let opts = Opts::new(name, help);
        let values = GaugeVec::new(opts.clone(), labels)?;
        Ok(Self {
            opts,
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            desc: values.desc().into_iter().cloned().collect(),
            values: Arc::new(RwLock::new(values)),
        })
    }

    /// Sets the family to exactly `values`: label values in the order of the labels, and
    /// the value.
    ///
    /// # Errors
    /// When a set of label values has not the length of the labels; nothing is changed then.
    pub fn replace_all<'a>(
        &self,
        values: impl IntoIterator<Item = (&'a [&'a str], f64)>,
    ) -> prometheus::Result<()> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let fresh = GaugeVec::new(self.opts.clone(), &labels)?;
        for (label_values, value) in values {
            fresh.get_metric_with_label_values(label_values)?.set(value);
        }
        *self.values.write() = fresh;
        Ok(())
    }
}

impl Collector for GaugeFamily {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.values.read().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Source(AtomicU64, AtomicU64);

    impl CacheTotals for Source {
        fn name(&self) -> &'static str {
            "source"
        }

        fn hits(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn misses(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn counter(name: &str) -> IntCounterVec {
        IntCounterVec::new(Opts::new(name, "help"), &["cache"]).expect("valid")
    }

    #[test]
    fn totals_are_taken_over_once_and_never_count_down() {
        let (hits, misses) = (counter("hits"), counter("misses"));
        let shown = || {
            let value = |c: &IntCounterVec| c.with_label_values(&["source"]).get();
            (value(&hits), value(&misses))
        };
        let registry = CacheRegistry::default();
        let source = Arc::new(Source::default());
        registry.register(Arc::clone(&source) as _);
        source.0.store(5, Ordering::Relaxed);
        source.1.store(2, Ordering::Relaxed);
        registry.mirror(&hits, &misses);
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), (5, 2));
        source.0.store(3, Ordering::Relaxed);
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), (8, 2));
        let restarted = Arc::new(Source(AtomicU64::new(1), AtomicU64::new(1)));
        registry.register(restarted);
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), (9, 3));
    }

    #[test]
    fn a_label_set_that_dropped_away_does_not_stay() {
        let gauge = GaugeFamily::new("items", "help", &["kind"]).expect("valid");
        let shown = || {
            let families = gauge.collect();
            let metrics = families.first().map(|f| f.get_metric().to_vec()).unwrap_or_default();
            let mut shown: Vec<_> = metrics
                .iter()
                .map(|m| (m.get_label()[0].value().to_owned(), m.get_gauge().get_value()))
                .collect();
            shown.sort_by(|a, b| a.0.cmp(&b.0));
            shown
        };
        gauge.replace_all([(&["a"][..], 1.0), (&["b"], 2.0)]).expect("one label");
        assert_eq!(shown(), [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        gauge.replace_all([(&["b"][..], 3.0)]).expect("one label");
        assert_eq!(shown(), [("b".to_owned(), 3.0)]);
        assert!(gauge.replace_all([(&["b", "c"][..], 3.0)]).is_err());
        assert_eq!(shown(), [("b".to_owned(), 3.0)]);
    }
}
