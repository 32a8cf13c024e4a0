//! What a value looks like as samples of a metric.
//!
//! Not the names and labels of the series, which whoever exports the values chooses. Invariant: the samples of a kind
//! belong to one family of the type that the kind names.

/// One sample of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricSample {
    /// What is appended to the name of the family, such as `_sum`.
    pub suffix: &'static str,
    /// The value of the label `quantile`, where the sample is a quantile.
    pub quantile: Option<f64>,
    /// The number.
    pub value: f64,
}

impl MetricSample {
    /// Makes the sample of a value that is one number.
    pub(super) fn plain(value: f64) -> Self {
        Self { suffix: "", quantile: None, value }
    }

    /// Makes the sample of an integer. Beyond 2^53 it is rounded, as every sample of Prometheus is.
    #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
    pub(super) fn integer(value: i64) -> Self {
        Self::plain(value as f64)
    }
}
