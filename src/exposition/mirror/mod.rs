//! The mirror: all series of the store as families of rendered pages, brought up to date by deltas.
//!
//! Not a store: it knows only what the deltas told it, and it is dropped and built again from a
//! snapshot when its cursor is refused.
//! Invariant: the exposition depends only on the present series, not on the changes that led to them.

mod family_plan;
mod metadata_table;
mod related_names;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use self::family_plan::base_name;
use self::metadata_table::MetadataTable;
use self::related_names::{Families, MirroredName, RelatedNames};
use super::chunks::{ChunkCache, ChunkReuse, Content, Exposition, RenderedPage, is_chunk_boundary};
use super::family::Family;
use super::family::line_order::LineSorter;
use super::family::page::{LineUpdate, LineValue, MetadataId, Scratch};
use crate::model::series::{OWN_PREFIX, SeriesKey};
use crate::store::Change;

/// The series of the store, rendered.
#[derive(Debug)]
pub struct Mirror {
    /// By base name.
    names: HashMap<Arc<str>, RelatedNames>,
    families: Families,
    metadata: MetadataTable,
    chunks: ChunkCache,
    scratch: Scratch,
    series: usize,
    /// The names of the series that pipelines export. Pushed ones of these names are not mirrored.
    exported: HashSet<Arc<str>>,
    /// Upserts that were not mirrored because their names are reserved.
    skipped: u64,
}

/// Names for which votes changed, by base name.
type ChangedNames = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// A change of a series, with its metadata interned.
struct SeriesChange {
    key: SeriesKey,
    /// The new value; `None` when the series was deleted.
    value: Option<(f64, MetadataId)>,
}

/// The sizes of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpositionSizes {
    /// Plain, in bytes.
    pub text_bytes: u64,
    /// Compressed, in bytes.
    pub gzip_bytes: u64,
}

/// The mirror as scrapes see it.
#[derive(Debug, Clone, Default)]
pub(super) struct MirroredPages {
    pub(super) families: Vec<Arc<Family>>,
    pub(super) exposition: Exposition,
    pub(super) series: usize,
}

impl Mirror {
    /// Makes an empty mirror, which counts the reuse of chunks in `reuse`.
    pub fn new(reuse: Arc<ChunkReuse>) -> Self {
        Self {
            names: HashMap::new(),
            families: BTreeMap::new(),
            metadata: MetadataTable::default(),
            chunks: ChunkCache::new(reuse),
            scratch: Scratch::default(),
            series: 0,
            exported: HashSet::new(),
            skipped: 0,
        }
    }

    /// From now on, only [`Mirror::apply_exported`] changes series of these names.
    pub fn reserve(&mut self, exported: HashSet<Arc<str>>) {
        self.exported = exported;
    }

    /// Returns the number of mirrored series.
    pub fn series(&self) -> usize {
        self.series
    }

    /// Returns how many upserts were not mirrored because of their names since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Applies changes, in their order. The cost grows with the number of changes, times the size of a page.
    pub fn apply(&mut self, changes: Vec<Change>) {
        let changes = self.without_reserved(changes);
        self.apply_exported(changes);
    }

    /// Applies changes of series that pipelines export, in their order.
    pub fn apply_exported(&mut self, changes: Vec<Change>) {
        let mut changes = self.intern(changes);
        // Stable, so that of two changes of one series the later one stays the later.
        changes.sort_by(|a, b| compare_names(&a.key.name, &b.key.name));
        // One run for each name. A deletion of series that are not mirrored changes nothing.
        let runs: Vec<&[SeriesChange]> = changes
            .chunk_by(|a, b| Arc::ptr_eq(&a.key.name, &b.key.name) || a.key.name == b.key.name)
            .filter(|run| self.knows(run) || run.iter().any(|change| change.value.is_some()))
            .collect();
        // Metadata that no series may have any more at the end: all that is added or removed here.
        let mut ids: BTreeSet<MetadataId> =
            changes.iter().filter_map(|change| change.value.map(|(_, id)| id)).collect();
        // A line needs a family to be written into. So names that are new get one first, by the votes of this
        // batch. Then the lines are written and the votes counted; then the families are decided
        // again wherever votes have changed, which may move lines once more.
        let new_names = self.add_new_names(&runs);
        let changed = self.write_lines(&runs, &new_names, &mut ids);
        for (base, names) in changed {
            self.update_families(&base, &names);
        }
        self.metadata.sweep(ids);
    }

