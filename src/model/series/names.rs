//! Names of metrics and labels, and the limits on one point.
//!
//! Not the labels of a series, which are in [`super::labels`].
//! Invariant: the rules are those of the Prometheus data model in its classic form
//! (<https://prometheus.io/docs/concepts/data_model/>): ASCII only, so that every name can stand
//! unquoted in the text format.

use serde::Deserialize;

use crate::model::{Invalid, settings};

/// Limits on one point, all in bytes or counts.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PointLimits {
    /// The longest metric or label name, in bytes.
    #[serde(deserialize_with = "settings::count")]
    pub name_bytes: usize,
    /// The longest label value, in bytes before escaping.
    #[serde(deserialize_with = "settings::count")]
    pub label_value_bytes: usize,
    /// The most labels of one series.
    #[serde(deserialize_with = "settings::count")]
    pub labels: usize,
    /// The longest help text, in bytes.
    #[serde(deserialize_with = "settings::count")]
    pub help_bytes: usize,
}

impl Default for PointLimits {
    fn default() -> Self {
        Self { name_bytes: 256, label_value_bytes: 4096, labels: 64, help_bytes: 4096 }
    }
}

/// What the names of the server's own metrics begin with. No other series with such a name is shown on /metrics.
pub const OWN_PREFIX: &str = "holdall_";

/// Returns whether `name` is a metric name of the classic data model.
pub fn is_metric_name(name: &[u8]) -> bool {
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b':';
    name.first().is_some_and(|&b| head(b)) && name.iter().all(|&b| head(b) || b.is_ascii_digit())
}

/// Returns whether `name` is a label name of the classic data model.
pub fn is_label_name(name: &[u8]) -> bool {
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.first().is_some_and(|&b| head(b)) && name.iter().all(|&b| head(b) || b.is_ascii_digit())
}

/// Checks a metric name against the data model and the limits.
///
/// # Errors
/// When it is not a metric name, or too long.
pub fn check_metric_name(name: &str, limits: &PointLimits) -> Result<(), Invalid> {
    if !is_metric_name(name.as_bytes()) {
        return Err(Invalid::new(format!("{:?} is not a metric name", clip(name))));
    }
    if name.len() > limits.name_bytes {
        return Err(Invalid::new(format!(
            "a metric name of more than {} bytes",
            limits.name_bytes
        )));
    }
    Ok(())
}

/// Returns the start of `text` for an error message: at most 64 bytes, cut between characters.
pub(super) fn clip(text: &str) -> &str {
    let mut end = text.len().min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
