//! One test for each rule that OpenMetrics has and the text format does not have.

use std::io::Read;

use super::{EOF_LINE, OpenMetrics};
use crate::exposition::chunks::gzip::HEADER;
use crate::exposition::mirror::Mirror;
use crate::exposition::mirror::tests::{metadata, upsert};
use crate::exposition::own::export::gather;
use crate::model::series::{Metadata, MetricType};
use crate::store::Change;

/// Renders `type name{labels} value` lines; a type for each line.
pub(super) fn page(lines: &[(&str, &str, &str, f64)]) -> String {
    let changes = lines
        .iter()
        .map(|(kind, name, labels, value)| {
            let metadata = metadata(MetricType::parse(kind).expect("a type"), "");
            upsert(name, labels, *value, Some(&metadata))
        })
        .collect();
    render(changes)
}

fn render(changes: Vec<Change>) -> String {
    let mut mirror = Mirror::new(std::sync::Arc::default());
    mirror.apply(changes);
    let exposition = OpenMetrics::default().render(&mirror.publish().families);
    let mut text = exposition.text.concat();
    let mut member = HEADER.to_vec();
    member.extend(exposition.gzip.concat());
    member.extend(exposition.checksum.trailer(exposition.text_bytes));
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut unzipped).expect("valid");
    assert_eq!(unzipped, text);
    text.extend_from_slice(EOF_LINE);
    String::from_utf8(text).expect("text")
}

/// Returns the content of the `# TYPE` lines.
pub(super) fn types(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect()
}

/// The families of a split family come in the order of its lines, which varies.
fn sorted_types(page: &str) -> Vec<&str> {
    let mut types = types(page);
    types.sort_unstable();
    types
}

const H: &str = "histogram";

fn histogram(sum: f64, count: f64, buckets: &[(&str, f64)]) -> String {
    let labels: Vec<_> = buckets.iter().map(|(le, v)| (format!("le=\"{le}\""), *v)).collect();
    let mut lines: Vec<_> =
        labels.iter().map(|(labels, v)| (H, "x_bucket", labels.as_str(), *v)).collect();
    lines.extend([(H, "x_sum", "", sum), (H, "x_count", "", count)]);
    page(&lines)
}

const SPLIT: [&str; 3] = ["x_bucket unknown", "x_count unknown", "x_sum unknown"];

#[test]
fn a_counter_is_named_without_its_suffix_and_is_unknown_without_one() {
    assert_eq!(
        page(&[("counter", "foo_total", "a=\"1\"", 2.0), ("counter", "bar", "", 1.0)]),
        "# TYPE bar unknown\nbar 1\n# TYPE foo counter\nfoo_total{a=\"1\"} 2\n# EOF\n"
    );
}

#[test]
fn a_counter_that_is_negative_or_nan_is_unknown() {
    for value in [-1.0, f64::NAN] {
        let page = page(&[("counter", "foo_total", "", value)]);
        assert_eq!(types(&page), ["foo_total unknown"]);
    }
}

#[test]
fn a_counter_whose_names_are_taken_is_unknown() {
    let taken = page(&[("counter", "foo_total", "", 1.0), ("gauge", "foo", "", 1.0)]);
    assert_eq!(types(&taken), ["foo gauge", "foo_total unknown"]);
    let created = [("counter", "foo_total", "", 1.0), ("stateset", "foo_created", "", 1.0)];
    assert_eq!(types(&page(&created)), ["foo_created unknown", "foo_total unknown"]);
    let page = page(&[("counter", "foo_total", "", 1.0), ("info", "foo_info", "", 1.0)]);
    assert_eq!(types(&page), ["foo_info unknown", "foo_total unknown"]);
}

#[test]
fn bounds_are_canonical() {
    let text = histogram(2.5, 3.0, &[("1", 1.0), ("+Inf", 3.0), ("1000000", 3.0), ("0.50", 0.0)]);
    assert_eq!(
        text,
        "# TYPE x histogram\nx_bucket{le=\"0.5\"} 0\nx_bucket{le=\"1.0\"} 1\n\
         x_bucket{le=\"1e+06\"} 3\nx_bucket{le=\"+Inf\"} 3\nx_sum 2.5\nx_count 3\n# EOF\n"
    );
}

