//! The mirror against a model that renders all series from scratch.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use super::Mirror;
use super::family_plan::{NameVotes, base_name, plan_families};
use crate::exposition::chunks::Exposition;
use crate::exposition::chunks::gzip::HEADER;
use crate::exposition::family::FamilyHeader;
use crate::exposition::family::line::has_unreadable_bound;
use crate::exposition::openmetrics::OpenMetrics;
use crate::model::number::write_float;
use crate::model::series::{Metadata, MetricType, Point, Sample, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::Change;

type State = BTreeMap<SeriesKey, (f64, Option<Arc<Metadata>>)>;

pub(crate) fn key(name: &str, labels: &str) -> SeriesKey {
    SeriesKey { name: name.into(), labels: labels.into() }
}

pub(crate) fn upsert(name: &str, labels: &str, value: f64, metadata: Option<&Metadata>) -> Change {
    Change::Upserted(Point {
        key: key(name, labels),
        sample: Sample { value, updated_at: Timestamp::from_nanos(0) },
        metadata: metadata.map(|m| Arc::new(m.clone())),
    })
}

pub(crate) fn metadata(metric_type: MetricType, help: &str) -> Metadata {
    Metadata { metric_type, help: help.into(), unit: "".into() }
}

fn apply(state: &mut State, change: &Change) {
    match change {
        Change::Upserted(p) => {
            state.insert(p.key.clone(), (p.sample.value, p.metadata.clone()));
        }
        Change::Deleted(key) => {
            state.remove(key);
        }
    }
}

/// Renders a state from scratch.
fn render(state: &State) -> String {
    let mut votes: BTreeMap<Arc<str>, BTreeMap<Arc<Metadata>, u64>> = BTreeMap::new();
    for (key, (_, metadata)) in state {
        let votes = votes.entry(Arc::clone(&key.name)).or_default();
        if let Some(metadata) = metadata {
            *votes.entry(Arc::clone(metadata)).or_default() += 1;
        }
    }
    let mut related: BTreeMap<String, Vec<NameVotes>> = BTreeMap::new();
    for (name, votes) in votes {
        related.entry(base_name(&name).to_owned()).or_default().push(NameVotes {
            readable: !state
                .keys()
                .any(|key| key.name == name && has_unreadable_bound(key.labels.as_bytes())),
            name,
            votes: votes.into_iter().collect(),
        });
    }
    let mut plans: Vec<_> = related.values().flat_map(|names| plan_families(names)).collect();
    plans.sort_by(|a, b| a.header.name.cmp(&b.header.name));
    plans.iter().map(|p| render_family(&p.header, &p.members, state)).collect()
}

fn render_family(header: &FamilyHeader, members: &[Arc<str>], state: &State) -> String {
    let mut lines: Vec<_> = state.iter().filter(|(k, _)| members.contains(&k.name)).collect();
    lines.sort_by_key(|(k, _)| header.sorter().sort_key(k.name.as_bytes(), k.labels.as_bytes()));
    let mut out = header.to_text();
    for (key, (value, _)) in lines {
        let mut text = Vec::new();
        write_float(*value, &mut text);
        out += &format!("{key} {}\n", String::from_utf8_lossy(&text));
    }
    out
}

fn unzip(exposition: &Exposition) -> Vec<u8> {
    let mut member = HEADER.to_vec();
    member.extend(exposition.gzip.concat());
    member.extend(exposition.checksum.trailer(exposition.text_bytes));
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut out).expect("one valid member");
    out
}

/// Checks the rules of the text format.
fn assert_valid(page: &str) {
    let (mut types, mut series) = (BTreeMap::new(), BTreeSet::new());
    let mut current = ("", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').expect("a type");
            assert_eq!(types.insert(current.0, current.1), None, "{line}");
        } else if !line.starts_with('#') {
            let key = line.rsplit_once(' ').expect("a value").0;
            assert!(series.insert(key), "{line} occurs twice");
            let name = key.split('{').next().expect("a name");
            let suffix = name.strip_prefix(current.0).expect("the family's name");
            let allowed: &[&str] = match current.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            assert!(allowed.contains(&suffix), "{line} in {current:?}");
        }
    }
    for (family, kind) in &types {
        let suffixes: &[&str] = match *kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["_sum", "_count"],
            _ => &[],
        };
        for suffix in suffixes {
            assert!(!types.contains_key(format!("{family}{suffix}").as_str()), "{family}{suffix}");
        }
    }
}

/// What a server shows, with what it remembers of earlier pages.
struct Shown {
    mirror: Mirror,
    openmetrics: OpenMetrics,
    state: State,
}

impl Shown {
    fn nothing() -> Self {
        Self {
            mirror: Mirror::new(Arc::default()),
            openmetrics: OpenMetrics::default(),
            state: State::new(),
        }
    }

