//! Types of metrics, and the metadata of a family.
//!
//! Not the choice between writers that contradict each other: the mirror of `exposition` makes it.
//! Invariant: the types are those of OpenMetrics 1.0, which include those of the text format.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::clip;
use crate::model::Invalid;

/// The type of a metric. What the text format calls `untyped` is `unknown` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// A total that only grows, or restarts at 0.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
    /// Quantiles with a sum and a count.
    Summary,
    /// A histogram whose buckets can go down.
    GaugeHistogram,
    /// Information as labels, with the value 1.
    Info,
    /// A set of states, one series each.
    StateSet,
    /// The type is not known.
    #[serde(alias = "untyped")]
    Unknown,
}

impl MetricType {
    /// Reads the word of a `# TYPE` line, of either text format.
    ///
    /// # Errors
    /// When it is not the name of a type.
    pub fn parse(word: &str) -> Result<Self, Invalid> {
        Ok(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            "gaugehistogram" => Self::GaugeHistogram,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => {
                return Err(Invalid::new(format!("{:?} is not a metric type", clip(word))));
            }
        })
    }

    /// Returns the word that OpenMetrics uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the name of the family that the sample `name` would belong to if that family had this
    /// type: `x_bucket`, `x_sum` and `x_count` of a histogram belong to `x`.
    ///
    /// Counters are named as in the text format: `x_total` is a family of its own.
    pub fn family_of(self, name: &str) -> &str {
        let suffixes: &[&str] = match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["_sum", "_count"],
            Self::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            _ => &[],
        };
        suffixes
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| !family.is_empty())
            .unwrap_or(name)
    }
}

/// Type, help text and unit of a family, as one writer gave them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// The family's type.
    pub metric_type: MetricType,
    /// The family's help text, unescaped; empty when there is none.
    pub help: Arc<str>,
    /// The family's unit; empty when there is none.
    pub unit: Arc<str>,
}

impl Metadata {
    /// Returns the length of its texts, in bytes.
    pub fn text_bytes(&self) -> usize {
        self.help.len() + self.unit.len()
    }
}
