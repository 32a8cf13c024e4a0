//! What a refresh of /metrics costs at a million series: against a full build, for changes that
//! lie together and changes that lie anywhere, with the time for the text and for compression.
//!
//! `cargo bench --bench pages -- [series] [changes]`

#![expect(clippy::print_stdout, reason = "this is what a benchmark is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdall::exposition::mirror::{ExpositionSizes, Mirror};
use holdall::model::series::{Metadata, MetricType, Point, Sample, SeriesKey};
use holdall::model::time::Timestamp;
use holdall::store::Change;

const CHUNK: usize = 50_000;

/// How the series are spread over families.
#[derive(Clone, Copy)]
enum Shape {
    Counters { families: usize },
    Histograms,
}

struct Series {
    shape: Shape,
    names: Vec<Arc<str>>,
    metadata: Arc<Metadata>,
    count: usize,
}

impl Series {
    fn new(shape: Shape, count: usize) -> Self {
        let (names, metric_type) = match shape {
            Shape::Counters { families } => (
                (0..families).map(|i| format!("app_requests_{i:04}_total").into()).collect(),
                MetricType::Counter,
            ),
            Shape::Histograms => (
                ["bucket", "sum", "count"]
                    .map(|s| format!("app_request_seconds_{s}").into())
                    .into(),
                MetricType::Histogram,
            ),
        };
        let metadata =
            Arc::new(Metadata { metric_type, help: "Some help.".into(), unit: "".into() });
        Self { shape, names, metadata, count }
    }

    /// Returns series `i`; neighbours in number are neighbours on the page.
    fn change(&self, i: usize, value: f64) -> Change {
        let (name, labels) = match self.shape {
            Shape::Counters { families } => {
                let per_family = self.count.div_ceil(families);
                let labels = format!(
                    "code=\"200\",instance=\"host-{:07}\",job=\"worker\",path=\"/api/v1\"",
                    i % per_family
                );
                (&self.names[i / per_family], labels)
            }
            Shape::Histograms => match i % 14 {
                12 => (&self.names[1], format!("instance=\"host-{:07}\"", i / 14)),
                13 => (&self.names[2], format!("instance=\"host-{:07}\"", i / 14)),
                bound => {
                    let le = f64::from(1 << bound) / 64.0;
                    let labels = format!(
                        "instance=\"host-{:07}\",le=\"{le}\",path=\"/api/v1/some/path\"",
                        i / 14
                    );
                    (&self.names[0], labels)
                }
            },
        };
        Change::Upserted(Point {
            key: SeriesKey { name: Arc::clone(name), labels: labels.into() },
            sample: Sample { value, updated_at: Timestamp::from_nanos(0) },
            metadata: Some(Arc::clone(&self.metadata)),
        })
    }
}

#[derive(Clone, Copy)]
struct Cost {
    text: Duration,
    page: Duration,
    sizes: ExpositionSizes,
}

fn refresh(mirror: &mut Mirror, chunks: impl Iterator<Item = Vec<Change>>) -> Cost {
    let mut text = Duration::ZERO;
    for chunk in chunks {
        let started = Instant::now();
        mirror.apply(chunk);
        text += started.elapsed();
    }
    let started = Instant::now();
    let sizes = mirror.render();
    Cost { text, page: started.elapsed(), sizes }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Numbers that look random and are the same in every run.
fn scattered(count: usize, below: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap_or(0)
    };
    (0..count).map(|_| next()).collect()
}

fn report(what: &str, cost: Cost, full: Cost) {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let ratio = |a: Duration, b: Duration| 100.0 * a.as_secs_f64() / b.as_secs_f64();
    println!(
        "{what:24} text {:8.2} ms ({:5.1} %)   publish and gzip {:8.2} ms   both {:8.2} ms ({:5.1} %)",
        ms(cost.text),
        ratio(cost.text, full.text),
        ms(cost.page),
        ms(cost.text + cost.page),
        ratio(cost.text + cost.page, full.text + full.page),
    );
}

fn measure(title: &str, series: &Series, changes: usize) {
    println!("# {title}, {} series", series.count);
    let before = resident_bytes();
    let mut mirror = Mirror::new(Arc::default());
    let all: Vec<usize> = (0..series.count).collect();
    let chunks = |which: &[usize], value: f64| -> Vec<Vec<Change>> {
        which
            .chunks(CHUNK)
            .map(|c| c.iter().map(|&i| series.change(i, value + i as f64)).collect())
            .collect()
    };
    let full = refresh(&mut mirror, all.chunks(CHUNK).flat_map(|c| chunks(c, 1e6)));
    report("full build", full, full);
    let held = resident_bytes().saturating_sub(before);
    // Later shapes live in the memory that the first one left.
    println!(
        "{:.1} B a series more resident; text {:.1} B a series, gzip {:.1} B",
        held as f64 / series.count as f64,
        full.sizes.text_bytes as f64 / series.count as f64,
        full.sizes.gzip_bytes as f64 / series.count as f64,
    );
    let idle = refresh(&mut mirror, std::iter::empty());
    report("nothing changed", idle, full);
    let start = series.count / 3;
    let clustered: Vec<usize> = (start..(start + changes).min(series.count)).collect();
    report("clustered", refresh(&mut mirror, chunks(&clustered, 2e6).into_iter()), full);
    let random = scattered(changes, series.count);
    report("anywhere", refresh(&mut mirror, chunks(&random, 3e6).into_iter()), full);
    let new: Vec<usize> = (series.count..series.count + changes).collect();
    if matches!(series.shape, Shape::Histograms) {
        report("new series", refresh(&mut mirror, chunks(&new, 4e6).into_iter()), full);
    }
    println!();
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(1_000_000);
    let changes = numbers.get(1).copied().unwrap_or(10_000);
    for (title, shape) in [
        ("one family", Shape::Counters { families: 1 }),
        ("1000 families", Shape::Counters { families: 1000 }),
        ("histograms", Shape::Histograms),
    ] {
        measure(title, &Series::new(shape, count), changes);
    }
}
