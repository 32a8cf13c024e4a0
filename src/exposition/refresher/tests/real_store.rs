//! The pages over a real store, in which series also expire, against those of a server that has just started.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_oneof, proptest};

use super::read;
use crate::clock::{Clock, ManualClock, SharedClock};
use crate::exposition::refresher::Refresher;
use crate::exposition::{CacheRegistry, Exports, Format, OwnMetrics, Pages};
use crate::model::batch::PointBatch;
use crate::model::selector::Selector;
use crate::model::series::{Metadata, MetricType};
use crate::model::time::Timestamp;
use crate::store::embedded::{EmbeddedSettings, open_with};
use crate::store::{SeriesSettings, SeriesWriter, StoreSettings, Stores};

const RETENTION: Duration = Duration::from_secs(3600);
/// So few that the refresher's cursor is refused when many series went since its last tick: it then builds the mirror
/// anew.
const MAX_TOMBSTONES: usize = 6;

const NAMES: [&str; 7] = ["x", "x_bucket", "x_count", "x_sum", "x_total", "x_created", "y"];
const LABELS: [&str; 6] =
    ["", "a=\"1\"", "a=\"1\",le=\"2\"", "a=\"2\",le=\"+Inf\"", "le=\"1_0\"", "quantile=\"0.5\""];
const TYPES: [&str; 6] = ["counter", "gauge", "histogram", "summary", "info", "unknown"];

#[derive(Debug, Clone)]
enum Step {
    Push(Vec<Pushed>),
    Delete(&'static str),
    /// Lets so many tenths of the retention pass.
    Pass(u32),
    Refresh,
}

#[derive(Debug, Clone)]
struct Pushed {
    name: &'static str,
    labels: &'static str,
    /// Type and help text; `None` brings none.
    about: Option<(&'static str, u8)>,
    value: u8,
    /// How old the sample is, in tenths of the retention.
    age: u32,
}

fn any_step() -> impl Strategy<Value = Step> {
    let about = prop::option::of((prop::sample::select(&TYPES[..]), 0..2_u8));
    let (names, labels) = (prop::sample::select(&NAMES[..]), prop::sample::select(&LABELS[..]));
    let pushed = (names, labels, about, 0..9_u8, 0..10_u32)
        .prop_map(|(name, labels, about, value, age)| Pushed { name, labels, about, value, age });
    let selectors =
        ["{__name__=~\"x.*\"}", "{a=\"1\"}", "x_bucket", "{le=\"1_0\"}", "{__name__=~\".+\"}"];
    prop_oneof![
        4 => prop::collection::vec(pushed, 1..12).prop_map(Step::Push),
        2 => prop::sample::select(selectors.to_vec()).prop_map(Step::Delete),
        2 => (1..6_u32).prop_map(Step::Pass),
        3 => Just(Step::Refresh),
    ]
}

/// A server's pages.
struct Shown {
    pages: Arc<Pages>,
    refresher: Refresher,
}

impl Shown {
    fn over(stores: &Stores, clock: &Arc<ManualClock>) -> Self {
        let own = Arc::new(OwnMetrics::register(&Registry::new()).expect("no name twice"));
        let pages = Arc::new(Pages::new(own, Arc::clone(clock) as _));
        let refresher = Refresher::new(
            Arc::clone(&stores.series),
            Arc::clone(&stores.operation),
            Arc::clone(&pages),
            Arc::new(CacheRegistry::default()),
            Exports::default(),
        );
        Self { pages, refresher }
    }

    /// Refreshes; returns what is shown of series in each format, which is the same with gzip and without.
    async fn refreshed(&self) -> Vec<Vec<String>> {
        self.refresher.tick().await.expect("the store works");
        let mut shown = Vec::new();
        for format in [Format::Text, Format::OpenMetrics] {
            let plain = read(self.pages.scrape(format, false).await.expect("a page"));
            let gzip = read(self.pages.scrape(format, true).await.expect("a page"));
            let mut unzipped = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&gzip[..]);
            std::io::Read::read_to_end(&mut decoder, &mut unzipped).expect("one member");
            let page = of_series(&plain);
            assert_eq!(page, of_series(&unzipped));
            shown.push(page);
        }
        shown
    }
}

/// Returns the lines that are about series, without those of the server's own metrics.
fn of_series(page: &[u8]) -> Vec<String> {
    let name_of = |line: &str| {
        let line =
            line.strip_prefix("# ").and_then(|line| line.split_once(' ')).map_or(line, |l| l.1);
        line.split([' ', '{']).next().unwrap_or_default().to_owned()
    };
    let own = |line: &&str| !name_of(line).starts_with("holdall_") && **line != *"# EOF";
    let text = String::from_utf8_lossy(page);
    text.lines().filter(own).map(str::to_owned).collect()
}

async fn run(steps: Vec<Step>) {
    let start = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
    let clock = Arc::new(ManualClock::at(start));
    let defaults = StoreSettings::for_tests();
    let series =
        SeriesSettings { retention: RETENTION, max_tombstones: MAX_TOMBSTONES, ..defaults.series };
    let settings = StoreSettings { series, ..defaults };
    let shared = Arc::clone(&clock) as SharedClock;
    let (stores, _) =
        open_with(&EmbeddedSettings::in_memory(), &settings, |_| shared).expect("opens");
    let server = Shown::over(&stores, &clock);
    for step in steps.into_iter().chain([Step::Refresh]) {
        match step {
            Step::Push(points) => {
                let mut batch = PointBatch::default();
                for Pushed { name, labels, about, value, age } in points {
                    let metadata = about.map(|(kind, help)| {
                        let metric_type = MetricType::parse(kind).expect("a type");
                        let help = format!("help {help}").as_str().into();
                        batch.add_metadata(Metadata { metric_type, help, unit: "".into() })
                    });
                    let at = clock.now().saturating_sub(RETENTION / 10 * age);
                    batch.push(name, labels, f64::from(value), Some(at), metadata);
                }
                stores
                    .series
                    .upsert(batch, SeriesWriter::anybody())
                    .await
                    .expect("the store works");
            }
            Step::Delete(selector) => {
                let selector = Selector::parse(selector).expect("valid");
                let deleted = stores
                    .series
                    .delete_matching(&[selector], false, SeriesWriter::anybody())
                    .await;
                deleted.expect("the store works");
            }
            Step::Pass(tenths) => clock.advance(RETENTION / 10 * tenths),
            Step::Refresh => {
                let fresh = Shown::over(&stores, &clock).refreshed().await;
                assert_eq!(server.refreshed().await, fresh);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_pushes_deletions_and_expiries_lead_to_the_pages_of_a_fresh_server(
        steps in prop::collection::vec(any_step(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(run(steps));
    }
}
