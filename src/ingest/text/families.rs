//! The metric families that a text body has declared so far, and the family of each sample.
//!
//! Not the families of /metrics, which are decided from all series.
//!
//! Invariant: in OpenMetrics, type and unit of a family never change once it has a sample. In the text format the last
//! declaration counts, for all samples of the family, as in Prometheus' own parser.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, PointBatch};
use crate::model::series::{Metadata, MetricType};

/// How the names of samples follow from the name of their family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// As in the text format: `x_bucket` of a histogram `x`, but a counter's samples have its own name.
    Text,
    /// As in OpenMetrics, where the counter `x` has `x_total` and `x_created`.
    OpenMetrics,
}

/// What a sample is to its family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SampleKind {
    /// A sample of the family's own type.
    Member,
    /// The creation time of a counter, histogram or summary. As a series it is a gauge.
    Created,
}

impl Naming {
    /// Every suffix that makes a sample's name from that of its family.
    const SUFFIXES: [&str; 8] =
        ["_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum"];

    /// Returns what the sample `family` + `suffix` is to a family of this type; `None` when it does not belong
    /// to it.
    fn kind(self, metric_type: MetricType, name: &str, suffix: &str) -> Option<SampleKind> {
        if metric_type.family_of(name).len() + suffix.len() == name.len() {
            return Some(SampleKind::Member);
        }
        if self == Self::Text {
            return None;
        }
        match (metric_type, suffix) {
            (MetricType::Counter, "_total") | (MetricType::Info, "_info") => {
                Some(SampleKind::Member)
            }
            (MetricType::Counter | MetricType::Histogram | MetricType::Summary, "_created") => {
                Some(SampleKind::Created)
            }
            _ => None,
        }
    }
}

#[derive(Default)]
struct DeclaredFamily {
    metric_type: Option<MetricType>,
    help: Option<Arc<str>>,
    unit: Option<Arc<str>>,
    has_samples: bool,
    /// The metadata of the samples of each kind, once the batch has it.
    member: Option<MetadataIndex>,
    created: Option<MetadataIndex>,
}

/// The families of one body, by name.
pub(super) struct DeclaredFamilies<'a> {
    naming: Naming,
    by_name: HashMap<&'a str, DeclaredFamily>,
}

impl<'a> DeclaredFamilies<'a> {
    pub(super) fn new(naming: Naming) -> Self {
        Self { naming, by_name: HashMap::new() }
    }

    /// Declares the type of a family.
    pub(super) fn set_type(
        &mut self,
        name: &'a str,
        metric_type: MetricType,
        batch: &mut PointBatch,
    ) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        if self.naming == Naming::OpenMetrics {
            check_first("TYPE", name, family.metric_type.is_some(), family.has_samples)?;
        }
        if let Some(index) = family.member {
            batch.set_type(index, metric_type);
        }
        family.metric_type = Some(metric_type);
        Ok(())
    }

    /// Declares the unit of a family.
    pub(super) fn set_unit(&mut self, name: &'a str, unit: &str) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        check_first("UNIT", name, family.unit.is_some(), family.has_samples)?;
        family.unit = Some(unit.into());
        Ok(())
    }

    /// Declares the help text of a family. It may follow the samples in both formats: it does not change the meaning of
    /// a sample.
    pub(super) fn set_help(
        &mut self,
        name: &'a str,
        help: &str,
        batch: &mut PointBatch,
    ) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        if self.naming == Naming::OpenMetrics {
            check_first("HELP", name, family.help.is_some(), false)?;
        }
        let help: Arc<str> = help.into();
        for index in [family.member, family.created].into_iter().flatten() {
            batch.set_help(index, Arc::clone(&help));
        }
        family.help = Some(help);
        Ok(())
    }

    /// Returns the metadata of a sample's family, adding it to the batch at the first sample; `None` when
    /// nothing was declared.
    pub(super) fn metadata_of(
        &mut self,
        name: &'a str,
        batch: &mut PointBatch,
    ) -> Option<MetadataIndex> {
        let (family_name, kind) = self.family_of(name);
        let family = self.by_name.entry(family_name).or_default();
        family.has_samples = true;
        if family.metric_type.is_none() && family.help.is_none() && family.unit.is_none() {
            return None;
        }
        let known = if kind == SampleKind::Member { family.member } else { family.created };
        if known.is_some() {
            return known;
        }
        let or_empty = |text: &Option<Arc<str>>| text.clone().unwrap_or_default();
        let index = batch.add_metadata(match kind {
            SampleKind::Member => Metadata {
                metric_type: family.metric_type.unwrap_or(MetricType::Unknown),
                help: or_empty(&family.help),
                unit: or_empty(&family.unit),
            },
            SampleKind::Created => Metadata {
                metric_type: MetricType::Gauge,
                help: or_empty(&family.help),
                unit: Arc::default(),
            },
        });
        match kind {
            SampleKind::Member => family.member = Some(index),
            SampleKind::Created => family.created = Some(index),
        }
        Some(index)
    }

    /// Returns the family of a sample: that of its exact name, if it was declared, otherwise a declared family
    /// with a type whose samples have this suffix, otherwise one of its own.
    fn family_of(&self, name: &'a str) -> (&'a str, SampleKind) {
        if self.by_name.contains_key(name) {
            return (name, SampleKind::Member);
        }
        Naming::SUFFIXES
            .into_iter()
            .find_map(|suffix| {
                let family_name = name.strip_suffix(suffix)?;
                let metric_type = self.by_name.get(family_name)?.metric_type?;
                Some((family_name, self.naming.kind(metric_type, name, suffix)?))
            })
            .unwrap_or((name, SampleKind::Member))
    }
}

/// Checks that `what` was not declared before, and that the family has no samples yet.
fn check_first(what: &str, name: &str, declared: bool, has_samples: bool) -> Result<(), Invalid> {
    if declared {
        return Err(Invalid::new(format!("a second {what} line for {name}")));
    }
    if has_samples {
        return Err(Invalid::new(format!("a {what} line after the samples of {name}")));
    }
    Ok(())
}
