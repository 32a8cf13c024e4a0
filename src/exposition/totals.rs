//! Totals that other parts keep, made into counters that never go down.
//!
//! A cache counts its own hits and misses; the refresher takes over the difference since its last
//! look. Invariant: a counter grows by exactly what its source counted, and when a source starts
//! again at 0 it grows by what was counted since.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};

use crate::engine;
use crate::model::cache::{MissReason, Namespace};

/// Totals of a cache, or of a part of it, since it was made.
#[derive(Debug, Clone, Copy)]
pub struct CacheTotal<'a> {
    /// The part, the value of a label: one of a bounded number; empty where there are no parts.
    pub namespace: &'a str,
    /// How many lookups found what they sought.
    pub hits: u64,
    /// How many did not, by reason, the value of a label: one of few.
    pub misses: &'a [(&'static str, u64)],
}

/// A cache that counts its lookups.
pub trait CacheTotals: Send + Sync {
    /// Returns the cache's name, the value of a label: one of few.
    fn name(&self) -> &str;
    /// Calls `each` with all totals, those of each namespace once.
    fn for_each(&self, each: &mut dyn FnMut(CacheTotal<'_>));
}

impl CacheTotals for engine::cache::Totals {
    fn name(&self) -> &'static str {
        "values"
    }

    fn for_each(&self, each: &mut dyn FnMut(CacheTotal<'_>)) {
        self.for_each(|namespace, totals| {
            let hits = totals.hits();
            let misses = MissReason::ALL.map(|reason| (reason.as_str(), totals.misses(reason)));
            // Most servers never have more namespaces than are counted apart.
            if namespace.is_some() || hits > 0 || misses.iter().any(|(_, count)| *count > 0) {
                let namespace = namespace.map(Namespace::as_str).unwrap_or_default();
                each(CacheTotal { namespace, hits, misses: &misses });
            }
        });
    }
}

/// The caches whose totals are shown.
#[derive(Default)]
pub struct CacheRegistry {
    sources: Mutex<Vec<Arc<dyn CacheTotals>>>,
    seen: Mutex<HashMap<String, SeenCache>>,
}

/// The last totals of one cache, by namespace.
type SeenCache = HashMap<String, SeenTotal>;

#[derive(Default)]
struct SeenTotal {
    hits: Seen,
    misses: HashMap<&'static str, Seen>,
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

    /// Adds to the counters what was counted since the last call. `hits` has the labels `cache`
    /// and `namespace`, `misses` also `reason`.
    pub fn mirror(&self, hits: &IntCounterVec, misses: &IntCounterVec) {
        let sources = self.sources.lock().clone();
        let mut seen = self.seen.lock();
        for source in sources {
            let cache = source.name();
            let seen = seen.entry(cache.to_owned()).or_default();
            source.for_each(&mut |total| {
                if !seen.contains_key(total.namespace) {
                    seen.insert(total.namespace.to_owned(), SeenTotal::default());
                }
                let Some(seen) = seen.get_mut(total.namespace) else { return };
                let labels = [cache, total.namespace];
                hits.with_label_values(&labels).inc_by(seen.hits.growth(total.hits));
                for (reason, count) in total.misses {
                    let growth = seen.misses.entry(reason).or_default().growth(*count);
                    misses.with_label_values(&[cache, total.namespace, reason]).inc_by(growth);
                }
            });
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
    pub fn replace_all<'a, L: AsRef<[&'a str]>>(
        &self,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> prometheus::Result<()> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let fresh = GaugeVec::new(self.opts.clone(), &labels)?;
        for (label_values, value) in values {
            fresh.get_metric_with_label_values(label_values.as_ref())?.set(value);
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

    /// Hits, and misses for two reasons, of the namespace `n`.
    #[derive(Default)]
    struct Source([AtomicU64; 3]);

    impl Source {
        fn set(&self, totals: [u64; 3]) {
            for (total, to) in self.0.iter().zip(totals) {
                total.store(to, Ordering::Relaxed);
            }
        }
    }

    impl CacheTotals for Source {
        fn name(&self) -> &'static str {
            "source"
        }

        fn for_each(&self, each: &mut dyn FnMut(CacheTotal<'_>)) {
            let [hits, stale, expired] = [0, 1, 2].map(|i| self.0[i].load(Ordering::Relaxed));
            let misses = &[("stale", stale), ("expired", expired)];
            each(CacheTotal { namespace: "n", hits, misses });
            each(CacheTotal { namespace: "", hits: hits * 10, misses: &[] });
        }
    }

    fn counters() -> (IntCounterVec, IntCounterVec) {
        let counter = |name: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, "help"), labels).expect("valid")
        };
        (
            counter("hits", &["cache", "namespace"]),
            counter("misses", &["cache", "namespace", "reason"]),
        )
    }

    #[test]
    fn totals_are_taken_over_once_and_never_count_down() {
        let (hits, misses) = counters();
        let shown = || {
            let missed = |reason| misses.with_label_values(&["source", "n", reason]).get();
            let hit = |namespace| hits.with_label_values(&["source", namespace]).get();
            [hit("n"), hit(""), missed("stale"), missed("expired")]
        };
        let registry = CacheRegistry::default();
        let source = Arc::new(Source::default());
        registry.register(Arc::clone(&source) as _);
        source.set([5, 2, 1]);
        registry.mirror(&hits, &misses);
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), [5, 50, 2, 1]);
        source.set([3, 2, 4]);
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), [8, 80, 2, 4]);
        let restarted = Source::default();
        restarted.set([1, 1, 0]);
        registry.register(Arc::new(restarted));
        registry.mirror(&hits, &misses);
        assert_eq!(shown(), [9, 90, 3, 4]);
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
        gauge.replace_all([(["a"], 1.0), (["b"], 2.0)]).expect("one label");
        assert_eq!(shown(), [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        gauge.replace_all([(["b"], 3.0)]).expect("one label");
        assert_eq!(shown(), [("b".to_owned(), 3.0)]);
        assert!(gauge.replace_all([(["b", "c"], 3.0)]).is_err());
        assert_eq!(shown(), [("b".to_owned(), 3.0)]);
    }
}