#[test]
fn a_histogram_that_breaks_a_rule_is_split() {
    let good: &[(&str, f64)] = &[("1", 1.0), ("+Inf", 3.0)];
    assert_eq!(types(&histogram(2.5, 3.0, good)), ["x histogram"]);
    for (why, text) in [
        ("no +Inf", histogram(2.5, 3.0, &[("1", 3.0)])),
        ("another count", histogram(2.5, 4.0, good)),
        ("a falling bucket", histogram(2.5, 3.0, &[("1", 4.0), ("+Inf", 3.0)])),
        ("a broken count", histogram(2.5, 3.5, &[("+Inf", 3.5)])),
        ("a negative sum", histogram(-1.0, 3.0, good)),
        ("a sum that is no number", histogram(f64::NAN, 3.0, good)),
        ("a negative bound with a sum", histogram(1.0, 3.0, &[("-1", 1.0), ("+Inf", 3.0)])),
        ("a bound twice", histogram(2.5, 3.0, &[("1", 1.0), ("1.0", 1.0), ("+Inf", 3.0)])),
        ("a bound that is none", histogram(2.5, 3.0, &[("junk", 1.0), ("+Inf", 3.0)])),
    ] {
        assert_eq!(sorted_types(&text), SPLIT, "{why}");
    }
}

#[test]
fn a_histogram_with_a_line_outside_its_groups_is_split() {
    let whole =
        [(H, "x_bucket", "le=\"+Inf\"", 1.0), (H, "x_sum", "", 1.0), (H, "x_count", "", 1.0)];
    assert_eq!(types(&page(&whole)), ["x histogram"]);
    for odd in [
        (H, "x_bucket", "", 1.0),
        (H, "x_sum", "le=\"1\"", 1.0),
        (H, "x_count", "a=\"1\"", 1.0),
        (H, "x_sum", "a=\"1\"", 1.0),
    ] {
        let lines = [&whole[..], &[odd]].concat();
        assert!(types(&page(&lines)).contains(&"x_sum unknown"), "{odd:?}");
    }
    let no_sum = page(&[whole[0], whole[2]]);
    assert_eq!(types(&no_sum), ["x_bucket unknown", "x_count unknown"]);
    assert_eq!(types(&page(&whole[..1])), ["x histogram"]);
}

#[test]
fn a_histogram_whose_created_name_is_taken_is_split() {
    let state = ("stateset", "x_created", "x_created=\"on\"", 1.0);
    let page = page(&[(H, "x_bucket", "le=\"+Inf\"", 1.0), state]);
    assert_eq!(types(&page), ["x_bucket unknown", "x_created unknown"]);
}

#[test]
fn a_summary_that_breaks_a_rule_is_split() {
    let s = "summary";
    let whole = [
        (s, "x", "quantile=\"0.5\"", 1.0),
        (s, "x", "quantile=\"1\"", f64::NAN),
        (s, "x_sum", "", 1.0),
        (s, "x_count", "", 1.0),
    ];
    assert_eq!(
        page(&whole),
        "# TYPE x summary\nx{quantile=\"0.5\"} 1\nx{quantile=\"1.0\"} NaN\nx_sum 1\nx_count 1\n# EOF\n"
    );
    for odd in [
        (s, "x", "", 1.0),
        (s, "x", "quantile=\"1.5\"", 1.0),
        (s, "x", "quantile=\"junk\"", 1.0),
        (s, "x", "quantile=\"0.50\"", 1.0),
        (s, "x", "quantile=\"0.9\"", -1.0),
        (s, "x_sum", "a=\"1\"", -1.0),
        (s, "x_count", "a=\"1\"", 0.5),
        (s, "x_sum", "quantile=\"0.5\"", 1.0),
    ] {
        let lines = [&whole[..], &[odd]].concat();
        assert_eq!(
            sorted_types(&page(&lines)),
            ["x unknown", "x_count unknown", "x_sum unknown"],
            "{odd:?}"
        );
    }
}

