//! The mirror: all series of the store as families of rendered pages, brought up to date by deltas.
//!
//! Not a store: it only knows what the deltas said, and it is thrown away and built again
//! from a snapshot when a cursor is gone.
//! Invariant: after the same series, however they came about, the mirror shows the same page.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::blocks::{BlockCache, PageReuse, Piece, Rendered, is_border};
use super::cluster::{Cluster, Families, Name};
use super::family::{Description, Family};
use super::metadata::MetadataTable;
use super::naming::cluster_of;
use super::page::{Edit, MetadataId, NewValue, Scratch};
use crate::model::series::SeriesKey;
use crate::store::Change;

/// Every metric of holdall's own begins so. Mirrored series whose names begin so are left out:
/// nobody can write what looks like holdall's own words.
pub const OWN_PREFIX: &str = "holdall_";

/// The series of the store, rendered.
#[derive(Debug)]
pub struct Mirror {
    clusters: HashMap<Arc<str>, Cluster>,
    families: Families,
    metadata: MetadataTable,
    blocks: BlockCache,
    scratch: Scratch,
    series: usize,
    left_out: u64,
}

/// A change, as the mirror looks at it.
struct Item {
    key: SeriesKey,
    state: Option<(f64, MetadataId)>,
}

/// How large a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSizes {
    /// Plain, in bytes.
    pub text_bytes: u64,
    /// Compressed, in bytes.
    pub gzip_bytes: u64,
}

/// A page as a scrape takes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    pub(super) families: Vec<Arc<Family>>,
    pub(super) rendered: Rendered,
    pub(super) series: usize,
}

impl Mirror {
    /// Makes an empty mirror; blocks that need not be made again are counted in `reuse`.
    pub fn new(reuse: Arc<PageReuse>) -> Self {
        Self {
            clusters: HashMap::new(),
            families: BTreeMap::new(),
            metadata: MetadataTable::default(),
            blocks: BlockCache::new(reuse),
            scratch: Scratch::default(),
            series: 0,
            left_out: 0,
        }
    }

    /// Returns the number of mirrored series.
    pub fn series(&self) -> usize {
        self.series
    }

    /// Returns how many upserts were left out because of their names, and starts at 0 again.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// Applies changes, in their order. Costs as much as there are changes, times the size of a page.
    pub fn apply(&mut self, changes: Vec<Change>) {
        let mut items = self.items(changes);
        // Stable, so that of two changes of one series the later one stays the later.
        items.sort_by(|a, b| compare_names(&a.key.name, &b.key.name));
        let runs: Vec<&[Item]> = items
            .chunk_by(|a, b| Arc::ptr_eq(&a.key.name, &b.key.name) || a.key.name == b.key.name)
            .filter(|run| self.knows(run) || run.iter().any(|item| item.state.is_some()))
            .collect();
        let mut ids: BTreeSet<MetadataId> =
            items.iter().filter_map(|item| item.state.map(|(_, id)| id)).collect();
        let newcomers = self.introduce(&runs);
        let touched = self.edit(&runs, &newcomers, &mut ids);
        for cluster in touched {
            self.settle(&cluster);
        }
        self.metadata.sweep(ids);
    }

    fn items(&mut self, changes: Vec<Change>) -> Vec<Item> {
        let mut items = Vec::with_capacity(changes.len());
        for change in changes {
            let item = match change {
                Change::Upserted(point) => Item {
                    state: Some((point.sample.value, self.metadata.id_of(point.metadata.as_ref()))),
                    key: point.key,
                },
                Change::Deleted(key) => Item { key, state: None },
            };
            if item.key.name.starts_with(OWN_PREFIX) {
                self.left_out += u64::from(item.state.is_some());
            } else {
                items.push(item);
            }
        }
        items
    }

    fn knows(&self, run: &[Item]) -> bool {
        run.first().is_some_and(|item| {
            let name = &item.key.name;
            self.clusters.get(cluster_of(name)).is_some_and(|c| c.names.contains_key(name))
        })
    }

    /// Finds a family for the names that are new, by what their series in this batch
    /// say; gives these names.
    fn introduce(&mut self, runs: &[&[Item]]) -> HashSet<Arc<str>> {
        let mut newcomers = HashSet::new();
        let mut clusters = BTreeSet::new();
        for run in runs {
            if self.knows(run) {
                continue;
            }
            let Some(first) = run.first() else { continue };
            let mut name = Name::default();
            for item in run.iter() {
                if let Some((_, id)) = item.state {
                    name.vote(id);
                    name.enter(item.key.labels.as_bytes());
                }
            }
            let root = self.cluster_key(&first.key.name);
            let cluster = self.clusters.entry(Arc::clone(&root)).or_default();
            cluster.names.insert(Arc::clone(&first.key.name), name);
            newcomers.insert(Arc::clone(&first.key.name));
            clusters.insert(root);
        }
        for root in clusters {
            self.settle(&root);
        }
        newcomers
    }

    /// Returns the key of a name's cluster, without a new allocation where there is one.
    fn cluster_key(&self, name: &Arc<str>) -> Arc<str> {
        let root = cluster_of(name);
        match self.clusters.get_key_value(root) {
            Some((key, _)) => Arc::clone(key),
            None if root.len() == name.len() => Arc::clone(name),
            None => Arc::from(root),
        }
    }

