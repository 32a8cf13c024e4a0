//! What of a pipeline is exported at present.
//!
//! Invariant: there are at most `max_entities` of them, and the changes that were reported add up to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Export;
use crate::model::aggregates::{Aggregate, Entity};
use crate::model::series::{
    Point, PointLimits, Sample, SeriesKey, canonicalize, split_canonical, unescape_label_value,
};
use crate::model::time::Timestamp;
use crate::store::Change;

/// The exported entities.
#[derive(Default)]
pub(super) struct Rows {
    rows: BTreeMap<Entity, Row>,
    truncated: bool,
}

/// The series of one entity.
struct Row {
    /// None where the entity can't be shown.
    series: Vec<(SeriesKey, f64)>,
    expires_at: Option<Timestamp>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn unreadable(&self) -> usize {
        self.rows.values().filter(|row| row.series.is_empty()).count()
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns the entities whose values have ended by `now`, as far as was known when they were read.
    pub(super) fn ended(&self, now: Timestamp) -> impl Iterator<Item = Entity> {
        let ended = move |row: &Row| row.expires_at.is_some_and(|end| end <= now);
        self.rows.iter().filter(move |(_, row)| ended(row)).map(|(entity, _)| entity.clone())
    }

    /// Returns all series.
    pub(super) fn all(&self, export: &Export) -> Vec<Change> {
        let now = export.clock.now();
        let series = self.rows.values().flat_map(|row| &row.series);
        series.map(|(key, value)| export.upserted(key.clone(), *value, now)).collect()
    }

    /// Makes the rows those of `values`, which are the first entities of the pipeline, one more than fit.
    pub(super) fn replace(
        &mut self,
        export: &Export,
        mut values: Vec<(Entity, Aggregate)>,
        changes: &mut Vec<Change>,
    ) {
        self.truncated = values.len() > export.settings.max_entities;
        values.truncate(export.settings.max_entities);
        let now = export.clock.now();
        let mut before = std::mem::take(&mut self.rows);
        for (entity, value) in values {
            let row = export.row(&entity, &value, now);
            report(export, before.remove(&entity), Some(&row), now, changes);
            self.rows.insert(entity, row);
        }
        for row in before.into_values() {
            report(export, Some(row), None, now, changes);
        }
    }

    /// Brings some entities up to date. Returns whether there is room now for one that found none.
    pub(super) fn update(
        &mut self,
        export: &Export,
        values: impl Iterator<Item = (Entity, Option<Aggregate>)>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let now = export.clock.now();
        for (entity, value) in values {
            let before = self.rows.remove(&entity);
            if value.is_some() && self.rows.len() >= export.settings.max_entities {
                self.truncated = true;
                continue;
            }
            let row = value.map(|value| export.row(&entity, &value, now));
            report(export, before, row.as_ref(), now, changes);
            if let Some(row) = row {
                self.rows.insert(entity, row);
            }
        }
        self.truncated && self.rows.len() < export.settings.max_entities
    }
}

/// Reports how the series of an entity have changed.
fn report(
    export: &Export,
    before: Option<Row>,
    after: Option<&Row>,
    now: Timestamp,
    changes: &mut Vec<Change>,
) {
    let before = before.map_or(Vec::new(), |row| row.series);
    let after = after.map_or(&[][..], |row| &row.series);
    for (key, value) in after {
        let same = |(old, held): &(SeriesKey, f64)| old == key && held.to_bits() == value.to_bits();
        if !before.iter().any(same) {
            changes.push(export.upserted(key.clone(), *value, now));
        }
    }
    let gone = before.into_iter().filter(|(key, _)| after.iter().all(|(kept, _)| kept != key));
    changes.extend(gone.map(|(key, _)| Change::Deleted(key)));
}

impl Export {
    fn upserted(&self, key: SeriesKey, value: f64, now: Timestamp) -> Change {
        let metadata = Some(Arc::clone(&self.settings.metadata));
        Change::Upserted(Point { key, sample: Sample { value, updated_at: now }, metadata })
    }

    fn row(&self, entity: &Entity, value: &Aggregate, now: Timestamp) -> Row {
        Row {
            series: self.series(entity, value, now).unwrap_or_default(),
            expires_at: value.expires_at,
        }
    }

    /// Returns the series of an entity; `None` when it can't be shown.
    fn series(
        &self,
        entity: &Entity,
        value: &Aggregate,
        now: Timestamp,
    ) -> Option<Vec<(SeriesKey, f64)>> {
        let labels = self.labels(entity)?;
        let samples = self.pipeline.kind.samples(&value.state, now).ok()?;
        let series = samples.into_iter().map(|sample| {
            let mut labels = labels.clone();
            labels.extend(sample.quantile.map(|q| ("quantile".to_owned(), q.to_string())));
            let name = match sample.suffix {
                "" => Arc::clone(&self.settings.name),
                suffix => format!("{}{suffix}", self.settings.name).into(),
            };
            let labels = canonical(&mut labels)?.into();
            Some((SeriesKey { name, labels }, sample.value))
        });
        series.collect()
    }

    /// Returns the labels that an entity stands for.
    fn labels(&self, entity: &Entity) -> Option<Vec<(String, String)>> {
        if let Some(label) = &self.settings.label {
            return Some(vec![(label.clone(), entity.as_str().to_owned())]);
        }
        let pairs = split_canonical(entity.as_str());
        let pairs = pairs.map(|(name, value)| (name.to_owned(), unescape_label_value(value)));
        let mut labels: Vec<_> = pairs.collect();
        // Only the canonical text of labels is taken: so no two entities are one series.
        (canonical(&mut labels)? == entity.as_str()).then_some(labels)
    }
}

fn canonical(labels: &mut [(String, String)]) -> Option<String> {
    let mut text = String::new();
    canonicalize(labels, &PointLimits::default(), &mut text).ok()?;
    Some(text)
}
