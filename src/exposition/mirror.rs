//! The mirror: all series of the store as families of rendered pages, brought up to date by deltas.
//!
//! Not a store: it only knows what the deltas said, and it is thrown away and built again
//! from a snapshot when a cursor is gone.
//! Invariant: after the same series, however they came about, the mirror shows the same page.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::blocks::{BlockCache, PageReuse, Piece, Rendered, is_border};
use super::family::Family;
use super::metadata::MetadataTable;
use super::naming::{FamilyPlan, NameVotes, cluster_of, plan_cluster};
use super::order::LineParts;
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
    families: BTreeMap<Arc<str>, Arc<Family>>,
    metadata: MetadataTable,
    blocks: BlockCache,
    scratch: Scratch,
    series: usize,
    left_out: u64,
}

/// The names that can clash with each other.
#[derive(Debug, Default)]
struct Cluster {
    names: BTreeMap<Arc<str>, Name>,
    families: Vec<Arc<str>>,
}

/// What the series of one name say.
#[derive(Debug, Default)]
struct Name {
    votes: BTreeMap<MetadataId, u64>,
    /// The family that holds the lines.
    family: Arc<str>,
}

impl Name {
    fn vote(&mut self, id: MetadataId) {
        *self.votes.entry(id).or_default() += 1;
    }

    fn unvote(&mut self, id: MetadataId) {
        if let Some(count) = self.votes.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.votes.remove(&id);
            }
        }
    }
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

    /// Gives the number of mirrored series.
    pub fn series(&self) -> usize {
        self.series
    }

    /// Gives how many upserts were left out because of their names, and starts at 0 again.
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
            for (_, id) in run.iter().filter_map(|item| item.state) {
                name.vote(id);
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

    /// Gives the key of a name's cluster, without a new allocation where there is one.
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
                name.votes.clear();
            }
            by_family.entry(Arc::clone(&name.family)).or_default().push(run);
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
            self.metadata.remove(id);
            self.series -= 1;
            ids.insert(id);
        }
        if let Some(id) = now {
            name.vote(id);
            self.metadata.add(id);
            self.series += 1;
        }
        if !touched.contains(root) {
            touched.insert(Arc::from(root));
        }
    }

    /// Decides the families of a cluster again, and moves lines where that changed something.
    fn settle(&mut self, root: &Arc<str>) {
        let Some(cluster) = self.clusters.get_mut(root) else { return };
        cluster.names.retain(|_, name| !name.votes.is_empty());
        let votes: Vec<NameVotes> = cluster
            .names
            .iter()
            .map(|(name, said)| NameVotes {
                name: Arc::clone(name),
                votes: said
                    .votes
                    .iter()
                    .filter_map(|(&id, &n)| Some((Arc::clone(self.metadata.get(id)?), n)))
                    .collect(),
            })
            .collect();
        let plans = plan_cluster(&votes);
        let stays = plans.iter().all(|plan| fits(plan, cluster, &self.families));
        if stays {
            for plan in &plans {
                if let Some(family) = self.families.get_mut(&plan.description.name)
                    && family.description != plan.description
                {
                    Arc::make_mut(family).describe(plan.description.clone(), &mut self.scratch);
                }
            }
        } else {
            rebuild(cluster, &plans, &mut self.families, &mut self.scratch);
        }
        let planned: Vec<_> = plans.iter().map(|p| Arc::clone(&p.description.name)).collect();
        for gone in cluster.families.iter().filter(|f| !planned.contains(f)) {
            self.families.remove(gone);
        }
        cluster.families = planned;
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
fn sorted_edits<'a>(
    runs: &[&'a [Item]],
    description: &super::family::Description,
) -> Vec<Edit<'a>> {
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

/// Tells whether the lines of a planned family already are where they should be.
fn fits(plan: &FamilyPlan, cluster: &Cluster, families: &BTreeMap<Arc<str>, Arc<Family>>) -> bool {
    let name = &plan.description.name;
    families
        .get(name)
        .is_some_and(|family| family.description.arrangement() == plan.description.arrangement())
        && plan.members.iter().all(|member| {
            cluster.names.get(member).is_some_and(|assigned| assigned.family == *name)
        })
}

/// Puts all lines of a cluster into the families of `plans`.
fn rebuild(
    cluster: &mut Cluster,
    plans: &[FamilyPlan],
    families: &mut BTreeMap<Arc<str>, Arc<Family>>,
    scratch: &mut Scratch,
) {
    let old: Vec<_> = cluster.families.iter().filter_map(|name| families.remove(name)).collect();
    for plan in plans {
        let mut family = Family::new(plan, scratch);
        let description = &plan.description;
        let wanted: HashSet<&[u8]> = plan.members.iter().map(|m| m.as_bytes()).collect();
        let mut edits: Vec<Edit<'_>> = old
            .iter()
            .flat_map(|family| family.lines())
            .filter_map(|(line, id)| {
                let LineParts { name, labels, value } = LineParts::of(line);
                wanted.contains(name).then(|| Edit {
                    place: description.arrangement().place(
                        description.name.as_bytes(),
                        name,
                        labels,
                    ),
                    name,
                    labels,
                    state: Some((NewValue::Text(value), id)),
                })
            })
            .collect();
        edits.sort_by(|a, b| a.place.cmp(&b.place));
        family.apply(&edits, scratch, &mut Vec::new());
        for member in &plan.members {
            if let Some(name) = cluster.names.get_mut(member) {
                name.family = Arc::clone(&description.name);
            }
        }
        families.insert(Arc::clone(&description.name), Arc::new(family));
    }
}

#[cfg(test)]
pub(crate) mod tests;
