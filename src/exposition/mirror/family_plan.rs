//! Which family a metric name belongs to, and the metadata of that family.
//!
//! Every series may bring metadata of its own, and writers contradict each other. The series vote: first on the
//! type, then those for the winning type on the help text and on the unit, one by one. Ties are decided by the
//! content. So one wrong push changes nothing, a minority does not win since the majority has several help texts, and
//! every replica decides alike. A histogram or summary that would contradict the text
//! format is split into families of one name each, so that no sample is ever lost.
//!
//! Only names with the same *base name*, the name without all its suffixes, can belong to one family. Within these, the
//! family of a name depends only on its [`neighbourhood`].
//! Invariant: every name belongs to exactly one family, and no name of a family, including those
//! reserved for its suffixes, belongs to another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::exposition::family::FamilyHeader;
use crate::model::series::{Metadata, MetricType};

/// Every suffix of a sample's name, in either format.
const SUFFIXES: [&str; 6] = ["_bucket", "_sum", "_count", "_total", "_created", "_info"];

/// Returns the name without all its suffixes.
pub(super) fn base_name(name: &str) -> &str {
    let mut base = name;
    while let Some(shorter) = SUFFIXES.iter().find_map(|s| base.strip_suffix(s)) {
        if shorter.is_empty() {
            break;
        }
        base = shorter;
    }
    base
}

/// The suffixes by which the names of histograms and summaries follow from that of their family.
const COMPOSITE_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// How many suffixes away from a name those names are, in each direction, on which its family can depend.
///
/// A name belongs to the family of its own name, or to that of its name without one suffix. Whether that is a histogram
/// or summary depends on the votes of its members, which have one suffix more; and whether it keeps its names, on the
/// families with one suffix more or less, and on their members.
const REACH: usize = 2;

/// Returns the names, existing or not, whose families may change with the votes of `name`; `name` is among them.
pub(super) fn neighbourhood(name: &str) -> BTreeSet<String> {
    let mut ancestors = vec![name];
    for _ in 0..REACH {
        let shorter = ancestors.last().and_then(|last| {
            COMPOSITE_SUFFIXES.iter().find_map(|suffix| last.strip_suffix(suffix))
        });
        ancestors.extend(shorter.filter(|shorter| !shorter.is_empty()));
    }
    let mut found = BTreeSet::new();
    for ancestor in ancestors {
        let mut level = vec![ancestor.to_owned()];
        for _ in 0..=REACH {
            let longer =
                level.iter().flat_map(|name| COMPOSITE_SUFFIXES.map(|s| format!("{name}{s}")));
            let longer = longer.collect();
            found.extend(std::mem::replace(&mut level, longer));
        }
    }
    found
}

/// A name, and the number of its series with each metadata. Series without metadata have no vote.
#[derive(Debug, Clone)]
pub(super) struct NameVotes {
    pub(super) name: Arc<str>,
    pub(super) votes: Vec<(Arc<Metadata>, u64)>,
    /// The bounds of all series can be read by readers of a histogram or summary.
    pub(super) readable: bool,
}

/// A family as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FamilyPlan {
    pub(super) header: FamilyHeader,
    /// The names of its samples, sorted.
    pub(super) members: Vec<Arc<str>>,
}

/// Decides the families of all names with one base name; or of some of them, which is right for each name whose whole
/// [`neighbourhood`] is among them.
pub(super) fn plan_families(names: &[NameVotes]) -> Vec<FamilyPlan> {
    let by_name: BTreeMap<&str, &NameVotes> = names.iter().map(|n| (&*n.name, n)).collect();
    // 1. Histograms and summaries, which have samples of several names.
    let mut composite = composite_families(&by_name);
    remove_conflicting(&mut composite);
    let mut plans: Vec<_> = composite
        .iter()
        .map(|(family, &metric_type)| {
            let members = members(&by_name, family, metric_type);
            plan(family.as_str().into(), metric_type, metric_type, &members)
        })
        .collect();
    // 2. All other names are families of their own. A single name can't be a histogram or summary.
    let taken: BTreeSet<Arc<str>> = plans.iter().flat_map(|p| p.members.iter().cloned()).collect();
    plans.extend(names.iter().filter(|n| !taken.contains(&n.name)).map(|name| {
        let winner = most_voted_type(name).unwrap_or(MetricType::Unknown);
        let shown = match winner {
            MetricType::Histogram | MetricType::Summary | MetricType::GaugeHistogram => {
                MetricType::Unknown
            }
            single => single,
        };
        plan(Arc::clone(&name.name), shown, winner, &[name])
    }));
    plans.sort_by(|a, b| a.header.name.cmp(&b.header.name));
    plans
}

