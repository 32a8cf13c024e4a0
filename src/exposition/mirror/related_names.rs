//! The mirrored names with one base name: what their series say, and which families hold their lines.
//!
//! Which families there should be is decided in [`super::family_plan`]; this carries it out.
//! Invariant: after [`RelatedNames::update_families`] every name with series has exactly one family,
//! which holds all its lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::family_plan::{FamilyPlan, NameVotes, neighbourhood, plan_families};
use super::metadata_table::MetadataTable;
use crate::exposition::family::Family;
use crate::exposition::family::line::{LineParts, has_unreadable_bound};
use crate::exposition::family::page::{LineUpdate, LineValue, MetadataId, Scratch};

/// With more related names than this, only those near a change are looked at. A histogram has at most eight names.
const FEW_NAMES: usize = 8;

/// All families, by name.
pub(super) type Families = BTreeMap<Arc<str>, Arc<Family>>;

/// All names with the same base name, see [`super::family_plan::base_name`].
#[derive(Debug, Default)]
pub(super) struct RelatedNames {
    pub(super) names: BTreeMap<Arc<str>, MirroredName>,
}

/// What the series of one name say.
#[derive(Debug, Default)]
pub(super) struct MirroredName {
    /// The number of series with each metadata; never 0.
    pub(super) votes: BTreeMap<MetadataId, u64>,
    /// The number of series that can't be part of a histogram or summary.
    unreadable: u64,
    /// The family that holds the lines; `None` while there are none.
    pub(super) family: Option<Arc<str>>,
}

impl MirroredName {
    /// Forgets all counts.
    pub(super) fn reset_counts(&mut self) {
        self.votes.clear();
        self.unreadable = 0;
    }

    /// Counts a new series with these labels.
    pub(super) fn add_series(&mut self, labels: &[u8]) {
        self.unreadable += u64::from(has_unreadable_bound(labels));
    }

    /// Counts one series with these labels less.
    pub(super) fn remove_series(&mut self, labels: &[u8]) {
        self.unreadable -= u64::from(has_unreadable_bound(labels));
    }

    /// Counts one more series with this metadata.
    pub(super) fn add_vote(&mut self, id: MetadataId) {
        *self.votes.entry(id).or_default() += 1;
    }

    /// Counts one series with this metadata less.
    pub(super) fn remove_vote(&mut self, id: MetadataId) {
        if let Some(count) = self.votes.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.votes.remove(&id);
            }
        }
    }
}

impl RelatedNames {
    /// Forgets names without series, decides the families again that the names in `changed` may affect, and moves lines
    /// where the decision has changed. The cost does not grow with the number of other related names.
    pub(super) fn update_families(
        &mut self,
        changed: &BTreeSet<Arc<str>>,
        families: &mut Families,
        metadata: &MetadataTable,
        scratch: &mut Scratch,
    ) {
        let affected = self.near(changed);
        // The present families of these names: those that are not planned again have no lines any more.
        let former: BTreeSet<Arc<str>> =
            affected.iter().filter_map(|name| self.names.get(name)?.family.clone()).collect();
        // Every series has a vote, if only for "no metadata": without votes there are no series.
        for name in &affected {
            if self.names.get(name).is_some_and(|name| name.votes.is_empty()) {
                self.names.remove(name);
            }
        }
        let mut plans = plan_families(&self.votes(&self.near(&affected), metadata));
        plans.retain(|plan| plan.members.iter().any(|member| affected.contains(member)));
        self.move_lines(&plans, families, scratch);
        // Now each planned family holds its lines or does not exist yet. Headers may still differ.
        for plan in &plans {
            let header = &plan.header;
            let family = families
                .entry(Arc::clone(&header.name))
                .or_insert_with(|| Arc::new(Family::new(header.clone(), scratch)));
            if family.header != *header {
                Arc::make_mut(family).set_header(header.clone(), scratch);
            }
            for member in &plan.members {
                if let Some(name) = self.names.get_mut(member) {
                    name.family = Some(Arc::clone(&header.name));
                }
            }
        }
        let planned: BTreeSet<_> = plans.iter().map(|p| Arc::clone(&p.header.name)).collect();
        for removed in former.difference(&planned) {
            families.remove(removed);
        }
    }

    /// Returns the names whose families may change with the votes of `names`. Of few names it returns all.
    pub(super) fn near(&self, names: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        if self.names.len() <= FEW_NAMES {
            return self.names.keys().cloned().collect();
        }
        let existing = |name: &String| self.names.get_key_value(name.as_str());
        names
            .iter()
            .flat_map(|name| neighbourhood(name))
            .filter_map(|name| existing(&name).map(|(name, _)| Arc::clone(name)))
            .collect()
    }

