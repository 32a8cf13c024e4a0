//! Power cuts at any moment: what was acknowledged is there when the server starts again.
//!
//! The server runs under `shim.c`, which records its system calls. `disk` works out what a disk may hold at one moment of
//! that record, and a second server starts on it. So one run of the server is enough for many power cuts. Needs Linux
//! and a C compiler.

mod disk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use self::disk::{Disk, Record};
use crate::harness::rng::Rng;
use crate::harness::{Client, DEADLINE, Launch, Server};

/// Clients that write at the same time.
const WRITERS: u64 = 6;
/// Acknowledgements of one run.
const ACKNOWLEDGEMENTS: u64 = 900;
/// Power cuts that are tried for one run.
const CUTS: usize = 24;

/// A write that was acknowledged, and how long the trace was then, in bytes.
#[derive(Debug, Clone)]
struct Acknowledged {
    what: What,
    trace_bytes: u64,
}

#[derive(Debug, Clone)]
enum What {
    /// A key's generation.
    Bump(String, i64),
    /// A lock.
    Lock(String),
    /// A series that was flushed, and its value.
    Series(String, f64),
}

/// A server under the shim.
struct Traced {
    launch: Launch,
    trace: PathBuf,
    acknowledged: Mutex<Vec<Acknowledged>>,
    count: AtomicU64,
}

impl Traced {
    fn new(sync: &str) -> Arc<Self> {
        let launch = Launch::new();
        let folder = std::fs::canonicalize(launch.folder()).expect("a folder");
        let trace = folder.join("trace");
        let store = folder.join("store");
        std::fs::create_dir(&store).expect("the folder of the store");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let launch = launch
            .env("HOLDALL_STORE__PATH", &text(&store))
            .env("HOLDALL_STORE__SYNC", sync)
            .env("HOLDALL_FLUSH__INTERVAL", "20ms")
            .env("LD_PRELOAD", &text(&shim()))
            .env("POWER_CUT_DIR", &text(&store))
            .env("POWER_CUT_TRACE", &text(&trace));
        let acknowledged = Mutex::default();
        Arc::new(Self { launch, trace, acknowledged, count: AtomicU64::new(0) })
    }

    fn note(&self, what: What) {
        let trace_bytes = std::fs::metadata(&self.trace).expect("the trace").len();
        self.acknowledged.lock().push(Acknowledged { what, trace_bytes });
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes until there are so many acknowledgements more. A write that fails is tried again.
    async fn write_until(self: &Arc<Self>, server: &Server, more: u64) {
        let enough = self.count.load(Ordering::Relaxed) + more;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (this, client) = (Arc::clone(self), server.client());
            writers.spawn(async move {
                while this.count.load(Ordering::Relaxed) < enough {
                    this.write(&client, writer).await;
                }
            });
        }
        let all = async { while writers.join_next().await.is_some_and(|done| done.is_ok()) {} };
        tokio::time::timeout(DEADLINE, all).await.expect("the writes go on");
        assert!(self.count.load(Ordering::Relaxed) >= enough, "a writer found a fault");
    }

    async fn write(&self, client: &Client, writer: u64) {
        let number = self.count.load(Ordering::Relaxed);
        let key = format!("key-{writer}");
        if let Some(bumped) = post(client, &format!("/v1/generations/{key}/bump"), &json!({})).await
        {
            self.note(What::Bump(key.clone(), bumped["generation"].as_i64().expect("a number")));
        }
        let lock = format!("lock-{writer}-{number}");
        if post(client, &format!("/v1/locks/job/{lock}"), &json!({"ttl": "1h"})).await.is_some() {
            self.note(What::Lock(lock));
        }
        if writer == 0 {
            let value = f64::from(u32::try_from(number).expect("small"));
            let pushed = client.try_push("power_cut_progress", value).await;
            if pushed.is_some_and(|response| response.status == 200)
                && post(client, "/v1/admin/flush", &json!({})).await.is_some()
            {
                self.note(What::Series("power_cut_progress".to_owned(), value));
            }
        }
    }

