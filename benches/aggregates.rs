//! Merges into aggregates of the embedded store in batches of 1,000, and reads of windows, without HTTP.
//!
//! `cargo bench --bench aggregates` prints updates a second, with `sync = full`. Arguments: seconds for each measurement
//! (2), callers (16), keys (100000); and words, of which one must be in the name of a measurement.

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdall::model::aggregates::{
    Bucket, Entity, Event, EventId, Producer, ProducerSequence, Update,
};
use holdall::model::merge::{Kind, KindSettings};
use holdall::model::pipelines::{Pipeline, PipelineName, Window};
use holdall::model::time::Timestamp;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open};
use holdall::store::{AggregateStore, Fenced, Merge, MergeOutcome, StoreSettings, Stores};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
const WEEK: u32 = 7 * 24 * 60;

/// What makes updates count once.
#[derive(Clone, Copy, PartialEq)]
enum Once {
    EventIds,
    Sequence,
    Nothing,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    kind: &'static str,
    once: Once,
    /// All updates are about one key.
    hot: bool,
}

const ALL: [Work; 8] = [
    Work { name: "sums, event ids, many keys", kind: "sum", once: Once::EventIds, hot: false },
    Work { name: "sums, event ids, one hot key", kind: "sum", once: Once::EventIds, hot: true },
    Work {
        name: "sums, producer and seq, many keys",
        kind: "sum",
        once: Once::Sequence,
        hot: false,
    },
    Work {
        name: "sums, producer and seq, one hot key",
        kind: "sum",
        once: Once::Sequence,
        hot: true,
    },
    Work { name: "sums, many keys", kind: "sum", once: Once::Nothing, hot: false },
    Work { name: "sums, one hot key", kind: "sum", once: Once::Nothing, hot: true },
    Work { name: "hlls, 100 keys", kind: "hll", once: Once::Nothing, hot: false },
    Work { name: "hlls, one hot key", kind: "hll", once: Once::Nothing, hot: true },
];

fn pipeline(kind: &str, window: Option<Window>) -> Option<Arc<Pipeline>> {
    let settings: KindSettings = serde_json::from_value(json!({"kind": kind})).expect("a table");
    let name = PipelineName::parse("views").expect("valid");
    let kind = Kind::parse(&settings).ok()?;
    let dedup = Some(Duration::from_secs(24 * 3600));
    Some(Arc::new(Pipeline { name, kind, window, dedup, hook: None }))
}

/// Random numbers (SplitMix64).
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

async fn call(
    store: Arc<dyn AggregateStore>,
    pipeline: Arc<Pipeline>,
    work: Work,
    (caller, keys): (u64, u64),
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut random = caller;
    let at = Timestamp::from_nanos(0);
    let sketch = work.kind == "hll";
    let keys = if sketch { 100 } else { keys };
    let mut batches = 0;
    while !stop.load(Ordering::Relaxed) {
        let update = |n: u64| {
            let number = mix(&mut random);
            let key = if work.hot { 0 } else { number % keys };
            let entity = Entity::parse(format!("page/{key}")).expect("valid");
            let json: Value = if sketch { json!([number.to_string()]) } else { json!(1) };
            let delta = pipeline.kind.delta(&json, at).expect("valid");
            let event = (work.once == Once::EventIds).then(|| {
                let id = format!("{caller}-{batches}-{n}");
                let id = EventId::parse("views", &id).expect("valid");
                Event { id, content: number }
            });
            Update { entity, bucket: Bucket::WHOLE, delta, event, ttl: None, note: None }
        };
        let updates = (0..BATCH).map(update).collect();
        let sequence = (work.once == Once::Sequence).then(|| ProducerSequence {
            producer: Producer::parse(caller.to_string()).expect("valid"),
            seq: batches,
        });
        let merge = Merge { pipeline: Arc::clone(&pipeline), updates, sequence, fence: None };
        let merged = store.merge(merge).await.expect("works");
        let expected = MergeOutcome::Merged { applied: BATCH, duplicates: 0, expired: 0 };
        assert_eq!(merged, Fenced::Done(expected));
        batches += 1;
    }
    batches
}