    fn votes(&self, names: &BTreeSet<Arc<str>>, metadata: &MetadataTable) -> Vec<NameVotes> {
        // The id for "no metadata" is not in the table, and so is no vote.
        let votes_of = |name: &MirroredName| {
            let votes = name.votes.iter();
            votes.filter_map(|(&id, &n)| Some((Arc::clone(metadata.get(id)?), n))).collect()
        };
        names
            .iter()
            .filter_map(|name| self.names.get_key_value(name))
            .map(|(name, mirrored)| NameVotes {
                name: Arc::clone(name),
                votes: votes_of(mirrored),
                readable: mirrored.unreadable == 0,
            })
            .collect()
    }

    /// Builds the families again that get lines from others, lose lines to others, or change their
    /// order. This is rare: it costs as much as these families have lines.
    fn move_lines(&self, plans: &[FamilyPlan], families: &mut Families, scratch: &mut Scratch) {
        // 1. Which families of today hold lines that have to move?
        let misfits = plans.iter().filter(|plan| !self.fits(plan, families));
        let sources: BTreeSet<Arc<str>> =
            misfits.flat_map(|plan| self.holders(plan, families)).collect();
        if sources.is_empty() {
            return;
        }
        // 2. Which planned families get their lines? Those that don't fit, and those whose present family
        // is taken apart: it may have to keep some of its lines.
        let targets: Vec<&FamilyPlan> = plans
            .iter()
            .filter(|plan| sources.contains(&plan.header.name) || !self.fits(plan, families))
            .collect();
        let old: Vec<_> = sources.iter().filter_map(|name| families.remove(name)).collect();
        // 3. Distribute all lines by their name. A name without a target has no series any more.
        let mut target_of: HashMap<&[u8], usize> = HashMap::new();
        for (i, plan) in targets.iter().enumerate() {
            target_of.extend(plan.members.iter().map(|member| (member.as_bytes(), i)));
        }
        let mut updates: Vec<Vec<LineUpdate<'_>>> = targets.iter().map(|_| Vec::new()).collect();
        for (line, id) in old.iter().flat_map(|family| family.lines()) {
            let LineParts { name, labels, value } = LineParts::parse(line);
            let Some(&target) = target_of.get(name) else { continue };
            updates[target].push(LineUpdate {
                sort_key: targets[target].header.sorter().sort_key(name, labels),
                name,
                labels,
                value: Some((LineValue::Rendered(value), id)),
            });
        }
        // 4. Write them in the order of their new family.
        for (plan, mut updates) in targets.iter().zip(updates) {
            updates.sort_by(|a, b| a.sort_key.cmp(&b.sort_key));
            let mut family = Family::new(plan.header.clone(), scratch);
            family.apply(&updates, scratch, &mut Vec::new());
            families.insert(Arc::clone(&plan.header.name), Arc::new(family));
        }
    }

    /// Returns whether no line has to move for a planned family.
    fn fits(&self, plan: &FamilyPlan, families: &Families) -> bool {
        let name = &plan.header.name;
        let same_order = families
            .get(name)
            .is_none_or(|family| family.header.line_order() == plan.header.line_order());
        same_order && self.holders_of_members(plan).all(|holder| holder == name)
    }

    /// Returns the families that hold lines of a planned family's members now.
    fn holders_of_members(&self, plan: &FamilyPlan) -> impl Iterator<Item = &Arc<str>> {
        plan.members.iter().filter_map(|member| self.names.get(member)?.family.as_ref())
    }

    /// Returns the families that hold lines of a planned family now, and the family with its name.
    fn holders(&self, plan: &FamilyPlan, families: &Families) -> Vec<Arc<str>> {
        let same = families.get_key_value(&plan.header.name).map(|(name, _)| name);
        self.holders_of_members(plan).chain(same).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::mirror::Mirror;
    use crate::exposition::mirror::tests::{key, metadata, upsert};
    use crate::model::series::MetricType;
    use crate::store::Change;

    #[test]
    fn a_family_two_suffixes_away_is_decided_again() {
        let histogram = metadata(MetricType::Histogram, "");
        let mut mirror = Mirror::new(Arc::default());
        // So many related names that only those near a change are looked at.
        let others =
            (0..FEW_NAMES).map(|i| upsert(&format!("x{}", "_total".repeat(i)), "", 1.0, None));
        mirror.apply(others.skip(1).collect());
        mirror.apply(vec![
            upsert("x_bucket", "le=\"1\"", 1.0, Some(&histogram)),
            upsert("x_count", "", 1.0, Some(&histogram)),
        ]);
        assert!(mirror.names["x"].names.len() > FEW_NAMES);
        let family_of = |mirror: &Mirror| mirror.names["x"].names["x_bucket"].family.clone();
        assert_eq!(family_of(&mirror).as_deref(), Some("x"));
        // A histogram `x_sum` reserves a name of the histogram `x`: neither can be shown as one.
        mirror.apply(vec![upsert("x_sum_bucket", "le=\"1\"", 1.0, Some(&histogram))]);
        assert_eq!(family_of(&mirror).as_deref(), Some("x_bucket"));
        mirror.apply(vec![Change::Deleted(key("x_sum_bucket", "le=\"1\""))]);
        assert_eq!(family_of(&mirror).as_deref(), Some("x"));
    }
}