    /// Drops changes of series whose names are reserved, and counts them.
    fn without_reserved(&mut self, mut changes: Vec<Change>) -> Vec<Change> {
        changes.retain(|change| {
            let (key, is_upsert) = match change {
                Change::Upserted(point) => (&point.key, true),
                Change::Deleted(key) => (key, false),
            };
            let reserved = key.name.starts_with(OWN_PREFIX) || self.exported.contains(&key.name);
            self.skipped += u64::from(reserved && is_upsert);
            !reserved
        });
        changes
    }

    fn intern(&mut self, changes: Vec<Change>) -> Vec<SeriesChange> {
        let mut interned = Vec::with_capacity(changes.len());
        for change in changes {
            let change = match change {
                Change::Upserted(point) => SeriesChange {
                    value: Some((point.sample.value, self.metadata.id_of(point.metadata.as_ref()))),
                    key: point.key,
                },
                Change::Deleted(key) => SeriesChange { key, value: None },
            };
            interned.push(change);
        }
        interned
    }

    /// Returns whether the mirror has the name of this run.
    fn knows(&self, run: &[SeriesChange]) -> bool {
        run.first().is_some_and(|change| {
            let name = &change.key.name;
            self.names.get(base_name(name)).is_some_and(|r| r.names.contains_key(name))
        })
    }

    /// Assigns families to the names that are new, by what their series in this batch say. Returns
    /// these names.
    fn add_new_names(&mut self, runs: &[&[SeriesChange]]) -> HashSet<Arc<str>> {
        let mut new_names = HashSet::new();
        let mut bases: ChangedNames = BTreeMap::new();
        for run in runs {
            if self.knows(run) {
                continue;
            }
            let Some(first) = run.first() else { continue };
            let mut name = MirroredName::default();
            for change in run.iter() {
                if let Some((_, id)) = change.value {
                    name.add_vote(id);
                    name.add_series(change.key.labels.as_bytes());
                }
            }
            let base = self.base_of(&first.key.name);
            let related = self.names.entry(Arc::clone(&base)).or_default();
            related.names.insert(Arc::clone(&first.key.name), name);
            new_names.insert(Arc::clone(&first.key.name));
            bases.entry(base).or_default().insert(Arc::clone(&first.key.name));
        }
        for (base, names) in bases {
            self.update_families(&base, &names);
        }
        new_names
    }

    /// Returns a name's base name, without a new allocation where possible.
    fn base_of(&self, name: &Arc<str>) -> Arc<str> {
        let base = base_name(name);
        match self.names.get_key_value(base) {
            Some((key, _)) => Arc::clone(key),
            None if base.len() == name.len() => Arc::clone(name),
            None => Arc::from(base),
        }
    }

    /// Writes the lines of all changes into their families, and counts the votes. Returns the
    /// names for which votes changed.
    fn write_lines(
        &mut self,
        runs: &[&[SeriesChange]],
        new_names: &HashSet<Arc<str>>,
        ids: &mut BTreeSet<MetadataId>,
    ) -> ChangedNames {
        // A family may have several names: their changes are applied together, so that each of its pages is
        // written once.
        let mut by_family: BTreeMap<Arc<str>, Vec<&[SeriesChange]>> = BTreeMap::new();
        for &run in runs {
            let Some(first) = run.first() else { continue };
            let Some(related) = self.names.get_mut(base_name(&first.key.name)) else { continue };
            let Some(name) = related.names.get_mut(&first.key.name) else { continue };
            if new_names.contains(&first.key.name) {
                // The votes that chose the family counted changes. They are counted again, by series.
                name.reset_counts();
            }
            let Some(family) = &name.family else { continue };
            by_family.entry(Arc::clone(family)).or_default().push(run);
        }
        let mut changed: ChangedNames = BTreeMap::new();
        for name in new_names {
            changed.entry(self.base_of(name)).or_default().insert(Arc::clone(name));
        }
        for (family, runs) in by_family {
            let Some(family) = self.families.get_mut(&family) else { continue };
            let family = Arc::make_mut(family);
            let header = family.header.clone();
            let updates = sorted_updates(&runs, header.sorter());
            let mut previous = Vec::with_capacity(updates.len());
            family.apply(&updates, &mut self.scratch, &mut previous);
            for (update, previous) in updates.iter().zip(previous) {
                self.count(update, previous, ids, &mut changed);
            }
        }
        changed
    }