fn open_in(folder: &Path) -> Stores {
    let settings = EmbeddedSettings { path: Some(folder.to_owned()), sync: SyncMode::Full };
    let mut store = StoreSettings::for_tests();
    store.aggregates.max_event_ids = 100_000_000;
    store.aggregates.memory = 512 << 20;
    open(&settings, &store).expect("opens").0
}

async fn merges(work: Work, seconds: u64, callers: u64, keys: u64) {
    let Some(pipeline) = pipeline(work.kind, None) else {
        println!("{:38} there is no such kind", work.name);
        return;
    };
    let folder = tempfile::tempdir_in("target").expect("a folder");
    let stores = open_in(folder.path());
    let store = stores.aggregates.clone().expect("has aggregates");
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, pipeline) = (Arc::clone(&store), Arc::clone(&pipeline));
            tokio::spawn(call(store, pipeline, work, (caller, keys), Arc::clone(&stop)))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut batches = 0;
    for task in tasks {
        batches += task.await.expect("does not panic");
    }
    let rate = (batches * BATCH) as f64 / start.elapsed().as_secs_f64();
    let commits = stores.operation.status().await.expect("reports").commits;
    let closing = Instant::now();
    stores.operation.close().await.expect("closes");
    drop((store, stores));
    let (close_ms, opening) = (closing.elapsed().as_millis(), Instant::now());
    drop(open_in(folder.path()));
    println!(
        "{:38} {rate:9.0} updates/s, {:4.1} batches in a commit, close {close_ms} ms, open {} ms",
        work.name,
        batches as f64 / commits as f64,
        opening.elapsed().as_millis(),
    );
}

async fn windows() {
    let window = Window { granularity: MINUTE, retention: 30 * 24 * 60 * MINUTE };
    let pipeline = pipeline("sum", Some(window)).expect("there is this kind");
    let folder = tempfile::tempdir_in("target").expect("a folder");
    let stores = open_in(folder.path());
    let store = stores.aggregates.clone().expect("has aggregates");
    let newest = Bucket::of(Timestamp::parse("2026-11-21T10:00:00Z").expect("valid"), MINUTE);
    let entities: Vec<_> =
        ["full", "sparse"].map(|name| Entity::parse(name).expect("valid")).to_vec();
    let mut updates = Vec::new();
    for n in 0..WEEK {
        for (entity, every) in [(&entities[0], 1), (&entities[1], 1_000)] {
            if n % every == 0 {
                let delta = pipeline.kind.delta(&json!(1), Timestamp::from_nanos(0));
                updates.push(Update {
                    entity: entity.clone(),
                    bucket: newest.back(n),
                    delta: delta.expect("valid"),
                    event: None,
                    ttl: Some(60 * 24 * 60 * MINUTE),
                    note: None,
                });
            }
        }
    }
    let merge = Merge { pipeline: Arc::clone(&pipeline), updates, sequence: None, fence: None };
    store.merge(merge).await.expect("works");
    for place in ["in memory", "in the file"] {
        for (entity, buckets) in [(0, 1), (0, WEEK), (1, WEEK)] {
            let of = &entities[entity..=entity];
            let mut micros = Vec::new();
            for _ in 0..20 {
                let start = Instant::now();
                let found = store.window(&pipeline, of, newest, buckets).await.expect("works");
                micros.push(start.elapsed().as_micros());
                assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
            }
            micros.sort_unstable();
            let name = format!("window of {buckets}, {}, {place}", of[0]);
            println!("{name:38} {:6} us, {} us at most", micros[10], micros[19]);
        }
        // Long enough for the journal to be compacted.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    stores.operation.close().await.expect("closes");
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|of| of.parse().ok()).collect();
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|of| of.parse::<u64>().is_err() && !of.starts_with('-'))
        .collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for work in ALL.into_iter().filter(|work| wanted(work.name)) {
            merges(work, number(0, 2), number(1, 16), number(2, 100_000)).await;
        }
        if wanted("windows") {
            windows().await;
        }
    });
}