/// Returns the histograms and summaries that at least as many series vote for as against.
fn composite_families(names: &BTreeMap<&str, &NameVotes>) -> BTreeMap<String, MetricType> {
    // A family is considered as soon as one of its names votes for it.
    let mut candidates = BTreeSet::new();
    for name in names.values() {
        if let Some(winner @ (MetricType::Histogram | MetricType::Summary)) = most_voted_type(name)
        {
            candidates.insert(winner.family_of(&name.name).to_owned());
        }
    }
    candidates
        .into_iter()
        .filter_map(|family| {
            let (votes, Reverse(metric_type)) = [MetricType::Histogram, MetricType::Summary]
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
            // A histogram has no sample with the name of the family itself.
            let bare_sample =
                metric_type == MetricType::Histogram && names.contains_key(family.as_str());
            let readable = members(names, &family, metric_type).iter().all(|name| name.readable);
            (votes > 0 && votes >= against && !bare_sample && readable)
                .then_some((family, metric_type))
        })
        .collect()
}

/// Removes families that reserve a name which another of them reserves as well.
///
/// One pass is enough: what remains of a removed family are families of its sample names, and these
/// belong to no other family.
fn remove_conflicting(composite: &mut BTreeMap<String, MetricType>) {
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    for (family, &metric_type) in &*composite {
        for name in reserved(family, metric_type) {
            *claims.entry(name).or_default() += 1;
        }
    }
    composite.retain(|family, metric_type| {
        reserved(family, *metric_type).iter().all(|name| claims.get(name) == Some(&1))
    });
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

/// Returns the names with series that a family of this type contains.
fn members<'a>(
    names: &BTreeMap<&str, &'a NameVotes>,
    family: &str,
    metric_type: MetricType,
) -> Vec<&'a NameVotes> {
    reserved(family, metric_type).iter().filter_map(|n| names.get(n.as_str()).copied()).collect()
}

fn votes_for(members: &[&NameVotes], metric_type: MetricType) -> u64 {
    let votes = members.iter().flat_map(|n| &n.votes);
    votes.filter(|(m, _)| m.metric_type == metric_type).map(|(_, count)| count).sum()
}

/// Returns the type that most series of a name vote for.
fn most_voted_type(name: &NameVotes) -> Option<MetricType> {
    most_voted(name.votes.iter().map(|(metadata, count)| (metadata.metric_type, *count)))
}

/// Returns what has the most votes; of several the smallest.
fn most_voted<T: Ord>(votes: impl Iterator<Item = (T, u64)>) -> Option<T> {
    let mut sums: BTreeMap<T, u64> = BTreeMap::new();
    for (what, count) in votes {
        *sums.entry(what).or_default() += count;
    }
    sums.into_iter().min_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0))).map(|(what, _)| what)
}

