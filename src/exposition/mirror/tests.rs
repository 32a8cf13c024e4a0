//! The mirror against a model that knows nothing of pages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::{Mirror, Published};
use crate::exposition::family::Description;
use crate::exposition::gzip::HEADER;
use crate::exposition::naming::{NameVotes, cluster_of, plan_cluster};
use crate::exposition::order::has_unreadable_bound;
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

pub(crate) fn says(metric_type: MetricType, help: &str) -> Metadata {
    Metadata { metric_type, help: help.into(), unit: "".into() }
}

fn note(state: &mut State, change: &Change) {
    match change {
        Change::Upserted(p) => {
            state.insert(p.key.clone(), (p.sample.value, p.metadata.clone()));
        }
        Change::Deleted(key) => {
            state.remove(key);
        }
    }
}

/// Renders a state from nothing.
fn render(state: &State) -> String {
    let mut votes: BTreeMap<Arc<str>, BTreeMap<Arc<Metadata>, u64>> = BTreeMap::new();
    for (key, (_, metadata)) in state {
        let said = votes.entry(Arc::clone(&key.name)).or_default();
        if let Some(metadata) = metadata {
            *said.entry(Arc::clone(metadata)).or_default() += 1;
        }
    }
    let mut clusters: BTreeMap<String, Vec<NameVotes>> = BTreeMap::new();
    for (name, votes) in votes {
        clusters.entry(cluster_of(&name).to_owned()).or_default().push(NameVotes {
            readable: !state
                .keys()
                .any(|key| key.name == name && has_unreadable_bound(key.labels.as_bytes())),
            name,
            votes: votes.into_iter().collect(),
        });
    }
    let mut plans: Vec<_> = clusters.values().flat_map(|names| plan_cluster(names)).collect();
    plans.sort_by(|a, b| a.description.name.cmp(&b.description.name));
    plans.iter().map(|p| render_family(&p.description, &p.members, state)).collect()
}

fn render_family(description: &Description, members: &[Arc<str>], state: &State) -> String {
    let mut lines: Vec<_> = state.iter().filter(|(k, _)| members.contains(&k.name)).collect();
    lines.sort_by_key(|(k, _)| {
        let family = description.name.as_bytes();
        description.arrangement().place(family, k.name.as_bytes(), k.labels.as_bytes())
    });
    let mut out = description.text_header();
    for (key, (value, _)) in lines {
        let mut text = Vec::new();
        write_float(*value, &mut text);
        out += &format!("{key} {}\n", String::from_utf8_lossy(&text));
    }
    out
}

fn unzip(page: &Published) -> Vec<u8> {
    let rendered = &page.rendered;
    let mut member = HEADER.to_vec();
    member.extend(rendered.gzip.concat());
    member.extend(rendered.checksum.trailer(rendered.text_bytes));
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut out).expect("one valid member");
    out
}

/// Checks what the text format demands of a page.
fn assert_valid(page: &str) {
    let (mut types, mut series) = (BTreeMap::new(), BTreeSet::new());
    let mut current = ("", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').expect("a type");
            assert_eq!(types.insert(current.0, current.1), None, "{line}");
        } else if !line.starts_with('#') {
            let key = line.rsplit_once(' ').expect("a value").0;
            assert!(series.insert(key), "{line} stands twice");
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

fn check(mirror: &mut Mirror, state: &State) {
    let page = mirror.publish();
    let text = String::from_utf8(page.rendered.text.concat()).expect("text");
    assert_eq!(text, render(state));
    assert_valid(&text);
    assert_eq!(unzip(&page), text.as_bytes());
    assert_eq!(page.series, state.len());
    assert_eq!(page.rendered.text_bytes, text.len() as u64);
}

fn any_change() -> impl Strategy<Value = Change> {
    let name = prop_oneof![
        Just("x"),
        Just("x_bucket"),
        Just("x_count"),
        Just("x_sum"),
        Just("x_count_bucket"),
        Just("x_total"),
        Just("x_sum_count"),
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
            Some(says(MetricType::parse(types[t]).expect("a type"), &format!("help {help}")))
        }),
    ];
    (name, labels, metadata, any::<bool>(), 0..100_i32).prop_map(
        |(name, labels, metadata, gone, value)| {
            if gone {
                Change::Deleted(key(name, &labels))
            } else {
                upsert(name, &labels, f64::from(value) / 4.0, metadata.as_ref())
            }
        },
    )
}