#[test]
fn an_info_has_its_suffix_and_the_value_one() {
    let page = page(&[
        ("info", "build_info", "a=\"1\"", 1.0),
        ("info", "broken_info", "", 2.0),
        ("info", "nameless", "", 1.0),
    ]);
    assert_eq!(types(&page), ["broken_info unknown", "build info", "nameless unknown"]);
}

#[test]
fn a_state_set_is_sorted_by_group_and_has_its_label() {
    let s = "stateset";
    let page = page(&[
        (s, "door", "door=\"open\",z=\"1\"", 1.0),
        (s, "door", "door=\"shut\",z=\"1\"", 0.0),
        (s, "door", "door=\"open\",z=\"2\"", 0.0),
        (s, "gate", "", 1.0),
        (s, "lock", "lock=\"on\"", 2.0),
    ]);
    assert_eq!(types(&page), ["door stateset", "gate unknown", "lock unknown"]);
    let lines: Vec<_> = page.lines().skip(1).take(3).collect();
    assert_eq!(
        lines,
        [
            "door{door=\"open\",z=\"1\"} 1",
            "door{door=\"shut\",z=\"1\"} 0",
            "door{door=\"open\",z=\"2\"} 0"
        ]
    );
}

#[test]
fn a_unit_is_shown_where_the_name_ends_with_it() {
    let with = |name: &str, unit: &str| {
        let metadata = Metadata {
            metric_type: MetricType::Gauge,
            help: "a \"quoted\"\nhelp \\".into(),
            unit: unit.into(),
        };
        render(vec![upsert(name, "", 1.0, Some(&metadata))])
    };
    assert_eq!(
        with("age_seconds", "seconds"),
        "# HELP age_seconds a \\\"quoted\\\"\\nhelp \\\\\n# TYPE age_seconds gauge\n\
         # UNIT age_seconds seconds\nage_seconds 1\n# EOF\n"
    );
    for (name, unit) in [("age", "seconds"), ("seconds", "seconds"), ("ageseconds", "seconds")] {
        assert!(!with(name, unit).contains("# UNIT"), "{name} {unit}");
    }
}

#[test]
fn unchanged_pages_are_reused() {
    let mut mirror = Mirror::new(std::sync::Arc::default());
    let mut openmetrics = OpenMetrics::default();
    let lines = |i: u32| format!("a=\"{}\"", "x".repeat(5000 + i as usize));
    mirror.apply((0..3).map(|i| upsert("x", &lines(i), 1.0, None)).collect());
    mirror.apply((0..3).map(|i| upsert("y", &lines(i), 1.0, None)).collect());
    let first = openmetrics.render(&mirror.publish().families);
    mirror.apply(vec![upsert("x", &lines(0), 2.0, None)]);
    let second = openmetrics.render(&mirror.publish().families);
    let last = |r: &super::Exposition| r.text.last().map(|t| t.as_ptr());
    assert_eq!(last(&first), last(&second));
    assert_ne!(first.text.concat(), second.text.concat());
}

#[test]
fn an_own_histogram_is_a_histogram_in_openmetrics() {
    let registry = prometheus::Registry::new();
    let opts = prometheus::HistogramOpts::new("holdall_took_seconds", "Took.");
    let took = prometheus::Histogram::with_opts(opts.buckets(vec![0.5, 10.0])).expect("valid");
    registry.register(Box::new(took.clone())).expect("once");
    took.observe(1.5);
    let page = OpenMetrics::default().render(&gather(&registry)).text.concat();
    assert_eq!(types(&String::from_utf8_lossy(&page)), ["holdall_took_seconds histogram"]);
}

/// Returns the ids of what is shown of a family.
pub(super) fn ids(openmetrics: &OpenMetrics, family: &str) -> Vec<u64> {
    let pages = openmetrics.families[family].rendered_pages();
    pages.iter().flat_map(|page| page.header.iter().chain([&page.text])).map(|c| c.id).collect()
}

