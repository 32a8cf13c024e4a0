//! What a text body has said so far about its metric families, and which family a sample
//! belongs to.
//!
//! Invariant: type and unit of a family never change once it has a sample.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, PointBatch};
use crate::model::series::{Metadata, MetricType};

/// How samples are named after their family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// As in the text format: `x_bucket` of a histogram `x`, but a counter's name is its own.
    Text,
    /// As in OpenMetrics, where the counter `x` has `x_total` and `x_created`.
    OpenMetrics,
}

/// A sample's place in its family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Member,
    /// The time when a counter, histogram or summary began: a gauge to all who read it.
    Created,
}

impl Naming {
    /// Every suffix that makes a sample's name from that of its family.
    const SUFFIXES: [&str; 8] =
        ["_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum"];

    /// Returns the role of the sample `family` + `suffix` in a family of this type.
    fn role(self, metric_type: MetricType, name: &str, suffix: &str) -> Option<Role> {
        if metric_type.family_of(name).len() + suffix.len() == name.len() {
            return Some(Role::Member);
        }
        if self == Self::Text {
            return None;
        }
        match (metric_type, suffix) {
            (MetricType::Counter, "_total") | (MetricType::Info, "_info") => Some(Role::Member),
            (MetricType::Counter | MetricType::Histogram | MetricType::Summary, "_created") => {
                Some(Role::Created)
            }
            _ => None,
        }
    }
}

#[derive(Default)]
struct Family {
    metric_type: Option<MetricType>,
    help: Option<Arc<str>>,
    unit: Option<Arc<str>>,
    has_samples: bool,
    member: Option<MetadataIndex>,
    created: Option<MetadataIndex>,
}

/// The families of one body, by name.
pub(super) struct Families<'a> {
    naming: Naming,
    by_name: HashMap<&'a str, Family>,
}

impl<'a> Families<'a> {
    pub(super) fn new(naming: Naming) -> Self {
        Self { naming, by_name: HashMap::new() }
    }

    /// Takes what a `TYPE` line says.
    pub(super) fn set_type(&mut self, name: &'a str, is: MetricType) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        check_first("TYPE", name, family.metric_type.is_some(), family.has_samples)?;
        family.metric_type = Some(is);
        Ok(())
    }

    /// Takes what a `UNIT` line says.
    pub(super) fn set_unit(&mut self, name: &'a str, unit: &str) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        check_first("UNIT", name, family.unit.is_some(), family.has_samples)?;
        family.unit = Some(unit.into());
        Ok(())
    }

    /// Takes what a `HELP` line says. Unlike a type, a help text may follow the samples, as in
    /// Prometheus' own parser: it changes no sample's meaning.
    pub(super) fn set_help(
        &mut self,
        name: &'a str,
        help: &str,
        batch: &mut PointBatch,
    ) -> Result<(), Invalid> {
        let family = self.by_name.entry(name).or_default();
        check_first("HELP", name, family.help.is_some(), false)?;
        let help: Arc<str> = help.into();
        for index in [family.member, family.created].into_iter().flatten() {
            batch.set_help(index, Arc::clone(&help));
        }
        family.help = Some(help);
        Ok(())
    }

    /// Finds the family of a sample and gives what was said about it, if anything was.
    pub(super) fn metadata_of(
        &mut self,
        name: &'a str,
        batch: &mut PointBatch,
    ) -> Option<MetadataIndex> {
        let (family_name, role) = self.family_of(name);
        let family = self.by_name.entry(family_name).or_default();
        family.has_samples = true;
        if family.metric_type.is_none() && family.help.is_none() && family.unit.is_none() {
            return None;
        }
        let known = if role == Role::Member { family.member } else { family.created };
        if known.is_some() {
            return known;
        }
        let text = |text: &Option<Arc<str>>| text.clone().unwrap_or_default();
        let index = batch.add_metadata(match role {
            Role::Member => Metadata {
                metric_type: family.metric_type.unwrap_or(MetricType::Unknown),
                help: text(&family.help),
                unit: text(&family.unit),
            },
            Role::Created => Metadata {
                metric_type: MetricType::Gauge,
                help: text(&family.help),
                unit: Arc::default(),
            },
        });
        match role {
            Role::Member => family.member = Some(index),
            Role::Created => family.created = Some(index),
        }
        Some(index)
    }

    fn family_of(&self, name: &'a str) -> (&'a str, Role) {
        if self.by_name.contains_key(name) {
            return (name, Role::Member);
        }
        Naming::SUFFIXES
            .into_iter()
            .find_map(|suffix| {
                let family_name = name.strip_suffix(suffix)?;
                let metric_type = self.by_name.get(family_name)?.metric_type?;
                Some((family_name, self.naming.role(metric_type, name, suffix)?))
            })
            .unwrap_or((name, Role::Member))
    }
}

fn check_first(what: &str, name: &str, said: bool, has_samples: bool) -> Result<(), Invalid> {
    if said {
        return Err(Invalid::new(format!("a second {what} line for {name}")));
    }
    if has_samples {
        return Err(Invalid::new(format!("a {what} line after the samples of {name}")));
    }
    Ok(())
}