proptest! {
    #[test]
    fn any_changes_give_what_a_full_render_gives(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 0..40), 1..6)
    ) {
        let (mut mirror, mut state) = (Mirror::new(Arc::default()), State::new());
        for batch in batches {
            for change in &batch {
                note(&mut state, change);
            }
            mirror.apply(batch);
            check(&mut mirror, &state);
        }
    }

    #[test]
    fn large_families_change_page_by_page(
        rounds in prop::collection::vec((0..3000_u32, 1..400_u32, 1..7_usize, any::<bool>()), 1..6)
    ) {
        let (mut mirror, mut state) = (Mirror::new(Arc::default()), State::new());
        let gauge = says(MetricType::Gauge, "some help");
        for (round, (start, count, step, gone)) in rounds.into_iter().enumerate() {
            let batch: Vec<_> = (start..start + count * 5)
                .step_by(step)
                .map(|i| {
                    let labels = format!("instance=\"host-{i:05}\",path=\"/some/longer/path\"");
                    if gone {
                        Change::Deleted(key("requests", &labels))
                    } else {
                        upsert("requests", &labels, f64::from(i) + round as f64, Some(&gauge))
                    }
                })
                .collect();
            for change in &batch {
                note(&mut state, change);
            }
            mirror.apply(batch);
            check(&mut mirror, &state);
        }
    }
}

#[test]
fn one_bad_push_does_not_flip_a_family() {
    let mut mirror = Mirror::new(Arc::default());
    let (good, bad) = (says(MetricType::Counter, "good"), says(MetricType::Gauge, "bad"));
    let mut changes: Vec<_> =
        (0..3).map(|i| upsert("jobs_total", &format!("a=\"{i}\""), 1.0, Some(&good))).collect();
    changes.push(upsert("jobs_total", "a=\"9\"", 1.0, Some(&bad)));
    mirror.apply(changes);
    let page = mirror.publish().rendered.text.concat();
    assert!(page.starts_with(b"# HELP jobs_total good\n# TYPE jobs_total counter\n"));
}

#[test]
fn one_bound_that_is_no_number_dissolves_the_histogram_until_it_is_gone() {
    let mut mirror = Mirror::new(Arc::default());
    let histogram = says(MetricType::Histogram, "times");
    mirror.apply(vec![
        upsert("x_bucket", "le=\"1\"", 1.0, Some(&histogram)),
        upsert("x_count", "", 1.0, Some(&histogram)),
        upsert("x_bucket", "le=\"1e999\"", 1.0, None),
    ]);
    let page = |mirror: &mut Mirror| {
        String::from_utf8(mirror.publish().rendered.text.concat()).expect("text")
    };
    let dissolved = page(&mut mirror);
    assert!(!dissolved.contains("histogram"), "{dissolved}");
    assert!(dissolved.contains("x_bucket{le=\"1e999\"} 1"), "no sample is lost");
    mirror.apply(vec![Change::Deleted(key("x_bucket", "le=\"1e999\""))]);
    assert!(page(&mut mirror).contains("# TYPE x histogram\n"));
}

#[test]
fn names_of_our_own_are_left_out_and_counted() {
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(vec![
        upsert("holdall_page_age_seconds", "", 1.0, None),
        upsert("holdall", "", 1.0, None),
    ]);
    assert_eq!(mirror.take_left_out(), 1);
    assert_eq!(mirror.take_left_out(), 0);
    let page = mirror.publish().rendered.text.concat();
    assert_eq!(page, b"# TYPE holdall untyped\nholdall 1\n");
}

#[test]
fn what_a_scrape_holds_does_not_change_under_it() {
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(vec![upsert("up", "", 1.0, None)]);
    let page = mirror.publish();
    mirror.apply(vec![upsert("up", "", 0.0, None)]);
    let _ = mirror.publish();
    assert_eq!(page.rendered.text.concat(), b"# TYPE up untyped\nup 1\n");
}
