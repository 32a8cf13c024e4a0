//! The refresher over a scripted store.

mod real_store;
mod scripted_store;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use proptest::prelude::{any, prop, proptest};
use tokio_util::sync::CancellationToken;

use self::scripted_store::{Script, ScriptedStore};
use super::{MAX_BATCHES, Refresher};
use crate::clock::ManualClock;
use crate::exposition::mirror::tests::upsert;
use crate::exposition::{CacheRegistry, Exports, Format, OwnMetrics, Pages, ScrapeBody};
use crate::model::time::Timestamp;
use crate::store::Change;

struct Setup {
    store: Arc<ScriptedStore>,
    clock: Arc<ManualClock>,
    pages: Arc<Pages>,
    refresher: Refresher,
}

fn setup() -> Setup {
    let store = Arc::new(ScriptedStore::default());
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(0)));
    let own = Arc::new(OwnMetrics::register(&Registry::new()).expect("no name twice"));
    let pages = Arc::new(Pages::new(own, Arc::clone(&clock) as _));
    let mut refresher = Refresher::new(
        Arc::clone(&store) as _,
        Arc::clone(&store) as _,
        Arc::clone(&pages),
        Arc::new(CacheRegistry::default()),
        Exports::default(),
    );
    refresher.batch_series = 3;
    Setup { store, clock, pages, refresher }
}

fn read(mut body: ScrapeBody) -> Vec<u8> {
    let length = body.remaining();
    let mut out = Vec::new();
    while let Some(frame) = body.next_frame() {
        out.extend_from_slice(&frame);
    }
    assert_eq!(out.len() as u64, length);
    out
}

impl Setup {
    async fn page(&self, format: Format) -> String {
        let plain = read(self.pages.scrape(format, false).await.expect("a page"));
        let gzip = read(self.pages.scrape(format, true).await.expect("a page"));
        let mut unzipped = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut unzipped).expect("one member");
        // Metrics of the process may change in between.
        assert_eq!(
            mirrored(&String::from_utf8_lossy(&plain)),
            mirrored(&String::from_utf8_lossy(&unzipped))
        );
        String::from_utf8(plain).expect("text")
    }

    /// Returns the mirrored samples.
    async fn samples(&self) -> Vec<String> {
        mirrored(&self.page(Format::Text).await)
    }
}

fn mirrored(page: &str) -> Vec<String> {
    let own = |line: &&str| !line.starts_with('#') && !line.starts_with("holdall_");
    page.lines().filter(own).map(str::to_owned).collect()
}

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn the_pages_follow_the_store() {
    let s = setup();
    assert!(!s.pages.is_complete());
    for i in 0..10 {
        s.store.set(&format!("m{i}"), f64::from(i));
    }
    s.refresher.tick().await.expect("the store works");
    assert!(s.pages.is_complete());
    assert_eq!(s.samples().await.len(), 10);
    s.store.set("m3", 33.0);
    s.store.delete("m4");
    s.refresher.tick().await.expect("the store works");
    let samples = s.samples().await;
    assert!(samples.contains(&"m3 33".to_owned()) && !samples.iter().any(|l| l.starts_with("m4")));
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_mirrored_series"), Some(9.0));
    assert_eq!(value(&page, "holdall_store_entries{resource=\"series\"}"), Some(9.0));
    assert_eq!(value(&page, "holdall_store_entries_limit{resource=\"series\"}"), Some(100.0));
}

#[tokio::test]
async fn the_last_pages_stay_when_the_store_fails() {
    let s = setup();
    s.store.set("up", 1.0);
    s.refresher.tick().await.expect("the store works");
    s.store.state.lock().fails = true;
    s.clock.advance(Duration::from_secs(7));
    // An age is not measured by a clock that can be set.
    s.clock.set_system(Timestamp::from_nanos(0));
    assert!(s.refresher.tick().await.is_err());
    assert_eq!(s.samples().await, ["up 1"]);
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_refresh_failures_total"), Some(1.0));
    assert_eq!(value(&page, "holdall_page_age_seconds"), Some(7.0));
    assert_eq!(value(&page, "holdall_store_up"), Some(0.0));
    // What the store had stays as well, so that nothing on the page comes and goes with a failure.
    assert_eq!(value(&page, "holdall_store_entries{resource=\"series\"}"), Some(1.0));
    s.store.state.lock().fails = false;
    s.store.set("up", 0.0);
    s.refresher.tick().await.expect("the store works");
    assert_eq!(s.samples().await, ["up 0"]);
    assert_eq!(value(&s.page(Format::Text).await, "holdall_page_age_seconds"), Some(0.0));
}

#[tokio::test]
async fn pages_are_as_new_as_the_delta_with_no_more_changes_behind_it() {
    let s = setup();
    s.refresher.tick().await.expect("the store works");
    // More than one refresh reads: it publishes what it has, but has not caught up.
    let batches = MAX_BATCHES + 1;
    for i in 0..batches * s.refresher.batch_series {
        s.store.set(&format!("m{i}"), 1.0);
    }
    s.clock.advance(Duration::from_secs(5));
    s.refresher.tick().await.expect("the store works");
    let age = async || value(&s.page(Format::Text).await, "holdall_page_age_seconds");
    assert_eq!(s.samples().await.len(), MAX_BATCHES * s.refresher.batch_series);
    assert_eq!(age().await, Some(5.0));
    s.refresher.tick().await.expect("the store works");
    assert_eq!(s.samples().await.len(), batches * s.refresher.batch_series);
    assert_eq!(age().await, Some(0.0));
}

