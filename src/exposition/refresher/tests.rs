//! The refresher over a store that does as it is told.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::Registry;
use proptest::prelude::{any, prop, proptest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Refresher;
use crate::clock::ManualClock;
use crate::exposition::mirror::tests::upsert;
use crate::exposition::{CacheRegistry, Format, OwnMetrics, PageBody, Pages};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::{
    Capabilities, Change, Delta, ErrorKind, Fenced, Operation, ResourceStatus, SeriesStore,
    Snapshot, StoreError, StoreResult, StoreStatus, UpsertOutcome,
};

/// A store of which only the reads exist.
#[derive(Default)]
struct ToldStore {
    state: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    points: BTreeMap<SeriesKey, Point>,
    changed: BTreeMap<SeriesKey, u64>,
    epoch: u64,
    seq: u64,
    fails: bool,
    hangs: bool,
    /// What is written between two reads.
    meanwhile: Vec<Change>,
}

impl Told {
    fn write(&mut self, change: Change) {
        self.seq += 1;
        let key = match change {
            Change::Upserted(point) => {
                self.points.insert(point.key.clone(), point.clone());
                point.key
            }
            Change::Deleted(key) => {
                self.points.remove(&key);
                key
            }
        };
        self.changed.insert(key, self.seq);
    }

    fn cursor(&self) -> Cursor {
        Cursor::single(self.epoch, self.seq)
    }
}

impl ToldStore {
    fn write(&self, change: Change) {
        self.state.lock().write(change);
    }

    fn set(&self, name: &str, value: f64) {
        self.write(upsert(name, "", value, None));
    }

    fn delete(&self, name: &str) {
        self.write(Change::Deleted(SeriesKey { name: name.into(), labels: "".into() }));
    }

    async fn answer(&self) -> StoreResult<()> {
        if self.state.lock().hangs {
            std::future::pending::<()>().await;
        }
        if self.state.lock().fails {
            return Err(StoreError::new(ErrorKind::Unavailable, "told to fail"));
        }
        Ok(())
    }
}

#[async_trait]
impl SeriesStore for ToldStore {
    async fn upsert(&self, _: PointBatch, _: Option<Fence>) -> StoreResult<Fenced<UpsertOutcome>> {
        Ok(Fenced::Refused)
    }

    async fn snapshot(
        &self,
        _: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        self.answer().await?;
        let mut state = self.state.lock();
        let mut points: Vec<Point> = state
            .points
            .values()
            .filter(|p| after.is_none_or(|after| p.key > *after))
            .take(limit + 1)
            .cloned()
            .collect();
        let more = points.len() > limit;
        points.truncate(limit);
        let cursor = state.cursor();
        if let Some(change) = state.meanwhile.pop() {
            state.write(change);
        }
        Ok(Snapshot { points, cursor, more })
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        Ok(self.state.lock().cursor())
    }

    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        self.answer().await?;
        let state = self.state.lock();
        if after.epoch != state.epoch {
            return Ok(Delta::Gone);
        }
        let mut newer: Vec<_> = state
            .changed
            .iter()
            .filter(|(_, seq)| **seq > after.as_single().expect("of this store"))
            .collect();
        newer.sort_by_key(|(_, seq)| **seq);
        let more = newer.len() > limit;
        newer.truncate(limit);
        let seq = newer.last().map_or(after.as_single().expect("of this store"), |(_, seq)| **seq);
        let changes = newer
            .into_iter()
            .map(|(key, _)| match state.points.get(key) {
                Some(point) => Change::Upserted(point.clone()),
                None => Change::Deleted(key.clone()),
            })
            .collect();
        Ok(Delta::Changes { changes, next: Cursor::single(after.epoch, seq), more })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn get(&self, _: SeriesId) -> StoreResult<Option<Point>> {
        Ok(None)
    }

    async fn delete(&self, _: SeriesId, _: Option<Fence>) -> StoreResult<Fenced<bool>> {
        Ok(Fenced::Refused)
    }

    async fn delete_matching(
        &self,
        _: &[Selector],
        _: bool,
        _: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        Ok(Fenced::Refused)
    }

    async fn expire(&self) -> StoreResult<usize> {
        Ok(0)
    }
}

#[async_trait]
impl Operation for ToldStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_batches: true,
            shards: 1,
            backend: "told",
            survives_restart: false,
            survives_power_cut: false,
            shared: false,
            atomic_fencing: true,
        }
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        self.answer().await?;
        let series = self.state.lock().points.len() as u64;
        let resources = vec![ResourceStatus::counted("series", series)];
        Ok(StoreStatus { resources, commits: series, ..StoreStatus::default() })
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}

struct Setup {
    store: Arc<ToldStore>,
    clock: Arc<ManualClock>,
    pages: Arc<Pages>,
    refresher: Refresher,
}

fn setup() -> Setup {
    let store = Arc::new(ToldStore::default());
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(0)));
    let own = Arc::new(OwnMetrics::register(&Registry::new()).expect("no name twice"));
    let pages = Arc::new(Pages::new(own, Arc::clone(&clock) as _));
    let mut refresher = Refresher::new(
        Arc::clone(&store) as _,
        Arc::clone(&store) as _,
        Arc::clone(&pages),
        Arc::new(CacheRegistry::default()),
    );
    refresher.chunk = 3;
    Setup { store, clock, pages, refresher }
}