    fn apply(&mut self, batch: Vec<Change>) {
        for change in &batch {
            apply(&mut self.state, change);
        }
        self.mirror.apply(batch);
    }

    /// Builds the mirror again from a snapshot, as after a cursor was refused.
    fn rebuild(&mut self) {
        self.mirror = Mirror::new(Arc::default());
        self.mirror.apply(snapshot(&self.state));
    }

    fn check(&mut self) {
        check(&mut self.mirror, &self.state);
        let shown = self.openmetrics.render(&self.mirror.publish().families);
        assert_eq!(shown.text.concat(), fresh_openmetrics(&self.state));
        assert_eq!(unzip(&shown), shown.text.concat());
        assert_eq!(shown.text_bytes, shown.text.concat().len() as u64);
    }
}

fn snapshot(state: &State) -> Vec<Change> {
    let upsert_of = |(key, (value, metadata)): (&SeriesKey, &(f64, Option<Arc<Metadata>>))| {
        upsert(&key.name, &key.labels, *value, metadata.as_deref())
    };
    state.iter().map(upsert_of).collect()
}

/// Renders a state as a server that has just started.
fn fresh_openmetrics(state: &State) -> Vec<u8> {
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(snapshot(state));
    OpenMetrics::default().render(&mirror.publish().families).text.concat()
}

fn check(mirror: &mut Mirror, state: &State) {
    let page = mirror.publish();
    let text = String::from_utf8(page.exposition.text.concat()).expect("text");
    assert_eq!(text, render(state));
    assert_valid(&text);
    assert_eq!(unzip(&page.exposition), text.as_bytes());
    assert_eq!(page.series, state.len());
    assert_eq!(page.exposition.text_bytes, text.len() as u64);
}

pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    let name = prop_oneof![
        Just("x"),
        Just("x_bucket"),
        Just("x_count"),
        Just("x_sum"),
        Just("x_count_bucket"),
        Just("x_total"),
        Just("x_created"),
        Just("x_sum_count"),
        Just("x_sum_sum"),
        Just("x_sum_count_bucket"),
        Just("x_sum_count_bucket_count"),
        Just("x_bucket_sum_count_sum"),
        Just("x_info"),
        Just("y"),
        Just("y_sum"),
    ];
    let labels = prop_oneof![
        Just(String::new()),
        (0..3).prop_map(|a| format!("a=\"{a} }}\"")),
        (0..3, 8..12).prop_map(|(a, le)| format!("a=\"{a}\",le=\"{le}\"")),
        Just("le=\"1_0\"".to_owned()),
        (0..2).prop_map(|q| format!("quantile=\"0.{q}\"")),
        (0..3, 0..2).prop_map(|(x, z)| format!("x=\"{x}\",z=\"{z}\"")),
    ];
    let metadata = prop_oneof![
        Just(None),
        (0..8_usize, 0..2).prop_map(|(t, help)| {
            let types = [
                "counter",
                "gauge",
                "histogram",
                "histogram",
                "summary",
                "info",
                "stateset",
                "unknown",
            ];
            Some(metadata(MetricType::parse(types[t]).expect("a type"), &format!("help {help}")))
        }),
    ];
    (name, labels, metadata, any::<bool>(), 0..100_i32).prop_map(
        |(name, labels, metadata, deleted, value)| {
            if deleted {
                Change::Deleted(key(name, &labels))
            } else {
                upsert(name, &labels, f64::from(value) / 4.0, metadata.as_ref())
            }
        },
    )
}

proptest! {
    #[test]
    fn any_changes_lead_to_the_same_exposition_as_a_full_render(
        batches in prop::collection::vec(
            (prop::collection::vec(any_change(), 0..40), any::<bool>()), 1..6)
    ) {
        let mut shown = Shown::nothing();
        for (batch, rebuilt) in batches {
            shown.apply(batch);
            if rebuilt {
                shown.rebuild();
            }
            shown.check();
        }
    }

    #[test]
    fn changes_of_large_families_lead_to_the_same_exposition_as_a_full_render(
        rounds in prop::collection::vec((0..3000_u32, 1..400_u32, 1..7_usize, any::<bool>()), 1..6)
    ) {
        let mut shown = Shown::nothing();
        let gauge = metadata(MetricType::Gauge, "some help");
        for (round, (start, count, step, deleted)) in rounds.into_iter().enumerate() {
            let batch: Vec<_> = (start..start + count * 5)
                .step_by(step)
                .map(|i| {
                    let labels = format!("instance=\"host-{i:05}\",path=\"/some/longer/path\"");
                    if deleted {
                        Change::Deleted(key("requests", &labels))
                    } else {
                        upsert("requests", &labels, f64::from(i) + round as f64, Some(&gauge))
                    }
                })
                .collect();
            shown.apply(batch);
            shown.check();
        }
    }
}