    /// Updates the counts after one line was written; `previous` is the metadata that it had before.
    fn count(
        &mut self,
        update: &LineUpdate<'_>,
        previous: Option<MetadataId>,
        ids: &mut BTreeSet<MetadataId>,
        changed: &mut ChangedNames,
    ) {
        let now = update.value.map(|(_, id)| id);
        if previous == now {
            return;
        }
        let Ok(name_text) = std::str::from_utf8(update.name) else { return };
        let base = base_name(name_text);
        let Some(related) = self.names.get_mut(base) else { return };
        let Some(name) = related.names.get_mut(name_text) else { return };
        if let Some(id) = previous {
            name.remove_vote(id);
            if now.is_none() {
                name.remove_series(update.labels);
            }
            self.metadata.remove(id);
            self.series -= 1;
            ids.insert(id);
        }
        if let Some(id) = now {
            name.add_vote(id);
            if previous.is_none() {
                name.add_series(update.labels);
            }
            self.metadata.add(id);
            self.series += 1;
        }
        // Looked up first: mostly there are many series of few names, and no text is allocated again.
        if changed.get(base).is_none_or(|names| !names.contains(name_text)) {
            changed.entry(Arc::from(base)).or_default().insert(Arc::from(name_text));
        }
    }

    /// Decides the families again that depend on these names, which have this base name.
    fn update_families(&mut self, base: &Arc<str>, names: &BTreeSet<Arc<str>>) {
        let Some(related) = self.names.get_mut(base) else { return };
        related.update_families(names, &mut self.families, &self.metadata, &mut self.scratch);
        if related.names.is_empty() {
            self.names.remove(base);
        }
    }

    /// Returns the mirror as scrapes see it. The cost grows with the number of pages; only chunks with
    /// changed pages are compressed.
    pub(super) fn publish(&mut self) -> MirroredPages {
        let mut pages = Vec::new();
        let mut owners = Vec::new();
        for (name, family) in &self.families {
            let boundary = is_chunk_boundary(name);
            let last = family.pages.len().saturating_sub(1);
            for (i, page) in family.pages.iter().enumerate() {
                let header = || Content { id: family.header_id, bytes: family.header_text.clone() };
                pages.push(RenderedPage {
                    header: (i == 0).then(header),
                    text: Content { id: page.id, bytes: page.text.clone() },
                    boundary: boundary && i == last,
                });
                owners.push((Arc::clone(name), i));
            }
        }
        let (exposition, shared) = self.chunks.assemble(&pages);
        drop(pages);
        // Pages that were copied into a shared chunk refer to it from now on: their own copies are freed.
        for shared in shared {
            let (name, page) = &owners[shared.page];
            if let Some(family) = self.families.get_mut(name) {
                Arc::make_mut(family).pages[*page].text = shared.text;
            }
        }
        let families = self.families.values().map(Arc::clone).collect();
        MirroredPages { families, exposition, series: self.series }
    }

    /// Does what a refresh does after [`Self::apply`], and returns the sizes: for measurements.
    pub fn render(&mut self) -> ExpositionSizes {
        let Exposition { text_bytes, gzip_bytes, .. } = self.publish().exposition;
        ExpositionSizes { text_bytes, gzip_bytes }
    }
}

fn compare_names(a: &Arc<str>, b: &Arc<str>) -> std::cmp::Ordering {
    // Names of one family are mostly the same allocation.
    if Arc::ptr_eq(a, b) { std::cmp::Ordering::Equal } else { a.cmp(b) }
}

/// Returns the updates of one family: sorted, and for each series only the last one.
fn sorted_updates<'a>(runs: &[&'a [SeriesChange]], sorter: LineSorter<'_>) -> Vec<LineUpdate<'a>> {
    let mut updates: Vec<LineUpdate<'a>> = runs
        .iter()
        .flat_map(|run| run.iter())
        .map(|change| {
            let (name, labels) = (change.key.name.as_bytes(), change.key.labels.as_bytes());
            LineUpdate {
                sort_key: sorter.sort_key(name, labels),
                name,
                labels,
                value: change.value.map(|(value, id)| (LineValue::Sample(value), id)),
            }
        })
        .collect();
    // `dedup_by` keeps the first of equal ones, and the last is wanted. The sort is stable.
    updates.sort_by(|a, b| a.sort_key.cmp(&b.sort_key));
    updates.reverse();
    updates.dedup_by(|later, kept| later.sort_key == kept.sort_key);
    updates.reverse();
    updates
}