    /// Writes the lines of all changes into their families, and counts the votes; gives
    /// the clusters in which votes changed.
    fn edit(
        &mut self,
        runs: &[&[Item]],
        newcomers: &HashSet<Arc<str>>,
        ids: &mut BTreeSet<MetadataId>,
    ) -> BTreeSet<Arc<str>> {
        let mut by_family: BTreeMap<Arc<str>, Vec<&[Item]>> = BTreeMap::new();
        for &run in runs {
            let Some(first) = run.first() else { continue };
            let Some(cluster) = self.clusters.get_mut(cluster_of(&first.key.name)) else {
                continue;
            };
            let Some(name) = cluster.names.get_mut(&first.key.name) else { continue };
            if newcomers.contains(&first.key.name) {
                // The votes that found the family are counted again, line by line.
                name.clear();
            }
            let Some(family) = &name.family else { continue };
            by_family.entry(Arc::clone(family)).or_default().push(run);
        }
        let mut touched: BTreeSet<Arc<str>> =
            newcomers.iter().map(|name| self.cluster_key(name)).collect();
        for (family, runs) in by_family {
            let Some(family) = self.families.get_mut(&family) else { continue };
            let family = Arc::make_mut(family);
            let description = family.description.clone();
            let edits = sorted_edits(&runs, &description);
            let mut before = Vec::with_capacity(edits.len());
            family.apply(&edits, &mut self.scratch, &mut before);
            for (edit, before) in edits.iter().zip(before) {
                self.count(edit, before, ids, &mut touched);
            }
        }
        touched
    }

    /// Counts what one edit changed.
    fn count(
        &mut self,
        edit: &Edit<'_>,
        before: Option<MetadataId>,
        ids: &mut BTreeSet<MetadataId>,
        touched: &mut BTreeSet<Arc<str>>,
    ) {
        let now = edit.state.map(|(_, id)| id);
        if before == now {
            return;
        }
        let Ok(edit_name) = std::str::from_utf8(edit.name) else { return };
        let root = cluster_of(edit_name);
        let Some(cluster) = self.clusters.get_mut(root) else { return };
        let Some(name) = cluster.names.get_mut(edit_name) else { return };
        if let Some(id) = before {
            name.unvote(id);
            if now.is_none() {
                name.leave(edit.labels);
            }
            self.metadata.remove(id);
            self.series -= 1;
            ids.insert(id);
        }
        if let Some(id) = now {
            name.vote(id);
            if before.is_none() {
                name.enter(edit.labels);
            }
            self.metadata.add(id);
            self.series += 1;
        }
        if !touched.contains(root) {
            touched.insert(Arc::from(root));
        }
    }

    /// Decides the families of a cluster again.
    fn settle(&mut self, root: &Arc<str>) {
        let Some(cluster) = self.clusters.get_mut(root) else { return };
        cluster.settle(&mut self.families, &self.metadata, &mut self.scratch);
        if cluster.names.is_empty() {
            self.clusters.remove(root);
        }
    }

    /// Makes the page as it is now. Costs as much as there are pages, and compresses those that
    /// changed.
    pub(super) fn publish(&mut self) -> Published {
        let mut pieces = Vec::new();
        let mut owners = Vec::new();
        for (name, family) in &self.families {
            let border = is_border(name);
            let last = family.pages.len().saturating_sub(1);
            for (i, page) in family.pages.iter().enumerate() {
                pieces.push(Piece {
                    header: (i == 0).then(|| (family.header_id, family.header.clone())),
                    text: (page.id, page.text.clone()),
                    border: border && i == last,
                });
                owners.push((Arc::clone(name), i));
            }
        }
        let (rendered, moved) = self.blocks.assemble(&pieces);
        drop(pieces);
        for moved in moved {
            let (name, page) = &owners[moved.piece];
            if let Some(family) = self.families.get_mut(name) {
                Arc::make_mut(family).pages[*page].text = moved.text;
            }
        }
        let families = self.families.values().map(Arc::clone).collect();
        Published { families, rendered, series: self.series }
    }

    /// Makes the page ready to be sent, and gives its sizes: what a refresh does behind
    /// [`Self::apply`], for measurements.
    pub fn render(&mut self) -> PageSizes {
        let Rendered { text_bytes, gzip_bytes, .. } = self.publish().rendered;
        PageSizes { text_bytes, gzip_bytes }
    }
}

fn compare_names(a: &Arc<str>, b: &Arc<str>) -> std::cmp::Ordering {
    if Arc::ptr_eq(a, b) { std::cmp::Ordering::Equal } else { a.cmp(b) }
}

/// Makes the edits of one family: sorted, each series once, at its last state.
fn sorted_edits<'a>(runs: &[&'a [Item]], description: &Description) -> Vec<Edit<'a>> {
    let arrangement = description.arrangement();
    let mut edits: Vec<Edit<'a>> = runs
        .iter()
        .flat_map(|run| run.iter())
        .map(|item| {
            let (name, labels) = (item.key.name.as_bytes(), item.key.labels.as_bytes());
            Edit {
                place: arrangement.place(description.name.as_bytes(), name, labels),
                name,
                labels,
                state: item.state.map(|(value, id)| (NewValue::Float(value), id)),
            }
        })
        .collect();
    edits.sort_by(|a, b| a.place.cmp(&b.place));
    edits.reverse();
    edits.dedup_by(|later, kept| later.place == kept.place);
    edits.reverse();
    edits
}

#[cfg(test)]
pub(crate) mod tests;
