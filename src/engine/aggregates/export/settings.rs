//! `[pipelines.<name>.export]`: how the values of a pipeline are shown as series on /metrics.
//!
//! Invariant: settings that exist name a family that the pipeline's kind can be shown as.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Value;
use serde::Deserialize;

use crate::model::merge::Kind;
use crate::model::series::{
    Metadata, MetricType, OWN_PREFIX, PointLimits, check_metric_name, is_label_name,
};
use crate::model::settings;

/// The label that the quantiles of a summary have.
const QUANTILE: &str = "quantile";

/// The export of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSettings {
    /// The name of the family.
    pub name: Arc<str>,
    /// The label whose value is the entity; `None` where entities are labels themselves.
    pub label: Option<String>,
    /// The most entities that are shown.
    pub max_entities: usize,
    /// Type and help text of the family.
    pub metadata: Arc<Metadata>,
}

/// The table as it was written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    label: Option<String>,
    #[serde(rename = "type")]
    metric_type: Option<String>,
    #[serde(default)]
    help: String,
    #[serde(default = "default_max_entities", deserialize_with = "settings::count")]
    max_entities: usize,
}

fn default_max_entities() -> usize {
    1000
}

impl ExportSettings {
    /// The largest `max_entities`. All exported values of a pipeline are held in memory.
    const MAX_ENTITIES: usize = 100_000;

    /// Reads the settings of the export of values of `kind`. Returns what is wrong with them, each with the setting's
    /// name, which is empty for the table as a whole.
    pub(in crate::engine::aggregates) fn read(
        table: Value,
        kind: &Kind,
    ) -> Result<Self, Vec<(&'static str, String)>> {
        let table: Table = match table.try_deserialize() {
            Ok(table) => table,
            Err(error) => return Err(vec![("", error.to_string())]),
        };
        let mut errors = Vec::new();
        let mut fail = |setting, what| errors.push((setting, what));
        let metric_type = match metric_type(table.metric_type.as_deref(), kind) {
            Ok(metric_type) => metric_type,
            Err(why) => {
                fail("type", why);
                MetricType::Unknown
            }
        };
        if let Err(why) = check_metric_name(&table.name, &PointLimits::default()) {
            fail("name", why.0);
        }
        if table.name.starts_with(OWN_PREFIX) {
            fail("name", format!("must not begin with {OWN_PREFIX}: the server's own metrics do"));
        }
        if let Some(label) = &table.label {
            if !is_label_name(label.as_bytes()) || label.starts_with("__") {
                fail("label", "is not the name of a label".to_owned());
            }
            if label == QUANTILE && metric_type == MetricType::Summary {
                fail("label", "is what the quantiles of a summary have already".to_owned());
            }
        }
        if table.max_entities > Self::MAX_ENTITIES {
            fail("max_entities", format!("must be at most {}", Self::MAX_ENTITIES));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let metadata = Metadata { metric_type, help: table.help.into(), unit: "".into() };
        Ok(Self {
            name: table.name.into(),
            label: table.label,
            max_entities: table.max_entities,
            metadata: Arc::new(metadata),
        })
    }

    /// Returns the names of all series that the export can have.
    pub fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let suffixes: &[&str] = match self.metadata.metric_type {
            MetricType::Summary => &["", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name).into())
    }
}

/// Returns the type of the family: `given`, or the one of the kind.
fn metric_type(given: Option<&str>, kind: &Kind) -> Result<MetricType, String> {
    let Some(of_kind) = kind.metric_type() else {
        return Err(format!(
            "values of {} are no numbers that /metrics can show",
            kind.signature()
        ));
    };
    let Some(given) = given else { return Ok(of_kind) };
    let is_number = |metric_type| matches!(metric_type, MetricType::Counter | MetricType::Gauge);
    let parsed = MetricType::parse(given).map_err(|why| why.0)?;
    if parsed == of_kind || (is_number(parsed) && is_number(of_kind)) {
        Ok(parsed)
    } else {
        Err(format!("values of {} can't be shown as a {given}", kind.signature()))
    }
}

/// Returns the names of series that more than one of `exports` would have, each with the pipelines.
pub(in crate::engine::aggregates) fn shared_names<'a>(
    exports: impl Iterator<Item = (&'a str, &'a ExportSettings)>,
) -> Vec<(Arc<str>, BTreeSet<&'a str>)> {
    let mut pipelines_of: BTreeMap<Arc<str>, BTreeSet<&str>> = BTreeMap::new();
    for (pipeline, export) in exports {
        for name in export.names() {
            pipelines_of.entry(name).or_default().insert(pipeline);
        }
    }
    pipelines_of.into_iter().filter(|(_, pipelines)| pipelines.len() > 1).collect()
}
