//! Which family a metric name belongs to, and what is said of that family.
//!
//! Every series may bring metadata of its own, and writers contradict each other. The series vote:
//! what most of them say holds, equal votes are decided by content, so that one bad push flips
//! nothing and every replica decides alike. What contradicts the text format is dissolved into
//! families of one name each, which never lose a sample.
//!
//! Names only ever meet within a *cluster*: the names that are equal without their suffixes.
//! Invariant: every name belongs to exactly one family, and no family's names, those
//! reserved for its suffixes included, belong to another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::family::Description;
use crate::model::series::{Metadata, MetricType};

/// Every suffix that makes one family's sample of a name, in either format.
const SUFFIXES: [&str; 6] = ["_bucket", "_sum", "_count", "_total", "_created", "_info"];

/// Returns the name of the cluster that `name` belongs to: the name without all its suffixes.
pub(super) fn cluster_of(name: &str) -> &str {
    let mut root = name;
    while let Some(shorter) = SUFFIXES.iter().find_map(|s| root.strip_suffix(s)) {
        if shorter.is_empty() {
            break;
        }
        root = shorter;
    }
    root
}

/// A name of a cluster, and what its series say: for each metadata how many they are.
#[derive(Debug, Clone)]
pub(super) struct NameVotes {
    pub(super) name: Arc<str>,
    pub(super) votes: Vec<(Arc<Metadata>, u64)>,
    /// Every series has bounds that readers of a histogram or summary take.
    pub(super) readable: bool,
}

/// A family as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FamilyPlan {
    pub(super) description: Description,
    /// The sample names, sorted.
    pub(super) members: Vec<Arc<str>>,
}

/// Returns the names that a family called `family` of this type reserves in the text format.
fn reserved(family: &str, metric_type: MetricType) -> Vec<String> {
    let suffixes: &[&str] = match metric_type {
        MetricType::Histogram => &["", "_bucket", "_sum", "_count"],
        MetricType::Summary => &["", "_sum", "_count"],
        _ => &[""],
    };
    suffixes.iter().map(|suffix| format!("{family}{suffix}")).collect()
}

/// Decides the families of one cluster.
pub(super) fn plan_cluster(names: &[NameVotes]) -> Vec<FamilyPlan> {
    let by_name: BTreeMap<&str, &NameVotes> = names.iter().map(|n| (&*n.name, n)).collect();
    let mut grouped = grouped_families(&by_name);
    dissolve_clashes(&mut grouped);
    let mut plans: Vec<_> = grouped
        .iter()
        .map(|(family, &metric_type)| {
            let members = members(&by_name, family, metric_type);
            let said =
                members.iter().flat_map(|n| &n.votes).filter(|(m, _)| m.metric_type == metric_type);
            describe(family.as_str().into(), metric_type, dominating(said), &members)
        })
        .collect();
    let taken: BTreeSet<Arc<str>> = plans.iter().flat_map(|p| p.members.iter().cloned()).collect();
    plans.extend(names.iter().filter(|n| !taken.contains(&n.name)).map(|name| {
        let said = dominating(&name.votes);
        let metric_type = match said.map_or(MetricType::Unknown, |m| m.metric_type) {
            MetricType::Histogram | MetricType::Summary | MetricType::GaugeHistogram => {
                MetricType::Unknown
            }
            plain => plain,
        };
        describe(Arc::clone(&name.name), metric_type, said, &[name])
    }));
    plans.sort_by(|a, b| a.description.name.cmp(&b.description.name));
    plans
}

fn describe(
    name: Arc<str>,
    metric_type: MetricType,
    said: Option<&Arc<Metadata>>,
    members: &[&NameVotes],
) -> FamilyPlan {
    let empty: Arc<str> = Arc::from("");
    let (help, unit) = said.map_or_else(
        || (Arc::clone(&empty), empty),
        |m| (Arc::clone(&m.help), Arc::clone(&m.unit)),
    );
    let mut members: Vec<_> = members.iter().map(|n| Arc::clone(&n.name)).collect();
    members.sort();
    FamilyPlan { description: Description { name, metric_type, help, unit }, members }
}

/// Returns what most series say; of equal votes the smallest content.
fn dominating<'a>(
    votes: impl IntoIterator<Item = &'a (Arc<Metadata>, u64)>,
) -> Option<&'a Arc<Metadata>> {
    let mut sums: BTreeMap<&Arc<Metadata>, u64> = BTreeMap::new();
    for (metadata, count) in votes {
        *sums.entry(metadata).or_default() += count;
    }
    sums.into_iter().max_by_key(|&(metadata, count)| (count, Reverse(metadata))).map(|(m, _)| m)
}

/// Finds the histograms and summaries that more series vote for than against.
fn grouped_families(names: &BTreeMap<&str, &NameVotes>) -> BTreeMap<String, MetricType> {
    let mut candidates = BTreeSet::new();
    for name in names.values() {
        if let Some(said) = dominating(&name.votes)
            && matches!(said.metric_type, MetricType::Histogram | MetricType::Summary)
        {
            candidates.insert(said.metric_type.family_of(&name.name).to_owned());
        }
    }
    candidates
        .into_iter()
        .filter_map(|family| {
            let (weight, Reverse(metric_type)) = [MetricType::Histogram, MetricType::Summary]
                .map(|t| (votes_for(&members(names, &family, t), t), Reverse(t)))
                .into_iter()
                .max()?;
            let against: u64 = reserved(&family, metric_type)
                .iter()
                .filter_map(|n| names.get(n.as_str()))
                .flat_map(|n| &n.votes)
                .filter(|(m, _)| m.metric_type != metric_type)
                .map(|(_, count)| count)
                .sum();
            // A sample that is called like a histogram has no place beside it.
            let homeless =
                metric_type == MetricType::Histogram && names.contains_key(family.as_str());
            let readable = members(names, &family, metric_type).iter().all(|name| name.readable);
            (weight > 0 && weight >= against && !homeless && readable)
                .then_some((family, metric_type))
        })
        .collect()
}

