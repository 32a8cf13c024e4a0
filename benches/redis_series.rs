//! What the Redis store of series costs, beside `redis-benchmark` doing the same writes.
//!
//! Starts a `redis-server` of its own. Batches of known points go through the store, one after the
//! other. `redis-benchmark` sends, on one connection, the three writes that a point is (HSET of a
//! value as large as a record, and two ZADD; ids as large as ours) in pipelines of as many
//! commands as a batch has (at most as many as serve it best), one kind after the other; a point then takes the time of one HSET and
//! two ZADD. Then snapshots and deltas, with the number of round trips.
//!
//! `cargo bench --bench redis_series [-- COUNT..]`

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdall::model::batch::PointBatch;
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{
    Delta, Fenced, SeriesSettings, SeriesWriter, StoreSettings, Stores, UpsertOutcome,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PER_NAME: usize = 10_000;
const SHARDS: usize = 16;
/// So many series are known while batches are pushed.
const KNOWN: usize = 100_000;
/// Longer pipelines make `redis-benchmark` slower.
const MOST_IN_PIPELINE: usize = 300;
/// Points that are pushed for each size of a batch, at least.
const POINTS: usize = 200_000;
/// The most series in the runs whose budget is never reached.
const PLENTY: usize = 10_000_000;
/// The budget that is filled up, so many series of it at first, and then by small batches.
const BUDGET: usize = 100_000;
const FILLED: usize = 90_000;
const SMALL: usize = 100;
/// So many writers push at the same time where the budget is nearly used up.
const WRITERS: usize = 4;
/// So many refusals are measured for each writer.
const REFUSALS: usize = 10;

fn main() {
    let counts: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![100_000, 1_000_000] } else { counts };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let redis = Redis::start();
        let stores = store(redis.port, PLENTY);
        push(&stores, 0, KNOWN, 1.0).await;
        for size in [1, 100, 1_000, 10_000] {
            let rounds = (POINTS / size).min(5_000);
            let (ours, trips) = ours(&stores, &redis, size, rounds).await;
            let theirs = theirs(&redis, size, rounds * size);
            println!(
                "batches of {size}: {:.0} points/s, {trips:.1} round trips each; redis-benchmark {:.0}; \
                 ratio {:.2}; time of the server's processor {:.2} and {:.2} us a point, ratio {:.2}",
                ours.rate,
                theirs.rate,
                ours.rate / theirs.rate,
                ours.processor_us,
                theirs.processor_us,
                theirs.processor_us / ours.processor_us,
            );
        }
    });
    runtime.block_on(near_budget());
    for count in counts {
        runtime.block_on(read(count));
    }
}

/// Measures pushes of new series by several writers until the budget is used up, and the refusals
/// from there on.
async fn near_budget() {
    let redis = Redis::start();
    let stores = store(redis.port, BUDGET);
    push(&stores, 0, FILLED, 1.0).await;
    let writers = (0..WRITERS).map(|writer| {
        let stores = stores.clone();
        tokio::spawn(async move {
            let (mut accepted, mut refused, mut partial) = (Vec::new(), Vec::new(), 0);
            let mut next = BUDGET * (writer + 1);
            while refused.len() < REFUSALS {
                let start = Instant::now();
                let outcome =
                    stores.series.upsert(batch(next, SMALL, 1.0), SeriesWriter::anybody()).await;
                match outcome {
                    Ok(Fenced::Done(UpsertOutcome::Applied(_))) => accepted.push(start.elapsed()),
                    Ok(_) => refused.push(start.elapsed()),
                    // Another writer used up a shard between the check and the write.
                    Err(error) => {
                        assert!(error.is_transient(), "{error}");
                        partial += 1;
                    }
                }
                next += SMALL;
            }
            (accepted, refused, partial)
        })
    });
    let (mut accepted, mut refused, mut partial) = (Vec::new(), Vec::new(), 0);
    for writer in writers.collect::<Vec<_>>() {
        let (more_accepted, more_refused, more_partial) = writer.await.expect("no writer panics");
        accepted.extend(more_accepted);
        refused.extend(more_refused);
        partial += more_partial;
    }
    let held = FILLED + SMALL * accepted.len();
    println!(
        "near a budget of {BUDGET}, {WRITERS} writers, batches of {SMALL}: {held} series accepted; \
         accepted in {}, refused in {}, {partial} applied in part",
        quantiles(&mut accepted),
        quantiles(&mut refused),
    );
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1));
    format!("{:?} (median), {:?} (p99)", at(50).expect("some"), at(99).expect("some"))
}

/// What points cost.
struct Cost {
    /// Points a second.
    rate: f64,
    /// What Redis computed for one point: says more than the rate where other work runs beside it.
    processor_us: f64,
}

async fn ours(stores: &Stores, redis: &Redis, size: usize, rounds: usize) -> (Cost, f64) {
    let before = trips(stores);
    let mut batches: Vec<PointBatch> = Vec::new();
    for round in 0..rounds {
        let value = f64::from(u32::try_from(round).expect("small")) + 0.5;
        batches.push(batch(round * size % KNOWN, size, value));
    }
    let processor = redis.processor_us();
    let start = Instant::now();
    for batch in batches {
        stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("works");
    }
    let seconds = start.elapsed().as_secs_f64();
    let points = (rounds * size) as f64;
    let processor_us = (redis.processor_us() - processor) / points;
    (Cost { rate: points / seconds, processor_us }, (trips(stores) - before) as f64 / rounds as f64)
}

