//! Joins a family with its created samples.
//!
//! In OpenMetrics, `x_created` belongs to the counter, histogram or summary `x`: it is the last line of each group. In
//! the text format it is a family of its own. Not whether the joined family satisfies the rules of its type: if it does
//! not, the created samples are shown as their own family again.
//! Invariant: a joined family has the lines of both, and each created sample has a group to which it belongs.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::types::{OpenMetricsType, wanted_type};
use crate::exposition::family::line::LineParts;
use crate::exposition::family::line_order::{LineSorter, SortKey};
use crate::exposition::family::page::{Page, PageWriter, Scratch};
use crate::exposition::family::{Family, FamilyHeader};

/// A family, with its created samples where it has some.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) family: Arc<Family>,
    /// The header that the created samples have as a family of their own.
    pub(super) created: Option<FamilyHeader>,
}

impl Joined {
    /// Returns the name of the family in the text format.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.family.header.name
    }
}

/// Joins families, and reuses the pages that did not change since the last time.
#[derive(Debug, Default)]
pub(super) struct CreatedSamples {
    /// By the name of the family that is not the created one.
    joins: HashMap<Arc<str>, Join>,
}

impl CreatedSamples {
    /// Returns `families`, which are sorted by name, with each family of created samples joined to its owner. It stays
    /// a family of its own when one of its samples has no group there.
    pub(super) fn join(&mut self, families: &[Arc<Family>], scratch: &mut Scratch) -> Vec<Joined> {
        let mut before = std::mem::take(&mut self.joins);
        let alone = |family| Joined { family: Arc::clone(family), created: None };
        let mut shown: Vec<Option<Joined>> = families.iter().map(|f| Some(alone(f))).collect();
        for (at, created) in families.iter().enumerate() {
            let Some(owner) = owner_of(created, families) else { continue };
            let family = &families[owner];
            let before = before.remove(&family.header.name);
            let join = Join::updated(before, family, created, scratch);
            if let Some(family) = &join.joined {
                let created = Some(created.header.clone());
                shown[owner] = Some(Joined { family: Arc::clone(family), created });
                shown[at] = None;
            }
            self.joins.insert(Arc::clone(&family.header.name), join);
        }
        shown.into_iter().flatten().collect()
    }
}

/// Returns the position of the counter, histogram or summary whose created samples these are.
fn owner_of(created: &Family, families: &[Arc<Family>]) -> Option<usize> {
    let base = created.name().strip_suffix("_created")?;
    if !wanted_type(&created.header).has_no_rules() {
        return None;
    }
    let find = |name: &str, types: &[OpenMetricsType]| {
        let at = families.binary_search_by(|family| family.name().cmp(name)).ok()?;
        types.contains(&wanted_type(&families[at].header)).then_some(at)
    };
    // If there are both, they contradict each other, and are shown as unknown in any case.
    find(base, &[OpenMetricsType::Histogram, OpenMetricsType::Summary])
        .or_else(|| find(&format!("{base}_total"), &[OpenMetricsType::Counter]))
}

/// Two families, and what was made of them.
#[derive(Debug)]
struct Join {
    family: Arc<Family>,
    created: Arc<Family>,
    pages: Vec<JoinedPage>,
    /// `None` when a created sample has no group.
    joined: Option<Arc<Family>>,
}

impl Join {
    /// Joins two families; takes over the pages that they have in common with those `before`.
    fn updated(
        before: Option<Self>,
        family: &Arc<Family>,
        created: &Arc<Family>,
        scratch: &mut Scratch,
    ) -> Self {
        let old = match before {
            Some(join)
                if Arc::ptr_eq(&join.family, family) && Arc::ptr_eq(&join.created, created) =>
            {
                return join;
            }
            Some(join) => join.pages,
            None => Vec::new(),
        };
        let mut old: HashMap<usize, JoinedPage> =
            old.into_iter().map(|joined| (joined.page.address(), joined)).collect();
        let sorter = family.header.sorter();
        let mut pages = Vec::with_capacity(family.pages.len());
        for (i, page) in family.pages.iter().enumerate() {
            let next = family.pages.get(i + 1).map(|next| next.first_sort_key(sorter));
            let last = sorter.sort_key_of(page.line(page.len() - 1));
            let ends = next.is_none_or(|next| !next.same_group(&last));
            let created = between(&created.pages, &page.first_sort_key(sorter), &last);
            pages.push(match old.remove(&page.address()) {
                // The texts may have moved into chunks that they share.
                Some(old) if old.is_made_of(ends, created) => {
                    JoinedPage { page: page.clone(), created: created.to_vec(), ..old }
                }
                _ => JoinedPage::new(page, ends, created, sorter, scratch),
            });
        }
        let taken: usize = pages.iter().map(|page| page.taken).sum();
        let all: usize = created.pages.iter().map(Page::len).sum();
        let joined = (taken == all).then(|| {
            Arc::new(Family {
                header: family.header.clone(),
                header_text: family.header_text.clone(),
                header_id: family.header_id,
                pages: pages.iter().flat_map(JoinedPage::shown).cloned().collect(),
            })
        });
        Self { family: Arc::clone(family), created: Arc::clone(created), pages, joined }
    }
}

