//! Hits and misses, by namespace.
//!
//! Namespaces that hold values are counted separately, and so are the first others that are looked up; lookups in
//! further ones are counted together. Invariant: the totals only grow, and there are never more of them than twice
//! the bound on namespaces.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use crate::model::cache::{MissReason, Namespace};

/// The totals of one namespace.
#[derive(Debug, Default)]
pub struct NamespaceTotals {
    hits: AtomicU64,
    misses: [AtomicU64; MissReason::ALL.len()],
}

impl NamespaceTotals {
    /// Counts a lookup, as a hit where there is no reason for a miss.
    pub(super) fn count(&self, miss: Option<MissReason>) {
        let total = miss.map_or(&self.hits, |reason| &self.misses[reason as usize]);
        total.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of hits.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Returns the number of misses with this reason.
    pub fn misses(&self, reason: MissReason) -> u64 {
        self.misses[reason as usize].load(Ordering::Relaxed)
    }
}

/// The totals of all namespaces.
#[derive(Debug)]
pub struct Totals {
    max_namespaces: usize,
    by_namespace: RwLock<HashMap<Namespace, Arc<NamespaceTotals>, RandomState>>,
    others: Arc<NamespaceTotals>,
}

impl Totals {
    pub(super) fn new(max_namespaces: usize) -> Self {
        Self { max_namespaces, by_namespace: RwLock::default(), others: Arc::default() }
    }

    /// Returns the totals of a namespace that is looked up.
    pub(super) fn of(&self, namespace: &Namespace) -> Arc<NamespaceTotals> {
        self.within(self.max_namespaces, namespace)
    }

    /// Counts a namespace separately from now on, since it holds a value. Lookups in empty namespaces can't deny it
    /// that: they have half of the entries at most.
    pub(super) fn name(&self, namespace: &Namespace) {
        self.within(self.max_namespaces.saturating_mul(2), namespace);
    }

    fn within(&self, bound: usize, namespace: &Namespace) -> Arc<NamespaceTotals> {
        if let Some(known) = self.by_namespace.read().get(namespace) {
            return Arc::clone(known);
        }
        let mut by_namespace = self.by_namespace.write();
        if by_namespace.len() >= bound && !by_namespace.contains_key(namespace) {
            return Arc::clone(&self.others);
        }
        Arc::clone(by_namespace.entry(namespace.clone()).or_default())
    }

    /// Calls `each` with every namespace that is counted separately and its totals, and with the totals of all others
    /// together, which have no name.
    pub fn for_each(&self, mut each: impl FnMut(Option<&Namespace>, &NamespaceTotals)) {
        for (namespace, totals) in &*self.by_namespace.read() {
            each(Some(namespace), totals);
        }
        each(None, &self.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_holds_values_is_counted_separately_whatever_else_is_looked_up() {
        let totals = Totals::new(2);
        let of = |name: String| Namespace::parse(name).expect("valid");
        for n in 0..10 {
            totals.of(&of(format!("looked up {n}"))).count(Some(MissReason::Absent));
        }
        for n in 0..10 {
            totals.name(&of(format!("held {n}")));
            totals.of(&of(format!("held {n}"))).count(None);
        }
        let mut hits = Vec::new();
        totals.for_each(|namespace, totals| {
            hits.push((namespace.map(|n| n.as_str().to_owned()), totals.hits()));
        });
        hits.sort();
        let named = ["held 0", "held 1", "looked up 0", "looked up 1"].map(|n| Some(n.to_owned()));
        let expected = [None].into_iter().chain(named).zip([8, 1, 1, 0, 0]).collect::<Vec<_>>();
        assert_eq!(hits, expected);
    }

    #[test]
    fn lookups_beyond_the_bound_are_counted_together() {
        let totals = Totals::new(2);
        for (name, reason) in [
            ("a", None),
            ("a", Some(MissReason::Stale)),
            ("b", Some(MissReason::Absent)),
            ("c", Some(MissReason::Evicted)),
            ("d", None),
        ] {
            totals.of(&Namespace::parse(name).expect("valid")).count(reason);
        }
        let mut seen = Vec::new();
        totals.for_each(|namespace, totals| {
            let name = namespace.map(|n| n.as_str().to_owned());
            seen.push((name, totals.hits(), MissReason::ALL.map(|r| totals.misses(r))));
        });
        seen.sort();
        assert_eq!(
            seen,
            [
                (None, 1, [0, 0, 0, 1]),
                (Some("a".to_owned()), 1, [0, 0, 1, 0]),
                (Some("b".to_owned()), 0, [1, 0, 0, 0]),
            ]
        );
    }
}