fn theirs(redis: &Redis, size: usize, points: usize) -> Cost {
    let record = "x".repeat(130);
    let pipeline = (3 * size).min(MOST_IN_PIPELINE).to_string();
    let run = |points: usize, words: &[&str]| -> Cost {
        let points = points.max(3 * size);
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &redis.port.to_string(), "-c", "1", "--csv"]);
        command.args(["-r", &KNOWN.to_string(), "-n", &points.to_string(), "-P", &pipeline]);
        let processor = redis.processor_us();
        let output = command.args(words).output().expect("redis-benchmark is installed");
        let processor_us = (redis.processor_us() - processor) / points as f64;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = output.lines().last().unwrap_or_default();
        let rate = line.rsplit("\",\"").nth(6).and_then(|rate| rate.parse().ok());
        let rate = rate.unwrap_or_else(|| panic!("redis-benchmark says {output}"));
        Cost { rate, processor_us }
    };
    let hset = ["HSET", "bench:series", "id__rand_int__ab", record.as_str()];
    let zadd = ["ZADD", "bench:log", "__rand_int__", "id__rand_int__ab"];
    for words in [&hset, &zadd] {
        run(POINTS, words);
    }
    let (hset, zadd) = (run(points, &hset), run(points, &zadd));
    let processor_us = hset.processor_us + 2.0 * zadd.processor_us;
    Cost { rate: 1.0 / (1.0 / hset.rate + 2.0 / zadd.rate), processor_us }
}

async fn read(count: usize) {
    let redis = Redis::start();
    let stores = store(redis.port, PLENTY);
    let start = Instant::now();
    for from in (0..count).step_by(KNOWN) {
        push(&stores, from, KNOWN.min(count - from), 1.0).await;
    }
    told("push of new", count, start, 0, &stores);
    let empty = holdall::model::cursor::Cursor {
        seqs: vec![0; SHARDS],
        ..stores.series.cursor().await.expect("works")
    };
    for what in ["first snapshot", "second snapshot"] {
        let (start, before) = (Instant::now(), trips(&stores));
        let snapshot = stores.series.snapshot(&[], None, 1_000).await.expect("works");
        assert!(snapshot.more);
        told(what, count, start, before, &stores);
    }
    let (start, before) = (Instant::now(), trips(&stores));
    match stores.series.delta(&empty, None, usize::MAX).await.expect("works") {
        Delta::Changes { changes, more: false, .. } => assert_eq!(changes.len(), count),
        other => panic!("{other:?}"),
    }
    told("delta of all", count, start, before, &stores);
    let now = stores.series.cursor().await.expect("works");
    push(&stores, 0, 10_000, 2.0).await;
    let (start, before) = (Instant::now(), trips(&stores));
    let delta = stores.series.delta(&now, None, usize::MAX).await.expect("works");
    assert!(matches!(delta, Delta::Changes { changes, .. } if changes.len() == 10_000));
    told("delta of 10,000", count, start, before, &stores);
    let used = redis.memory_bytes() / count as u64;
    println!("{count} series: {used} bytes of Redis each");
}

fn told(what: &str, count: usize, start: Instant, before: u64, stores: &Stores) {
    let trips = trips(stores) - before;
    println!("{count} series, {what}: {:?}, {trips} round trips", start.elapsed());
}

fn trips(stores: &Stores) -> u64 {
    stores.operation.client_status().map_or(0, |client| client.round_trips)
}

async fn push(stores: &Stores, from: usize, count: usize, value: f64) {
    stores.series.upsert(batch(from, count, value), SeriesWriter::anybody()).await.expect("works");
}

fn batch(from: usize, count: usize, value: f64) -> PointBatch {
    let mut batch = PointBatch::with_capacity(count * 80);
    for i in from..from + count {
        let (name, member) = (i / PER_NAME, i % PER_NAME);
        let name = format!("http_requests_{name:03}_total");
        let labels = format!("code=\"200\",instance=\"host-{member:05}\",job=\"api\",path=\"/v1\"");
        batch.push(&name, &labels, value, None, None);
    }
    batch
}

fn store(port: u16, max_series: usize) -> Stores {
    let url = format!("redis://127.0.0.1:{port}");
    let settings = RedisSettings {
        index_shards: SHARDS,
        timeout: Duration::from_secs(60),
        ..RedisSettings::for_tests(&[url], "bench")
    };
    let store = StoreSettings {
        series: SeriesSettings {
            retention: Duration::from_secs(86_400),
            max_future_skew: Duration::from_secs(600),
            max_series,
            max_bytes: 1 << 40,
            max_tombstones: 1_000_000,
        },
        ..StoreSettings::for_tests()
    };
    open(&settings, &store).expect("opens")
}

/// A server that ends with this.
struct Redis {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        let child = command.arg(folder.path()).stdout(Stdio::null()).spawn();
        let redis =
            Self { child: child.expect("redis-server is installed"), port, _folder: folder };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    fn memory_bytes(&self) -> u64 {
        self.info("memory", "used_memory:").parse().expect("a number")
    }

    fn processor_us(&self) -> f64 {
        let seconds = |field| self.info("cpu", field).parse::<f64>().expect("a number");
        1e6 * (seconds("used_cpu_user:") + seconds("used_cpu_sys:"))
    }

    fn info(&self, section: &str, field: &str) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "info", section])
            .output()
            .expect("redis-cli is installed");
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = output.lines().find_map(|line| line.strip_prefix(field));
        found.expect("redis tells it").trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }
}
