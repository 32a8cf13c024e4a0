//! Filtered scrapes against the whole page.

use std::io::Read;
use std::sync::Arc;

use proptest::prelude::{ProptestConfig, prop, proptest};

use super::filter::{STEP_BYTES, is_selected};
use super::{Format, Pages};
use crate::clock::ManualClock;
use crate::exposition::family::line::LineParts;
use crate::exposition::mirror::Mirror;
use crate::exposition::mirror::tests::{any_change, metadata, upsert};
use crate::exposition::own::OwnMetrics;
use crate::model::selector::Selector;
use crate::model::series::MetricType;
use crate::model::time::Timestamp;
use crate::store::Change;

/// The pages of a server that holds what the changes lead to.
fn pages(changes: Vec<Change>) -> Arc<Pages> {
    let own = OwnMetrics::register(&prometheus::Registry::new()).expect("no name twice");
    let clock = ManualClock::at(Timestamp::from_nanos(0));
    let pages = Pages::new(Arc::new(own), Arc::new(clock));
    let mut mirror = Mirror::new(Arc::default());
    mirror.apply(changes);
    pages.publish(mirror.publish());
    Arc::new(pages)
}

/// Returns the parts of the filtered page.
async fn parts(pages: &Arc<Pages>, format: Format, gzip: bool, selectors: &[&str]) -> Vec<Vec<u8>> {
    let selectors = selectors.iter().map(|text| Selector::parse(text).expect("a selector"));
    let mut rest = pages.filtered(format, gzip, selectors.collect()).await.expect("it renders");
    let mut parts = Vec::new();
    while let Some((part, next)) = rest.next().await.expect("it renders") {
        parts.push(part.to_vec());
        rest = next;
    }
    parts
}

/// Returns the filtered page, which is the same when it is compressed.
async fn filtered(pages: &Arc<Pages>, format: Format, selectors: &[&str]) -> String {
    let plain = parts(pages, format, false, selectors).await.concat();
    let member = parts(pages, format, true, selectors).await.concat();
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut unzipped).expect("one member");
    assert_eq!(unzipped, plain);
    String::from_utf8(plain).expect("text")
}

fn some_of_each_type() -> Vec<Change> {
    let (gauge, counter) = (metadata(MetricType::Gauge, ""), metadata(MetricType::Counter, "C."));
    let histogram = metadata(MetricType::Histogram, "H.");
    let mut changes: Vec<Change> =
        (1..4).map(|a| upsert("g", &format!("a=\"{a}\""), f64::from(a), Some(&gauge))).collect();
    for a in ["1", "2"] {
        let labels = format!("a=\"{a}\"");
        changes.push(upsert("c_total", &labels, 5.0, Some(&counter)));
        changes.push(upsert("c_created", &labels, 1.0, Some(&gauge)));
        for le in ["1", "+Inf"] {
            let labels = format!("a=\"{a}\",le=\"{le}\"");
            changes.push(upsert("h_bucket", &labels, 7.0, Some(&histogram)));
        }
        changes.push(upsert("h_sum", &labels, 8.0, Some(&histogram)));
        changes.push(upsert("h_count", &labels, 7.0, Some(&histogram)));
    }
    changes
}

#[tokio::test]
async fn a_filtered_page_has_the_samples_that_match_under_their_headers() {
    let pages = pages(some_of_each_type());
    for (selectors, expected) in [
        (&["g{a=\"2\"}"][..], "# TYPE g gauge\ng{a=\"2\"} 2\n"),
        (&["g{a=\"2\"}", "g{a=~\"[12]\"}"], "# TYPE g gauge\ng{a=\"1\"} 1\ng{a=\"2\"} 2\n"),
        (&["nothing"], ""),
        (
            &["h_count", "c_total{a=\"1\"}"],
            "# HELP c_total C.\n# TYPE c_total counter\nc_total{a=\"1\"} 5\n\
             # HELP h H.\n# TYPE h histogram\nh_count{a=\"1\"} 7\nh_count{a=\"2\"} 7\n",
        ),
        (
            &["{__name__=~\"h_.*\",a=\"1\"}"],
            "# HELP h H.\n# TYPE h histogram\nh_bucket{a=\"1\",le=\"1\"} 7\n\
             h_bucket{a=\"1\",le=\"+Inf\"} 7\nh_sum{a=\"1\"} 8\nh_count{a=\"1\"} 7\n",
        ),
        (
            &["holdall_build_info"],
            concat!(
                "# HELP holdall_build_info The version of the server; the value is always 1.\n",
                "# TYPE holdall_build_info gauge\nholdall_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1\n"
            ),
        ),
    ] {
        assert_eq!(filtered(&pages, Format::Text, selectors).await, expected, "{selectors:?}");
    }
}