/// Plans a family that is shown as `metric_type`. The voters for `winner` decide on help text and unit: the votes for
/// other types have lost.
fn plan(
    name: Arc<str>,
    metric_type: MetricType,
    winner: MetricType,
    members: &[&NameVotes],
) -> FamilyPlan {
    let votes = || {
        let votes = members.iter().flat_map(|name| &name.votes);
        votes.filter(move |(metadata, _)| metadata.metric_type == winner)
    };
    let help = most_voted(votes().map(|(metadata, count)| (&metadata.help, *count)));
    let unit = most_voted(votes().map(|(metadata, count)| (&metadata.unit, *count)));
    let (help, unit) = (help.cloned().unwrap_or_default(), unit.cloned().unwrap_or_default());
    let mut members: Vec<_> = members.iter().map(|n| Arc::clone(&n.name)).collect();
    members.sort();
    FamilyPlan { header: FamilyHeader { name, metric_type, help, unit }, members }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(metric_type: &str, help: &str) -> Arc<Metadata> {
        Arc::new(Metadata {
            metric_type: MetricType::parse(metric_type).expect("a type"),
            help: help.into(),
            unit: "".into(),
        })
    }

    /// Plans from `(name, [(type, series)])`; returns `family type: members`.
    fn planned(names: &[(&str, &[(&str, u64)])]) -> Vec<String> {
        let names: Vec<_> = names
            .iter()
            .map(|(name, votes)| NameVotes {
                name: (*name).into(),
                votes: votes.iter().map(|(t, n)| (metadata(t, ""), *n)).collect(),
                readable: true,
            })
            .collect();
        plan_families(&names)
            .iter()
            .map(|p| {
                let word = p.header.metric_type.as_str();
                format!("{} {word}: {}", p.header.name, p.members.join(" "))
            })
            .collect()
    }

    #[test]
    fn the_base_name_has_no_suffix() {
        for name in ["x", "x_bucket", "x_count", "x_sum_total", "x_info", "x_created"] {
            assert_eq!(base_name(name), "x");
        }
        assert_eq!(base_name("_total"), "_total");
        assert_eq!(base_name("x_seconds"), "x_seconds");
    }

    #[test]
    fn a_histogram_contains_its_names() {
        let h: &[(&str, u64)] = &[("histogram", 3)];
        let names = [("x_bucket", h), ("x_count", h), ("x_sum", h)];
        assert_eq!(planned(&names), ["x histogram: x_bucket x_count x_sum"]);
    }

    #[test]
    fn the_majority_decides_and_the_others_join() {
        let names: [(&str, &[(&str, u64)]); 3] = [
            ("x_bucket", &[("histogram", 9)]),
            ("x_count", &[("counter", 2), ("histogram", 1)]),
            ("x_sum", &[("histogram", 1)]),
        ];
        assert_eq!(planned(&names), ["x histogram: x_bucket x_count x_sum"]);
    }

    #[test]
    fn type_help_and_unit_are_voted_on_one_by_one() {
        let about = |metric_type: MetricType, help: &str, unit: &str| {
            let (help, unit) = (help.into(), unit.into());
            Arc::new(Metadata { metric_type, help, unit })
        };
        let votes = vec![
            (about(MetricType::Gauge, "one", "s"), 3),
            (about(MetricType::Gauge, "two", "m"), 3),
            (about(MetricType::Gauge, "three", "m"), 2),
            (about(MetricType::Counter, "other", "h"), 4),
        ];
        let plans = plan_families(&[NameVotes { name: "x".into(), votes, readable: true }]);
        let header = &plans[0].header;
        assert_eq!(
            (header.metric_type, &*header.help, &*header.unit),
            (MetricType::Gauge, "one", "m")
        );
    }

    #[test]
    fn a_histogram_that_is_outvoted_is_split() {
        let names: [(&str, &[(&str, u64)]); 2] =
            [("x_bucket", &[("histogram", 2)]), ("x_count", &[("counter", 9)])];
        assert_eq!(planned(&names), ["x_bucket unknown: x_bucket", "x_count counter: x_count"]);
    }

    #[test]
    fn a_sample_with_the_name_of_a_histogram_splits_it() {
        let names: [(&str, &[(&str, u64)]); 2] =
            [("x", &[("gauge", 1)]), ("x_bucket", &[("histogram", 9)])];
        assert_eq!(planned(&names), ["x gauge: x", "x_bucket unknown: x_bucket"]);
    }

    #[test]
    fn histograms_that_reserve_the_same_name_are_split() {
        let h: &[(&str, u64)] = &[("histogram", 9)];
        assert_eq!(
            planned(&[("x_bucket", h), ("x_count_bucket", h)]),
            ["x_bucket unknown: x_bucket", "x_count_bucket unknown: x_count_bucket"]
        );
        assert_eq!(
            planned(&[("x_bucket", h), ("x_count", h), ("x_count_bucket", h)]),
            ["x histogram: x_bucket x_count", "x_count_bucket unknown: x_count_bucket"]
        );
    }

    #[test]
    fn ties_are_decided_by_content_and_no_metadata_is_no_vote() {
        assert_eq!(planned(&[("x", &[("gauge", 1), ("counter", 1)])]), ["x counter: x"]);
        assert_eq!(planned(&[("x", &[])]), ["x unknown: x"]);
        assert_eq!(planned(&[("x", &[("gaugehistogram", 1)])]), ["x unknown: x"]);
    }
}
