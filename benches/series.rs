//! What the embedded store of series costs: pushes of new and of known series, one-series
//! pushes while few and many are held, flush, start, and memory.
//!
//! `cargo bench --bench series [-- COUNT]`

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdall::model::batch::PointBatch;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open};
use holdall::store::{SeriesSettings, SeriesWriter, StoreSettings};
use holdall::store::{SeriesStore, Stores};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PER_NAME: usize = 10_000;

fn main() {
    let count = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let settings = EmbeddedSettings { path: Some(folder.path().to_owned()), sync: SyncMode::Full };
    let store = StoreSettings {
        series: SeriesSettings {
            retention: Duration::from_secs(86_400),
            max_future_skew: Duration::from_secs(600),
            max_series: 10_000_000,
            max_bytes: 1 << 40,
            max_tombstones: 1_000_000,
        },
        ..StoreSettings::for_tests()
    };
    let before = resident_bytes();
    runtime.block_on(async {
        let (stores, _) = open(&settings, &store).expect("opens");
        measure(&stores, count).await;
        report("flush of all", count, time(stores.operation.flush()).await);
        let settled = resident_bytes();
        println!("memory per series: {} bytes", (settled - before) / count as u64);
        stores.operation.close().await.expect("closes");
    });
    let start = Instant::now();
    let (stores, _) = open(&settings, &store).expect("opens again");
    report("start", count, start.elapsed());
    runtime.block_on(stores.operation.close()).expect("closes");
}

async fn measure(stores: &Stores, count: usize) {
    let series = &stores.series;
    let small = one_by_one(series, 1_000).await;
    report(
        "push of new",
        count,
        time(series.upsert(batch(count, 1.0), SeriesWriter::anybody())).await,
    );
    for value in 2..5 {
        let known = batch(count, f64::from(value));
        report("push of known", count, time(series.upsert(known, SeriesWriter::anybody())).await);
    }
    let large = one_by_one(series, 1_000).await;
    println!("push of one, p99: {small:?} with few held, {large:?} with {count} held");
}

async fn one_by_one(series: &Arc<dyn SeriesStore>, pushes: usize) -> Duration {
    let mut times = Vec::new();
    for value in 0..pushes {
        let value = f64::from(u32::try_from(value).expect("small"));
        times.push(time(series.upsert(batch(1, value), SeriesWriter::anybody())).await);
    }
    times.sort();
    times[pushes * 99 / 100]
}

async fn time<T, E: std::fmt::Debug>(work: impl Future<Output = Result<T, E>>) -> Duration {
    let start = Instant::now();
    work.await.expect("works");
    start.elapsed()
}

fn batch(count: usize, value: f64) -> PointBatch {
    let mut batch = PointBatch::with_capacity(count * 80);
    for i in 0..count {
        let (name, member) = (i / PER_NAME, i % PER_NAME);
        let name = format!("http_requests_{name:03}_total");
        let labels = format!("code=\"200\",instance=\"host-{member:05}\",job=\"api\",path=\"/v1\"");
        batch.push(&name, &labels, value, None, None);
    }
    batch
}

fn report(what: &str, count: usize, took: Duration) {
    let each = took.as_nanos() / count as u128;
    println!("{what}: {took:?} for {count} series, {each} ns each");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("a Linux machine");
    let pages: u64 = status.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}