proptest! {
    // Each case renders thousands of lines many times.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn changes_of_a_large_histogram_lead_to_the_same_exposition_as_a_full_render(
        rounds in prop::collection::vec(
            prop::collection::vec((0..300_u32, 0..7_usize, 0..5_u32, any::<bool>()), 1..30), 1..5)
    ) {
        let mut shown = Shown::nothing();
        let histogram = metadata(MetricType::Histogram, "some help");
        let line = |host: u32, part: usize, value: u32| {
            let host = format!("instance=\"host-{host:05}\"");
            let (name, labels) = match ["0.5", "1", "+Inf", "2"].get(part) {
                Some(bound) => ("took_bucket", format!("{host},le=\"{bound}\"")),
                None => (["took_sum", "took_count", "took_created"][part - 4], host),
            };
            let metadata = Some(&histogram).filter(|_| name != "took_created");
            upsert(name, &labels, f64::from(value), metadata)
        };
        // All groups are whole and follow the rules at first, and stand on several pages.
        let whole = (0..300).flat_map(|host| (0..7).map(move |part| line(host, part, 3)));
        shown.apply(whole.collect());
        shown.check();
        for round in rounds {
            let batch = round.into_iter().map(|(host, part, value, deleted)| {
                match line(host, part, value) {
                    Change::Upserted(point) if deleted && part == 0 => Change::Deleted(point.key),
                    other => other,
                }
            });
            shown.apply(batch.collect());
            shown.check();
        }
    }
}

#[test]
fn one_wrong_push_does_not_change_a_family() {
    let mut mirror = Mirror::new(Arc::default());
    let (good, bad) = (metadata(MetricType::Counter, "good"), metadata(MetricType::Gauge, "bad"));
    let mut changes: Vec<_> =
        (0..3).map(|i| upsert("jobs_total", &format!("a=\"{i}\""), 1.0, Some(&good))).collect();
    changes.push(upsert("jobs_total", "a=\"9\"", 1.0, Some(&bad)));
    mirror.apply(changes);
    let page = mirror.publish().exposition.text.concat();
    assert!(page.starts_with(b"# HELP jobs_total good\n# TYPE jobs_total counter\n"));
}

#[test]
fn an_unreadable_bound_splits_its_histogram_until_it_is_deleted() {
    let mut mirror = Mirror::new(Arc::default());
    let histogram = metadata(MetricType::Histogram, "times");
    mirror.apply(vec![
        upsert("x_bucket", "le=\"1\"", 1.0, Some(&histogram)),
        upsert("x_count", "", 1.0, Some(&histogram)),
        upsert("x_bucket", "le=\"1e999\"", 1.0, None),
    ]);
    let page = |mirror: &mut Mirror| {
        String::from_utf8(mirror.publish().exposition.text.concat()).expect("text")
    };
    let split = page(&mut mirror);
    assert!(!split.contains("histogram"), "{split}");
    assert!(split.contains("x_bucket{le=\"1e999\"} 1"), "no sample is lost");
    mirror.apply(vec![Change::Deleted(key("x_bucket", "le=\"1e999\""))]);
    assert!(page(&mut mirror).contains("# TYPE x histogram\n"));
}

#[test]
fn series_with_reserved_names_are_skipped_and_counted() {
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(vec![
        upsert("holdall_page_age_seconds", "", 1.0, None),
        upsert("holdall", "", 1.0, None),
    ]);
    assert_eq!(mirror.take_skipped(), 1);
    assert_eq!(mirror.take_skipped(), 0);
    let page = mirror.publish().exposition.text.concat();
    assert_eq!(page, b"# TYPE holdall untyped\nholdall 1\n");
}

#[test]
fn a_published_exposition_does_not_change() {
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(vec![upsert("up", "", 1.0, None)]);
    let page = mirror.publish();
    mirror.apply(vec![upsert("up", "", 0.0, None)]);
    let _ = mirror.publish();
    assert_eq!(page.exposition.text.concat(), b"# TYPE up untyped\nup 1\n");
}

#[test]
fn a_change_costs_the_families_near_its_name() {
    // All these names have the same base name.
    let suffixes = ["_bucket", "_sum", "_count"];
    let name = |mut i: u32| {
        let mut name = "x".to_owned();
        for _ in 0..8 {
            name += suffixes[(i % 3) as usize];
            i /= 3;
        }
        name
    };
    let mut mirror = Mirror::new(Arc::default());
    let gauge = metadata(MetricType::Gauge, "");
    mirror.apply((0..6000).map(|i| upsert(&name(i), "", 1.0, Some(&gauge))).collect());
    let names: BTreeSet<Arc<str>> = [name(77).into()].into();
    let related = &mirror.names["x"];
    assert_eq!(related.names.len(), 6000);
    let near = related.near(&related.near(&names));
    assert!(near.contains(&*name(77)) && near.len() < 200, "{}", near.len());
}