/// Returns the pages that may have created samples of the groups from that of `first` to that of `last`.
fn between<'p>(created: &'p [Page], first: &SortKey<'_>, last: &SortKey<'_>) -> &'p [Page] {
    let ends_before = |page: &Page| is_behind(first, page.line(page.len() - 1));
    let start = created.partition_point(ends_before);
    let rest = &created[start..];
    let begins_in = |page: &Page| last.compare_group(labels_of(page.line(0))) != Ordering::Less;
    &rest[..rest.partition_point(begins_in)]
}

fn labels_of(line: &[u8]) -> &[u8] {
    LineParts::parse(line).labels
}

/// Returns whether the group of `sort_key` is behind the one of a created sample.
fn is_behind(sort_key: &SortKey<'_>, created: &[u8]) -> bool {
    sort_key.compare_group(labels_of(created)) == Ordering::Greater
}

/// A page of a family, and what was made of it.
#[derive(Debug)]
struct JoinedPage {
    page: Page,
    /// The last group of the page does not go on in the next page.
    ends: bool,
    /// The pages from which created samples were taken. They are kept alive: pages are known by their addresses.
    created: Vec<Page>,
    /// The page with created samples; empty where it has none.
    joined: Vec<Page>,
    /// The number of created samples that belong to this page.
    taken: usize,
}

impl JoinedPage {
    /// Writes each created sample behind the last line of its group, if that line is in this page.
    fn new(
        page: &Page,
        ends: bool,
        created: &[Page],
        sorter: LineSorter<'_>,
        scratch: &mut Scratch,
    ) -> Self {
        let mut samples =
            created.iter().flat_map(|page| (0..page.len()).map(move |at| (page, at))).peekable();
        let mut joined = Vec::new();
        let mut writer = PageWriter::new(scratch, &mut joined);
        let keys: Vec<SortKey<'_>> =
            page.iter().map(|(line, _)| sorter.sort_key_of(line)).collect();
        let (mut copied, mut taken) = (0, 0);
        for (at, key) in keys.iter().enumerate() {
            let goes_on = keys.get(at + 1).map_or(!ends, |next| next.same_group(key));
            if goes_on {
                continue;
            }
            // Those before this group belong to other pages, or to no group.
            while samples.next_if(|(page, at)| is_behind(key, page.line(*at))).is_some() {}
            let own = samples.next_if(|(page, at)| key.is_of_group(labels_of(page.line(*at))));
            if let Some((created, sample)) = own {
                writer.copy(page, copied, at + 1);
                writer.copy(created, sample, sample + 1);
                (copied, taken) = (at + 1, taken + 1);
            }
        }
        if taken > 0 {
            writer.copy(page, copied, page.len());
            writer.finish();
        }
        Self { page: page.clone(), ends, created: created.to_vec(), joined, taken }
    }

    fn is_made_of(&self, ends: bool, created: &[Page]) -> bool {
        let same = |(a, b): (&Page, &Page)| a.address() == b.address();
        self.ends == ends
            && self.created.len() == created.len()
            && self.created.iter().zip(created).all(same)
    }

