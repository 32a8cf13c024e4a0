//! Counters that follow totals which other parts of the server count.
//!
//! A cache counts its own hits and misses; the refresher adds the increase since its last tick to
//! the counters. Invariant: a counter grows by exactly what its source counted. When a source restarts at 0,
//! the counter grows by what was counted since the restart.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntCounterVec;

use crate::engine;
use crate::model::cache::{MissReason, Namespace};

/// Totals of a cache, or of one namespace of it, since the cache was made.
#[derive(Debug, Clone, Copy)]
pub struct CacheTotal<'a> {
    /// The namespace, for a label: one of a bounded number; empty for a cache without namespaces.
    pub namespace: &'a str,
    /// The number of lookups that found a value.
    pub hits: u64,
    /// The number of the others, by reason, for a label.
    pub misses: &'a [(&'static str, u64)],
}

/// A cache that counts its lookups.
pub trait CacheTotals: Send + Sync {
    /// Returns the name of the cache, for a label.
    fn name(&self) -> &str;
    /// Calls `each` once with the totals of each namespace.
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
            // The totals of all namespaces beyond the bound: most servers have none.
            if namespace.is_some() || hits > 0 || misses.iter().any(|(_, count)| *count > 0) {
                let namespace = namespace.map(Namespace::as_str).unwrap_or_default();
                each(CacheTotal { namespace, hits, misses: &misses });
            }
        });
    }
}

/// The caches whose totals become metrics.
#[derive(Default)]
pub struct CacheRegistry {
    sources: Mutex<Vec<Arc<dyn CacheTotals>>>,
    last: Mutex<HashMap<String, LastCacheTotals>>,
}

/// The last totals of one cache, by namespace.
type LastCacheTotals = HashMap<String, LastCacheTotal>;

#[derive(Default)]
struct LastCacheTotal {
    hits: LastTotal,
    misses: HashMap<&'static str, LastTotal>,
}

impl std::fmt::Debug for CacheRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRegistry").finish_non_exhaustive()
    }
}

impl CacheRegistry {
    /// Adds a cache. It replaces one of the same name: it is the same cache after a restart.
    pub fn register(&self, source: Arc<dyn CacheTotals>) {
        let mut sources = self.sources.lock();
        sources.retain(|s| s.name() != source.name());
        self.last.lock().remove(source.name());
        sources.push(source);
    }

    /// Adds to the counters what was counted since the last call. `hits` has the labels `cache`
    /// and `namespace`, `misses` also `reason`.
    pub fn update_counters(&self, hits: &IntCounterVec, misses: &IntCounterVec) {
        let sources = self.sources.lock().clone();
        let mut last = self.last.lock();
        for source in sources {
            let cache = source.name();
            let last = last.entry(cache.to_owned()).or_default();
            source.for_each(&mut |total| {
                if !last.contains_key(total.namespace) {
                    last.insert(total.namespace.to_owned(), LastCacheTotal::default());
                }
                let Some(last) = last.get_mut(total.namespace) else { return };
                let labels = [cache, total.namespace];
                hits.with_label_values(&labels).inc_by(last.hits.increase(total.hits));
                for (reason, count) in total.misses {
                    let increase = last.misses.entry(reason).or_default().increase(*count);
                    misses.with_label_values(&[cache, total.namespace, reason]).inc_by(increase);
                }
            });
        }
    }
}

/// The last total of a source.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::exposition) struct LastTotal(u64);

impl LastTotal {
    /// Stores a total; returns the increase since the last one. A smaller total means that the source was
    /// restarted: then all of it is new.
    pub(in crate::exposition) fn increase(&mut self, total: u64) -> u64 {
        let last = std::mem::replace(&mut self.0, total);
        total.checked_sub(last).unwrap_or(total)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use prometheus::Opts;

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
    fn counters_grow_by_the_increase_of_totals_and_never_decrease() {
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
        registry.update_counters(&hits, &misses);
        registry.update_counters(&hits, &misses);
        assert_eq!(shown(), [5, 50, 2, 1]);
        source.set([3, 2, 4]);
        registry.update_counters(&hits, &misses);
        assert_eq!(shown(), [8, 80, 2, 4]);
        let restarted = Source::default();
        restarted.set([1, 1, 0]);
        registry.register(Arc::new(restarted));
        registry.update_counters(&hits, &misses);
        assert_eq!(shown(), [9, 90, 3, 4]);
    }
}