fn votes_for(members: &[&NameVotes], metric_type: MetricType) -> u64 {
    let said = members.iter().flat_map(|n| &n.votes);
    said.filter(|(m, _)| m.metric_type == metric_type).map(|(_, count)| count).sum()
}

/// Returns the live names that a family of this type takes in.
fn members<'a>(
    names: &BTreeMap<&str, &'a NameVotes>,
    family: &str,
    metric_type: MetricType,
) -> Vec<&'a NameVotes> {
    reserved(family, metric_type).iter().filter_map(|n| names.get(n.as_str()).copied()).collect()
}

/// Removes the grouped families of which a reserved name is reserved by another, too.
///
/// One pass is enough: what a dissolved family still needs are its own sample names.
fn dissolve_clashes(grouped: &mut BTreeMap<String, MetricType>) {
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    for (family, &metric_type) in &*grouped {
        for name in reserved(family, metric_type) {
            *claims.entry(name).or_default() += 1;
        }
    }
    grouped.retain(|family, metric_type| {
        reserved(family, *metric_type).iter().all(|name| claims.get(name) == Some(&1))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(metric_type: &str, help: &str) -> Arc<Metadata> {
        Arc::new(Metadata {
            metric_type: MetricType::parse(metric_type).expect("a type"),
            help: help.into(),
            unit: "".into(),
        })
    }

    /// Plans from `(name, [(type, series)])`; answers `family type: members`.
    fn plan(names: &[(&str, &[(&str, u64)])]) -> Vec<String> {
        let names: Vec<_> = names
            .iter()
            .map(|(name, votes)| NameVotes {
                name: (*name).into(),
                votes: votes.iter().map(|(t, n)| (says(t, ""), *n)).collect(),
                readable: true,
            })
            .collect();
        plan_cluster(&names)
            .iter()
            .map(|p| {
                let word = p.description.metric_type.as_str();
                format!("{} {word}: {}", p.description.name, p.members.join(" "))
            })
            .collect()
    }

    #[test]
    fn clusters_ignore_suffixes() {
        for name in ["x", "x_bucket", "x_count", "x_sum_total", "x_info", "x_created"] {
            assert_eq!(cluster_of(name), "x");
        }
        assert_eq!(cluster_of("_total"), "_total");
        assert_eq!(cluster_of("x_seconds"), "x_seconds");
    }

    #[test]
    fn a_histogram_takes_its_names_in() {
        let h: &[(&str, u64)] = &[("histogram", 3)];
        let names = [("x_bucket", h), ("x_count", h), ("x_sum", h)];
        assert_eq!(plan(&names), ["x histogram: x_bucket x_count x_sum"]);
    }

    #[test]
    fn the_most_series_decide_and_a_few_others_join() {
        let names: [(&str, &[(&str, u64)]); 3] = [
            ("x_bucket", &[("histogram", 9)]),
            ("x_count", &[("counter", 2), ("histogram", 1)]),
            ("x_sum", &[("histogram", 1)]),
        ];
        assert_eq!(plan(&names), ["x histogram: x_bucket x_count x_sum"]);
    }

    #[test]
    fn a_histogram_that_is_outvoted_is_dissolved() {
        let names: [(&str, &[(&str, u64)]); 2] =
            [("x_bucket", &[("histogram", 2)]), ("x_count", &[("counter", 9)])];
        assert_eq!(plan(&names), ["x_bucket unknown: x_bucket", "x_count counter: x_count"]);
    }

    #[test]
    fn a_sample_called_like_a_histogram_dissolves_it() {
        let names: [(&str, &[(&str, u64)]); 2] =
            [("x", &[("gauge", 1)]), ("x_bucket", &[("histogram", 9)])];
        assert_eq!(plan(&names), ["x gauge: x", "x_bucket unknown: x_bucket"]);
    }

    #[test]
    fn grouped_families_that_reserve_one_name_are_dissolved() {
        let h: &[(&str, u64)] = &[("histogram", 9)];
        assert_eq!(
            plan(&[("x_bucket", h), ("x_count_bucket", h)]),
            ["x_bucket unknown: x_bucket", "x_count_bucket unknown: x_count_bucket"]
        );
        assert_eq!(
            plan(&[("x_bucket", h), ("x_count", h), ("x_count_bucket", h)]),
            ["x histogram: x_bucket x_count", "x_count_bucket unknown: x_count_bucket"]
        );
    }

    #[test]
    fn ties_are_decided_by_content_and_silence_is_no_vote() {
        assert_eq!(plan(&[("x", &[("gauge", 1), ("counter", 1)])]), ["x counter: x"]);
        assert_eq!(plan(&[("x", &[])]), ["x unknown: x"]);
        assert_eq!(plan(&[("x", &[("gaugehistogram", 1)])]), ["x unknown: x"]);
    }
}