    fn shown(&self) -> &[Page] {
        if self.taken == 0 { std::slice::from_ref(&self.page) } else { &self.joined }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::exposition::mirror::Mirror;
    use crate::exposition::mirror::tests::{key, metadata, upsert};
    use crate::exposition::openmetrics::OpenMetrics;
    use crate::exposition::openmetrics::tests::{ids, page, types};
    use crate::model::series::MetricType;
    use crate::store::Change;

    type Line = (&'static str, &'static str, &'static str, f64);

    const COUNTER: [Line; 4] = [
        ("counter", "x_total", "a=\"1\"", 5.0),
        ("counter", "x_total", "a=\"2\"", 6.0),
        ("gauge", "x_created", "a=\"1\"", 1000.5),
        ("gauge", "x_created", "a=\"2\"", 2000.0),
    ];
    const HISTOGRAM: [Line; 5] = [
        ("histogram", "x_bucket", "a=\"1\",le=\"+Inf\"", 1.0),
        ("histogram", "x_bucket", "a=\"2\",le=\"+Inf\"", 2.0),
        ("histogram", "x_sum", "a=\"2\"", 0.5),
        ("histogram", "x_count", "a=\"2\"", 2.0),
        ("gauge", "x_created", "a=\"2\"", 7.0),
    ];
    const SUMMARY: [Line; 3] = [
        ("summary", "x", "quantile=\"0.5\"", 1.0),
        ("summary", "x_count", "", 2.0),
        ("unknown", "x_created", "", 7.0),
    ];

    #[test]
    fn created_samples_are_the_last_of_their_groups() {
        let expected = "# TYPE x counter\nx_total{a=\"1\"} 5\nx_created{a=\"1\"} 1000.5\n\
                        x_total{a=\"2\"} 6\nx_created{a=\"2\"} 2000\n# EOF\n";
        assert_eq!(page(&COUNTER), expected);
        let expected = "# TYPE x histogram\nx_bucket{a=\"1\",le=\"+Inf\"} 1\n\
                        x_bucket{a=\"2\",le=\"+Inf\"} 2\nx_sum{a=\"2\"} 0.5\n\
                        x_count{a=\"2\"} 2\nx_created{a=\"2\"} 7\n# EOF\n";
        assert_eq!(page(&HISTOGRAM), expected);
        let expected = "# TYPE x summary\nx{quantile=\"0.5\"} 1\nx_count 2\nx_created 7\n# EOF\n";
        assert_eq!(page(&SUMMARY), expected);
    }

    #[test]
    fn created_samples_that_break_a_rule_are_a_family_of_their_own() {
        let apart = |lines: &[Line], odd: Line| {
            let text = page(&[lines, &[odd]].concat());
            let mut types: Vec<_> = types(&text).into_iter().map(str::to_owned).collect();
            types.sort_unstable();
            types
        };
        for odd in [
            // No group has these labels.
            ("gauge", "x_created", "a=\"0\"", 1.0),
            ("gauge", "x_created", "a=\"15\"", 1.0),
            ("gauge", "x_created", "a=\"3\"", 1.0),
            // It is no time.
            ("gauge", "x_created", "a=\"1\"", -1.0),
            ("gauge", "x_created", "a=\"1\"", f64::NAN),
            ("gauge", "x_created", "a=\"1\"", f64::INFINITY),
        ] {
            assert_eq!(apart(&COUNTER, odd), ["x_created gauge", "x_total unknown"], "{odd:?}");
            let types = ["x_bucket unknown", "x_count unknown", "x_created gauge", "x_sum unknown"];
            assert_eq!(apart(&HISTOGRAM, odd), types, "{odd:?}");
        }
        // Another family has the name.
        let taken = ["x unknown", "x_created gauge", "x_total unknown"];
        assert_eq!(apart(&COUNTER, ("unknown", "x", "", 1.0)), taken);
        // The name of the created samples is taken also while they are apart.
        let broken: Line = ("counter", "x_total", "a=\"9\"", -1.0);
        let counter = ("counter", "x_created_total", "", 1.0);
        let taken = ["x_created gauge", "x_created_total unknown", "x_total unknown"];
        assert_eq!(apart(&[&COUNTER[..], &[broken]].concat(), counter), taken);
        // A counter that is none keeps nothing from its created samples.
        let negative = ("counter", "x_total", "a=\"1\"", -1.0);
        assert_eq!(apart(&COUNTER, negative), ["x_created gauge", "x_total unknown"]);
    }

    /// What a server shows: the types, the number of samples, and the ids of the family's pages.
    fn shown(mirror: &mut Mirror, openmetrics: &mut OpenMetrics) -> (String, usize, Vec<u64>) {
        let text = openmetrics.render(&mirror.publish().families).text.concat();
        let text = String::from_utf8(text).expect("text");
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        (types(&text).join(", "), samples, ids(openmetrics, "x_total"))
    }

    #[test]
    fn groups_that_begin_in_one_page_and_end_in_the_next_keep_their_created_samples() {
        let histogram = metadata(MetricType::Histogram, "");
        // The odd number of lines in a group lets many of 20 pages end within one.
        let group = |i: u32| {
            let host = format!("instance=\"host-{i:05}\"");
            let bucket = |le: &str| {
                upsert("x_bucket", &format!("{host},le=\"{le}\""), 1.0, Some(&histogram))
            };
            let plain = |name: &str| upsert(name, &host, 1.0, Some(&histogram));
            let created = upsert("x_created", &host, 2.0, None);
            [bucket("0.25"), bucket("1"), bucket("+Inf"), plain("x_sum"), plain("x_count"), created]
        };
        let mut mirror = Mirror::new(Arc::default());
        mirror.apply((0..1500).flat_map(group).collect());
        let families = mirror.publish().families;
        let text = OpenMetrics::default().render(&families).text.concat();
        let text = String::from_utf8(text).expect("text");
        let within = families.iter().flat_map(|family| &family.pages);
        assert!(within.filter(|page| !page.text.starts_with(b"x_bucket")).count() > 5);
        assert_eq!(types(&text), ["x histogram"]);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 9000);
        for group in lines.chunks(6) {
            assert!(group[4].starts_with("x_count") && group[5].starts_with("x_created"));
        }
    }

    #[test]
    fn a_change_of_one_line_joins_the_pages_near_it() {
        let labels = |i: u32| format!("instance=\"host-{i:05}\"");
        let counter = metadata(MetricType::Counter, "");
        let total = |i: u32, value: f64| upsert("x_total", &labels(i), value, Some(&counter));
        let created = |i: u32, value: f64| upsert("x_created", &labels(i), value, None);
        let (mut mirror, mut openmetrics) = (Mirror::new(Arc::default()), OpenMetrics::default());
        let mut after = |change: Vec<Change>| {
            mirror.apply(change);
            shown(&mut mirror, &mut openmetrics)
        };
        let whole = (0..5000).flat_map(|i| [total(i, 1.0), created(i, 2.0)]).collect();
        let (types, samples, mut before) = after(whole);
        assert_eq!((types.as_str(), samples), ("x counter", 10_000));
        assert!(before.len() > 10, "{}", before.len());
        // A page of created samples belongs to several pages of the counter.
        for (change, most) in [(total(2500, 7.0), 1), (created(2500, 7.0), 3)] {
            let (types, samples, now) = after(vec![change]);
            assert_eq!((types.as_str(), samples), ("x counter", 10_000));
            let new = now.iter().filter(|id| !before.contains(id)).count();
            assert!((1..=most).contains(&new), "{new}");
            before = now;
        }
        // The total of a group is deleted, and comes back.
        let (types, samples, _) = after(vec![Change::Deleted(key("x_total", &labels(4000)))]);
        assert_eq!((types.as_str(), samples), ("x_created unknown, x_total unknown", 9999));
        let (types, samples, _) = after(vec![total(4000, 1.0)]);
        assert_eq!((types.as_str(), samples), ("x counter", 10_000));
    }

    #[test]
    fn a_page_that_stays_is_split_again_when_its_family_gets_created_samples() {
        let label = |i: u32| format!("a=\"{i:04}{}\"", "x".repeat(9000));
        let counter = metadata(MetricType::Counter, "");
        let total = |i: u32, value: f64| upsert("x_total", &label(i), value, Some(&counter));
        let (mut mirror, mut openmetrics) = (Mirror::new(Arc::default()), OpenMetrics::default());
        // A counter that is none, on several pages. Only the last one gets a created sample.
        mirror.apply((0..9).map(|i| total(i, -1.0)).collect());
        let (types, samples, _) = shown(&mut mirror, &mut openmetrics);
        assert_eq!((types.as_str(), samples), ("x_total unknown", 9));
        mirror.apply(vec![upsert("x_created", &label(8), 1.0, None)]);
        let (types, samples, _) = shown(&mut mirror, &mut openmetrics);
        assert_eq!((types.as_str(), samples), ("x_total unknown, x_created unknown", 10));
    }

    #[test]
    fn a_page_that_stays_is_joined_again_when_its_last_group_ends_there() {
        // The sum and the count of some groups are in the next page, and are deleted.
        let label = |i: u32| format!("a=\"{i:04}{}\"", "x".repeat(9000));
        let histogram = metadata(MetricType::Histogram, "");
        let group = |i: u32| {
            let bucket = format!("{},le=\"+Inf\"", label(i));
            [("x_bucket", bucket), ("x_sum", label(i)), ("x_count", label(i))]
                .map(|(name, labels)| upsert(name, &labels, 1.0, Some(&histogram)))
        };
        let (mut mirror, mut openmetrics) = (Mirror::new(Arc::default()), OpenMetrics::default());
        let created = (0..9).map(|i| upsert("x_created", &label(i), 1.0, None));
        mirror.apply((0..9).flat_map(group).chain(created).collect());
        for i in 0..9 {
            let text = openmetrics.render(&mirror.publish().families).text.concat();
            assert_eq!(types(&String::from_utf8_lossy(&text)), ["x histogram"], "{i}");
            let gone = ["x_sum", "x_count"].map(|name| Change::Deleted(key(name, &label(i))));
            mirror.apply(gone.to_vec());
        }
    }
}
