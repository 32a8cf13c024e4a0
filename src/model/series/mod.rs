//! Series: names, canonical labels, keys and ids, samples and metadata.
//!
//! Plain data; which series exist, and for how long, is decided by the stores.
//! Invariant: a series' key is canonical text, so that keys are compared and hashed as text.

mod key;
mod labels;
mod metadata;
mod names;

pub use self::key::{SeriesId, SeriesKey};
pub use self::labels::{canonicalize, escape_label_value, split_canonical, unescape_label_value};
pub use self::metadata::{Metadata, MetricType};
pub use self::names::{OWN_PREFIX, PointLimits, check_metric_name, is_label_name, is_metric_name};

use std::sync::Arc;

use super::time::Timestamp;

/// A value, and the time at which it was taken.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Any float; every NaN is stored as the same quiet NaN.
    pub value: f64,
    /// When the value was taken.
    pub updated_at: Timestamp,
}

/// Compares bits, so that NaN equals itself and `-0` differs from `0`.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.updated_at == other.updated_at
    }
}

/// A series with its newest sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The identity.
    pub key: SeriesKey,
    /// The newest value.
    pub sample: Sample,
    /// The metadata that the last writer which sent any gave for the family.
    pub metadata: Option<Arc<Metadata>>,
}