    fn records(&self) -> Vec<Record> {
        disk::read(&std::fs::read(&self.trace).expect("the trace"))
    }

    /// Cuts the power behind each of the records at `cuts`, and says what is missing then.
    async fn lost_after(&self, records: &[Record], cuts: &[usize], rng: &mut Rng) -> Vec<String> {
        let mut disk = Disk::default();
        let mut lost = Vec::new();
        for (index, record) in records.iter().enumerate() {
            disk.follow(record);
            if cuts.contains(&index) {
                let launch = Launch::new();
                disk.clone().cut_power(rng, &launch.store());
                let server = launch.start().await;
                let at = format!("cut behind record {index} of {}", records.len());
                let missing = self.missing(&server, record.end as u64).await;
                lost.extend(missing.into_iter().map(|what| format!("{at}: {what}")));
            }
        }
        lost
    }

    async fn missing(&self, server: &Server, trace_bytes: u64) -> Vec<String> {
        let acknowledged = self.acknowledged.lock().clone();
        let due = acknowledged.into_iter().filter(|ack| ack.trace_bytes <= trace_bytes);
        let (mut bumps, mut series) = (BTreeMap::new(), BTreeMap::new());
        let mut lost = Vec::new();
        for ack in due {
            match ack.what {
                What::Bump(key, number) => {
                    let newest: &mut i64 = bumps.entry(key).or_default();
                    *newest = number.max(*newest);
                }
                What::Series(name, value) => {
                    let newest: &mut f64 = series.entry(name).or_default();
                    *newest = value.max(*newest);
                }
                What::Lock(key) => {
                    let lock = server.get(&format!("/v1/locks/job/{key}")).await.expect(200);
                    if lock["held"] != true {
                        lost.push(format!("the lock {key}"));
                    }
                }
            }
        }
        for (key, number) in bumps {
            let found = server.get(&format!("/v1/generations/{key}")).await.expect(200);
            if found["generation"].as_i64().is_none_or(|found| found < number) {
                lost.push(format!("bump {number} of {key}: {found}"));
            }
        }
        for (name, value) in series {
            let found = server.get(&format!("/v1/series?match[]={name}")).await.expect(200);
            if found["points"][0]["value"].as_f64().is_none_or(|found| found < value) {
                lost.push(format!("{name} = {value}: {found}"));
            }
        }
        lost
    }
}

/// Sends JSON; `None` unless the request succeeded.
async fn post(client: &Client, path: &str, body: &serde_json::Value) -> Option<serde_json::Value> {
    let response = client.try_post(path, body).await?;
    (response.status == 200).then(|| response.json())
}

/// Compiles the shim, once.
fn shim() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut/shim.c");
        let shim = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("power_cut_{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-o"]).arg(&shim);
        let status = compiler.arg(source).arg("-ldl").status().expect("a C compiler");
        assert!(status.success(), "the shim compiles");
        shim
    };
    BUILT.get_or_init(build).clone()
}

/// Chooses moments all over the run, its begin and its end included.
fn moments(records: &[Record], rng: &mut Rng) -> Vec<usize> {
    let any = |rng: &mut Rng| usize::try_from(rng.below(records.len() as u64)).expect("an index");
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| any(rng)).collect();
    cuts.push(records.len() - 1);
    cuts
}

async fn lost_with(sync: &str) -> Vec<String> {
    let mut rng = Rng::from_environment();
    let traced = Traced::new(sync);
    let server = traced.launch.start().await;
    traced.write_until(&server, ACKNOWLEDGEMENTS).await;
    // The orderly end is a part of the record as well.
    let (exit, _) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let records = traced.records();
    let cuts = moments(&records, &mut rng);
    traced.lost_after(&records, &cuts, &mut rng).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_takes_what_was_acknowledged() {
    let lost = lost_with("full").await;
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_these_power_cuts_take_something() {
    assert!(!lost_with("normal").await.is_empty(), "the test can't see a lost write");
}