#[tokio::test]
async fn what_is_cut_out_of_a_family_of_groups_is_of_unknown_type_in_openmetrics() {
    let pages = pages(some_of_each_type());
    let whole = "# HELP h H.\n# TYPE h histogram\nh_bucket{a=\"2\",le=\"1.0\"} 7\n\
                 h_bucket{a=\"2\",le=\"+Inf\"} 7\nh_sum{a=\"2\"} 8\nh_count{a=\"2\"} 7\n";
    for (selectors, expected) in [
        (&["nothing"][..], ""),
        (&["{__name__=~\"h_.*\",a=\"2\"}"], whole),
        (
            &["h_count", "h_bucket{le=\"+Inf\",a=\"1\"}"],
            "# HELP h_bucket H.\n# TYPE h_bucket unknown\nh_bucket{a=\"1\",le=\"+Inf\"} 7\n\
             # HELP h_count H.\n# TYPE h_count unknown\nh_count{a=\"1\"} 7\nh_count{a=\"2\"} 7\n",
        ),
        // A counter needs no created sample, but a created sample needs its counter.
        (&["c_total{a=\"1\"}"], "# HELP c C.\n# TYPE c counter\nc_total{a=\"1\"} 5\n"),
        (
            &["c_created{a=\"1\"}"],
            "# HELP c_created C.\n# TYPE c_created unknown\nc_created{a=\"1\"} 1\n",
        ),
        (&["g{a=\"3\"}"], "# TYPE g gauge\ng{a=\"3\"} 3\n"),
    ] {
        let page = filtered(&pages, Format::OpenMetrics, selectors).await;
        assert_eq!(page, expected.to_owned() + "# EOF\n", "{selectors:?}");
    }
}

#[tokio::test]
async fn a_large_filtered_page_is_made_in_parts_of_bounded_size() {
    let gauge = metadata(MetricType::Gauge, "");
    let names = ["many", "other"];
    let series = |i: usize| upsert(names[i % 2], &format!("i=\"{i:0>50}\""), 1.0, Some(&gauge));
    let pages = pages((0..50_000).map(series).collect());
    for format in [Format::Text, Format::OpenMetrics] {
        let parts = parts(&pages, format, false, &["many"]).await;
        assert!(parts.len() > 20, "{}", parts.len());
        assert!(parts.iter().all(|part| part.len() < STEP_BYTES + 200));
        let text = String::from_utf8(parts.concat()).expect("text");
        assert_eq!(text.lines().filter(|line| line.starts_with("many{")).count(), 25_000);
        assert_eq!(text.matches("# TYPE").count(), 1);
        assert!(!text.contains("other"));
        assert_eq!(filtered(&pages, format, &["many"]).await, text);
    }
}

/// Filters the whole page in one go.
fn filtered_at_once(page: &str, selectors: &[Selector]) -> String {
    let (mut out, mut header) = (String::new(), String::new());
    let mut in_header = false;
    for line in page.lines() {
        if line.starts_with('#') {
            if !std::mem::replace(&mut in_header, true) {
                header.clear();
            }
            header += &format!("{line}\n");
            continue;
        }
        in_header = false;
        if is_selected(selectors, &LineParts::parse(line.as_bytes())) {
            out += &std::mem::take(&mut header);
            out += &format!("{line}\n");
        }
    }
    out
}

const SELECTORS: [&str; 8] = [
    "x",
    "{__name__=~\"x_.*\"}",
    "x_bucket{le=\"9\"}",
    "{a=~\"0.*\"}",
    "{__name__!=\"y\",a=\"\",x!=\"\"}",
    "{__name__=~\".*_sum\"}",
    "x_created",
    "{__name__=~\".+\"}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_filtered_page_is_the_page_of_what_matches(
        changes in prop::collection::vec(any_change(), 0..60),
        first in 0..SELECTORS.len(),
        second in 0..SELECTORS.len(),
    ) {
        let pages = pages(changes);
        let texts = [SELECTORS[first], SELECTORS[second]];
        let selectors = texts.map(|text| Selector::parse(text).expect("a selector"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut page = pages.scrape(Format::Text, false).await.expect("it renders");
            let mut whole = Vec::new();
            while let Some(frame) = page.next_frame() {
                whole.extend_from_slice(&frame);
            }
            let whole = String::from_utf8(whole).expect("text");
            let expected = filtered_at_once(&whole, &selectors);
            assert_eq!(filtered(&pages, Format::Text, &texts).await, expected);
            // The order and the names of families differ, but not the samples.
            let openmetrics = filtered(&pages, Format::OpenMetrics, &["{__name__=~\".+\"}"]).await;
            assert_eq!(samples(&openmetrics), samples(&whole));
        });
    }
}

/// Returns the names and values of the samples, sorted.
fn samples(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let mut samples: Vec<_> = lines
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            (name, line.rsplit(' ').next().unwrap_or_default())
        })
        .collect();
    samples.sort_unstable();
    samples
}