#[tokio::test]
async fn a_page_is_complete_only_with_the_metrics_of_the_store() {
    let s = setup();
    s.store.set("up", 1.0);
    s.store.state.lock().has_no_status = true;
    assert!(s.refresher.tick().await.is_err());
    assert!(!s.pages.is_complete());
    s.store.state.lock().has_no_status = false;
    s.refresher.tick().await.expect("the store works");
    assert!(s.pages.is_complete());
}

#[tokio::test]
async fn no_delta_is_read_where_the_status_shows_no_change() {
    let s = setup();
    s.store.set("up", 1.0);
    s.refresher.tick().await.expect("the store works");
    let read = s.store.state.lock().deltas;
    s.clock.advance(Duration::from_secs(5));
    s.refresher.tick().await.expect("the store works");
    assert_eq!(s.store.state.lock().deltas, read);
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_page_age_seconds"), Some(0.0), "it is known to be up to date");
    s.store.set("up", 2.0);
    s.refresher.tick().await.expect("the store works");
    assert_eq!(s.samples().await, ["up 2"]);
    assert!(s.store.state.lock().deltas > read);
}

#[tokio::test]
async fn a_wiped_store_is_read_from_the_start() {
    let s = setup();
    s.store.set("old", 1.0);
    s.refresher.tick().await.expect("the store works");
    *s.store.state.lock() = Script { epoch: 1, ..Script::default() };
    s.store.set("new", 1.0);
    s.refresher.tick().await.expect("the store works");
    assert_eq!(s.samples().await, ["new 1"]);
}

#[tokio::test]
async fn a_scrape_does_not_wait_for_a_refresh_that_hangs() {
    let s = setup();
    s.store.set("up", 1.0);
    s.refresher.tick().await.expect("the store works");
    s.store.state.lock().hangs = true;
    let stuck = s.refresher.tick();
    let scrape = async {
        s.clock.advance(Duration::from_secs(60));
        s.page(Format::Text).await
    };
    let page = tokio::select! {
        _ = stuck => None,
        page = scrape => Some(page),
    };
    let page = page.expect("the refresh hangs");
    assert_eq!(value(&page, "holdall_page_age_seconds"), Some(60.0));
    assert_eq!(mirrored(&page), ["up 1"]);
}

#[tokio::test]
async fn openmetrics_is_rendered_on_demand_and_refreshed_while_it_is_requested() {
    let s = setup();
    s.store.set("jobs_total", 1.0);
    s.refresher.tick().await.expect("the store works");
    let page = s.page(Format::OpenMetrics).await;
    assert!(page.ends_with("# TYPE jobs_total unknown\njobs_total 1\n# EOF\n"));
    assert!(page.contains("# TYPE holdall_refresh_failures counter\n"));
    s.store.set("jobs_total", 2.0);
    s.refresher.tick().await.expect("the store works");
    assert!(s.pages.state.read().openmetrics.is_some());
    assert!(s.page(Format::OpenMetrics).await.ends_with("jobs_total 2\n# EOF\n"));
    s.clock.advance(Duration::from_secs(601));
    s.refresher.tick().await.expect("the store works");
    assert!(s.pages.state.read().openmetrics.is_none());
    s.store.set("jobs_total", 3.0);
    s.refresher.tick().await.expect("the store works");
    assert!(s.page(Format::OpenMetrics).await.ends_with("jobs_total 3\n# EOF\n"));
}

#[tokio::test]
async fn totals_of_the_store_and_of_chunks_are_counted_once() {
    let s = setup();
    s.store.set("up", 1.0);
    for _ in 0..3 {
        s.refresher.tick().await.expect("the store works");
    }
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_store_commits_total"), Some(1.0));
    assert_eq!(value(&page, "holdall_cache_hits_total{cache=\"pages\",namespace=\"\"}"), Some(2.0));
    let misses = "holdall_cache_misses_total{cache=\"pages\",namespace=\"\",reason=\"absent\"}";
    assert_eq!(value(&page, misses), Some(1.0));
}

#[tokio::test]
async fn the_loop_refreshes_at_once_and_stops_at_shutdown() {
    let s = setup();
    s.store.set("up", 1.0);
    let shutdown = CancellationToken::new();
    let pages = Arc::clone(&s.pages);
    let refresher = s.refresher;
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { refresher.run(Duration::from_secs(3600), stop).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !pages.is_complete() {
        assert!(Instant::now() < deadline, "no refresh at the start");
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it stops").expect("well");
}

proptest! {
    #[test]
    fn no_change_is_missed_while_the_snapshot_is_read(
        before in prop::collection::vec((0..12_u8, any::<bool>()), 0..20),
        meanwhile in prop::collection::vec((0..12_u8, any::<bool>()), 0..8),
    ) {
        let change = |&(i, present): &(u8, bool)| {
            let point = upsert(&format!("m{i}"), "", f64::from(i), None);
            match point {
                Change::Upserted(point) if !present => Change::Deleted(point.key),
                other => other,
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let s = setup();
            before.iter().map(change).for_each(|c| s.store.write(c));
            s.store.state.lock().during_reads = meanwhile.iter().map(change).collect();
            s.refresher.tick().await.expect("the store works");
            let held: Vec<_> = {
                let state = s.store.state.lock();
                state.points.values().map(|p| format!("{} {}", p.key, p.sample.value)).collect()
            };
            assert_eq!(s.samples().await, held);
        });
    }
}
