//! The names that can clash with each other, what their series say, and which families hold
//! their lines.
//!
//! What should be is decided in [`super::naming`]; this brings about what is.
//! Invariant: after [`Cluster::settle`] every name with series has exactly one family, which holds
//! all its lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::family::Family;
use super::metadata::MetadataTable;
use super::naming::{FamilyPlan, NameVotes, plan_cluster};
use super::order::{LineParts, has_unreadable_bound};
use super::page::{Edit, MetadataId, NewValue, Scratch};

/// All families, by name.
pub(super) type Families = BTreeMap<Arc<str>, Arc<Family>>;

/// A cluster, see [`super::naming::cluster_of`].
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) names: BTreeMap<Arc<str>, Name>,
    families: BTreeSet<Arc<str>>,
}

/// What the series of one name say.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// How many series have each metadata; no zeros.
    pub(super) votes: BTreeMap<MetadataId, u64>,
    /// How many series can't stand in a histogram or summary.
    unreadable: u64,
    /// The family that holds the lines; `None` while there are none.
    pub(super) family: Option<Arc<str>>,
}

impl Name {
    /// Starts to count again.
    pub(super) fn clear(&mut self) {
        self.votes.clear();
        self.unreadable = 0;
    }

    /// Takes in a series with these labels.
    pub(super) fn enter(&mut self, labels: &[u8]) {
        self.unreadable += u64::from(has_unreadable_bound(labels));
    }

    /// Lets a series with these labels go.
    pub(super) fn leave(&mut self, labels: &[u8]) {
        self.unreadable -= u64::from(has_unreadable_bound(labels));
    }

    /// Counts one more series.
    pub(super) fn vote(&mut self, id: MetadataId) {
        *self.votes.entry(id).or_default() += 1;
    }

    /// Counts one series less.
    pub(super) fn unvote(&mut self, id: MetadataId) {
        if let Some(count) = self.votes.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.votes.remove(&id);
            }
        }
    }
}

impl Cluster {
    /// Forgets the names without series, decides the families again, and moves lines where
    /// that changed something.
    pub(super) fn settle(
        &mut self,
        families: &mut Families,
        metadata: &MetadataTable,
        scratch: &mut Scratch,
    ) {
        self.names.retain(|_, name| !name.votes.is_empty());
        let plans = plan_cluster(&self.votes(metadata));
        self.move_lines(&plans, families, scratch);
        for plan in &plans {
            let description = &plan.description;
            let family = families
                .entry(Arc::clone(&description.name))
                .or_insert_with(|| Arc::new(Family::described(description.clone(), scratch)));
            if family.description != *description {
                Arc::make_mut(family).describe(description.clone(), scratch);
            }
            for member in &plan.members {
                if let Some(name) = self.names.get_mut(member) {
                    name.family = Some(Arc::clone(&description.name));
                }
            }
        }
        let planned: BTreeSet<_> = plans.iter().map(|p| Arc::clone(&p.description.name)).collect();
        for gone in self.families.difference(&planned) {
            families.remove(gone);
        }
        self.families = planned;
    }

    fn votes(&self, metadata: &MetadataTable) -> Vec<NameVotes> {
        let said = |name: &Name| {
            let votes = name.votes.iter();
            votes.filter_map(|(&id, &n)| Some((Arc::clone(metadata.get(id)?), n))).collect()
        };
        self.names
            .iter()
            .map(|(name, votes)| NameVotes {
                name: Arc::clone(name),
                votes: said(votes),
                readable: votes.unreadable == 0,
            })
            .collect()
    }

    /// Builds the families anew that get lines of others, lose lines to others, or are
    /// sorted in another way. This is rare: it costs as much as these families have lines.
    fn move_lines(&self, plans: &[FamilyPlan], families: &mut Families, scratch: &mut Scratch) {
        let misfits = plans.iter().filter(|plan| !self.fits(plan, families));
        let donors: BTreeSet<Arc<str>> =
            misfits.flat_map(|plan| self.holders(plan, families)).collect();
        if donors.is_empty() {
            return;
        }
        let affected: Vec<&FamilyPlan> = plans
            .iter()
            .filter(|plan| donors.contains(&plan.description.name) || !self.fits(plan, families))
            .collect();
        let old: Vec<_> = donors.iter().filter_map(|name| families.remove(name)).collect();
        let mut homes: HashMap<&[u8], usize> = HashMap::new();
        for (i, plan) in affected.iter().enumerate() {
            homes.extend(plan.members.iter().map(|member| (member.as_bytes(), i)));
        }
        let mut edits: Vec<Vec<Edit<'_>>> = affected.iter().map(|_| Vec::new()).collect();
        for (line, id) in old.iter().flat_map(|family| family.lines()) {
            let LineParts { name, labels, value } = LineParts::of(line);
            let Some(&home) = homes.get(name) else { continue };
            let description = &affected[home].description;
            let family = description.name.as_bytes();
            edits[home].push(Edit {
                place: description.arrangement().place(family, name, labels),
                name,
                labels,
                state: Some((NewValue::Text(value), id)),
            });
        }
        for (plan, mut edits) in affected.iter().zip(edits) {
            edits.sort_by(|a, b| a.place.cmp(&b.place));
            let mut family = Family::described(plan.description.clone(), scratch);
            family.apply(&edits, scratch, &mut Vec::new());
            families.insert(Arc::clone(&plan.description.name), Arc::new(family));
        }
    }

    /// Returns whether no line has to move for a planned family.
    fn fits(&self, plan: &FamilyPlan, families: &Families) -> bool {
        let name = &plan.description.name;
        let sorted_so = families.get(name).is_none_or(|family| {
            family.description.arrangement() == plan.description.arrangement()
        });
        sorted_so && self.holders_of_members(plan).all(|holder| holder == name)
    }

    fn holders_of_members(&self, plan: &FamilyPlan) -> impl Iterator<Item = &Arc<str>> {
        plan.members.iter().filter_map(|member| self.names.get(member)?.family.as_ref())
    }

    /// Returns the families that hold lines of a planned family now, and the one of its name.
    fn holders(&self, plan: &FamilyPlan, families: &Families) -> Vec<Arc<str>> {
        let same = families.get_key_value(&plan.description.name).map(|(name, _)| name);
        self.holders_of_members(plan).chain(same).cloned().collect()
    }
}