#[test]
fn a_change_of_one_line_renders_one_page() {
    let line = |kind: &str, i: u32, value: f64| {
        let (name, labels) = match (kind, i % 3) {
            ("histogram", 0) => ("x_bucket", "le=\"+Inf\","),
            ("histogram", 1) => ("x_sum", ""),
            ("histogram", _) => ("x_count", ""),
            ("summary", 0) => ("x", "quantile=\"0.5\","),
            ("summary", 1) => ("x_sum", ""),
            ("summary", _) => ("x_count", ""),
            _ => ("x", ""),
        };
        let group = if name == "x" && kind != "summary" { i } else { i / 3 };
        // Canonical labels are sorted.
        let labels =
            format!("instance=\"host-{group:05}\",{labels}").trim_end_matches(',').to_owned();
        let metadata = metadata(MetricType::parse(kind).expect("a type"), "");
        upsert(name, &labels, value, Some(&metadata))
    };
    for (kind, broken) in [
        ("gauge", false),
        ("unknown", false),
        ("histogram", false),
        ("histogram", true),
        ("summary", false),
    ] {
        let mut mirror = Mirror::new(std::sync::Arc::default());
        let mut openmetrics = OpenMetrics::default();
        mirror.apply((0..9000).map(|i| line(kind, i, 1.0)).collect());
        if broken {
            mirror.apply(vec![line(kind, 0, 0.5)]);
        }
        openmetrics.render(&mirror.publish().families);
        let before = ids(&openmetrics, "x");
        assert!(before.len() > 15, "{kind}: {}", before.len());
        mirror.apply(vec![line(kind, 4501, 7.0)]);
        openmetrics.render(&mirror.publish().families);
        let mut new = ids(&openmetrics, "x");
        new.retain(|id| !before.contains(id));
        // A page that is split by name has a part for each of three names.
        let parts = if broken { 3 } else { 1 };
        assert_eq!(new.len(), parts, "{kind}, broken: {broken}");
    }
}

#[test]
fn a_mirror_that_was_built_again_is_shown_as_it_is() {
    let mut openmetrics = OpenMetrics::default();
    for value in [1.0, 2.0] {
        // The ids of its pages are those of the mirror before.
        let mut mirror = Mirror::new(std::sync::Arc::default());
        mirror.apply(vec![upsert("x", "", value, None)]);
        let shown = openmetrics.render(&mirror.publish().families).text.concat();
        assert_eq!(String::from_utf8_lossy(&shown), format!("# TYPE x unknown\nx {value}\n"));
    }
}

#[test]
fn a_page_is_checked_again_when_the_page_before_it_changes() {
    // One group of many pages.
    let bucket = |i: usize, value: f64| {
        let metadata = metadata(MetricType::Histogram, "");
        upsert("x_bucket", &format!("le=\"{i}\""), value, Some(&metadata))
    };
    let mut mirror = Mirror::new(std::sync::Arc::default());
    let mut openmetrics = OpenMetrics::default();
    let infinite = upsert("x_bucket", "le=\"+Inf\"", 5.0, None);
    mirror.apply((0..3000).map(|i| bucket(i, 5.0)).chain([infinite]).collect());
    let families = mirror.publish().families;
    let (pages, first) = (families[0].pages.len(), families[0].pages[0].len());
    assert!(pages > 2 && families.len() == 1);
    let mut shown = |mirror: &mut Mirror| {
        let text = openmetrics.render(&mirror.publish().families).text.concat();
        types(&String::from_utf8_lossy(&text)).join(", ")
    };
    assert_eq!(shown(&mut mirror), "x histogram");
    // Only the first line of the second page, which did not change, is now too low.
    mirror.apply((0..first).map(|i| bucket(i, 7.0)).collect());
    assert_eq!(shown(&mut mirror), "x_bucket unknown");
    mirror.apply((0..first).map(|i| bucket(i, 5.0)).collect());
    assert_eq!(shown(&mut mirror), "x histogram");
}
