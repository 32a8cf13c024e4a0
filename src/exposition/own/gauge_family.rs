//! A gauge by label set that is replaced as a whole.
//!
//! Not for gauges that are set one by one. Invariant: exactly the label sets of the last replacement are
//! shown, so that one which no longer exists does not keep its old value.

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// A gauge by label set. Its values are always replaced as a whole.
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
    /// When the name, the help text or a label is invalid.
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
    /// When the number of label values differs from that of the labels; then nothing is changed.
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
    use super::*;

    #[test]
    fn a_label_set_that_is_not_replaced_is_removed() {
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