fn read(mut body: PageBody) -> Vec<u8> {
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
        // What the process uses may change in between.
        assert_eq!(
            mirrored(&String::from_utf8_lossy(&plain)),
            mirrored(&String::from_utf8_lossy(&unzipped))
        );
        String::from_utf8(plain).expect("text")
    }

    /// The samples on the page that are not holdall's own.
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
async fn the_page_follows_the_store() {
    let s = setup();
    assert!(!s.pages.is_complete());
    for i in 0..10 {
        s.store.set(&format!("m{i}"), f64::from(i));
    }
    s.refresher.tick().await.expect("a good store");
    assert!(s.pages.is_complete());
    assert_eq!(s.samples().await.len(), 10);
    s.store.set("m3", 33.0);
    s.store.delete("m4");
    s.refresher.tick().await.expect("a good store");
    let samples = s.samples().await;
    assert!(samples.contains(&"m3 33".to_owned()) && !samples.iter().any(|l| l.starts_with("m4")));
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_mirrored_series"), Some(9.0));
    assert_eq!(value(&page, "holdall_store_entries{resource=\"series\"}"), Some(9.0));
}

#[tokio::test]
async fn a_failing_store_leaves_the_last_page_in_place() {
    let s = setup();
    s.store.set("up", 1.0);
    s.refresher.tick().await.expect("a good store");
    s.store.state.lock().fails = true;
    s.clock.advance(Duration::from_secs(7));
    assert!(s.refresher.tick().await.is_err());
    assert_eq!(s.samples().await, ["up 1"]);
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_refresh_failures_total"), Some(1.0));
    assert_eq!(value(&page, "holdall_page_age_seconds"), Some(7.0));
    assert_eq!(value(&page, "holdall_store_up"), Some(0.0));
    assert_eq!(value(&page, "holdall_store_entries{resource=\"series\"}"), None);
    s.store.state.lock().fails = false;
    s.store.set("up", 0.0);
    s.refresher.tick().await.expect("a good store");
    assert_eq!(s.samples().await, ["up 0"]);
    assert_eq!(value(&s.page(Format::Text).await, "holdall_page_age_seconds"), Some(0.0));
}

#[tokio::test]
async fn a_wiped_store_is_read_anew() {
    let s = setup();
    s.store.set("old", 1.0);
    s.refresher.tick().await.expect("a good store");
    *s.store.state.lock() = Told { epoch: 1, ..Told::default() };
    s.store.set("new", 1.0);
    s.refresher.tick().await.expect("a good store");
    assert_eq!(s.samples().await, ["new 1"]);
}

#[tokio::test]
async fn a_scrape_does_not_wait_for_a_refresh_that_hangs() {
    let s = setup();
    s.store.set("up", 1.0);
    s.refresher.tick().await.expect("a good store");
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
async fn openmetrics_is_made_on_demand_and_kept_fresh_while_it_is_wanted() {
    let s = setup();
    s.store.set("jobs_total", 1.0);
    s.refresher.tick().await.expect("a good store");
    let page = s.page(Format::OpenMetrics).await;
    assert!(page.ends_with("# TYPE jobs_total unknown\njobs_total 1\n# EOF\n"));
    assert!(page.contains("# TYPE holdall_refresh_failures counter\n"));
    s.store.set("jobs_total", 2.0);
    s.refresher.tick().await.expect("a good store");
    assert!(s.pages.state.read().openmetrics.is_some());
    assert!(s.page(Format::OpenMetrics).await.ends_with("jobs_total 2\n# EOF\n"));
    s.clock.advance(Duration::from_secs(601));
    s.refresher.tick().await.expect("a good store");
    assert!(s.pages.state.read().openmetrics.is_none());
    s.store.set("jobs_total", 3.0);
    s.refresher.tick().await.expect("a good store");
    assert!(s.page(Format::OpenMetrics).await.ends_with("jobs_total 3\n# EOF\n"));
}

#[tokio::test]
async fn totals_of_the_store_and_of_pages_are_counted_once() {
    let s = setup();
    s.store.set("up", 1.0);
    for _ in 0..3 {
        s.refresher.tick().await.expect("a good store");
    }
    let page = s.page(Format::Text).await;
    assert_eq!(value(&page, "holdall_store_commits_total"), Some(1.0));
    assert_eq!(value(&page, "holdall_cache_hits_total{cache=\"pages\",namespace=\"\"}"), Some(2.0));
    let misses = "holdall_cache_misses_total{cache=\"pages\",namespace=\"\",reason=\"absent\"}";
    assert_eq!(value(&page, misses), Some(1.0));
}

#[tokio::test]
async fn the_loop_refreshes_at_once_and_stops_when_told() {
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
    fn nothing_is_missed_when_the_store_changes_while_it_is_read(
        before in prop::collection::vec((0..12_u8, any::<bool>()), 0..20),
        meanwhile in prop::collection::vec((0..12_u8, any::<bool>()), 0..8),
    ) {
        let change = |&(i, alive): &(u8, bool)| {
            let point = upsert(&format!("m{i}"), "", f64::from(i), None);
            match point {
                Change::Upserted(point) if !alive => Change::Deleted(point.key),
                other => other,
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let s = setup();
            before.iter().map(change).for_each(|c| s.store.write(c));
            s.store.state.lock().meanwhile = meanwhile.iter().map(change).collect();
            s.refresher.tick().await.expect("a good store");
            let held: Vec<_> = {
                let state = s.store.state.lock();
                state.points.values().map(|p| format!("{} {}", p.key, p.sample.value)).collect()
            };
            assert_eq!(s.samples().await, held);
        });
    }
}
