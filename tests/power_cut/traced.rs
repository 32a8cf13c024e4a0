//! A server under the shim that records its system calls, and what it acknowledged when.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use super::disk::{self, Record};
use crate::harness::{Client, DEADLINE, Launch, Server};

/// Clients that write at the same time.
const WRITERS: u64 = 6;

/// A write that was acknowledged, and how long the trace was then, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged {
    pub(super) what: What,
    pub(super) trace_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A key's generation.
    Bump(String, i64),
    /// A lock.
    Lock(String),
    /// A series that was flushed, and its value.
    Series(String, f64),
}

/// A server under the shim.
pub(super) struct Traced {
    pub(super) launch: Launch,
    store: PathBuf,
    trace: PathBuf,
    fail: PathBuf,
    acknowledged: Mutex<Vec<Acknowledged>>,
    count: AtomicU64,
    batches: AtomicU64,
}

impl Traced {
    pub(super) fn new(sync: &str) -> Arc<Self> {
        let launch = Launch::new();
        let folder = std::fs::canonicalize(launch.folder()).expect("a folder");
        let [trace, fail, store] = ["trace", "fail", "store"].map(|name| folder.join(name));
        std::fs::create_dir(&store).expect("the folder of the store");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let launch = launch
            .env("HOLDALL_STORE__PATH", &text(&store))
            .env("HOLDALL_STORE__SYNC", sync)
            .env("HOLDALL_FLUSH__INTERVAL", "20ms")
            .env("LD_PRELOAD", &text(&shim()))
            .env("POWER_CUT_DIR", &text(&store))
            .env("POWER_CUT_TRACE", &text(&trace))
            .env("POWER_CUT_FAIL", &text(&fail));
        let acknowledged = Mutex::default();
        let (count, batches) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { launch, store, trace, fail, acknowledged, count, batches })
    }

    pub(super) fn acknowledged(&self) -> Vec<Acknowledged> {
        self.acknowledged.lock().clone()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        disk::read(&std::fs::read(&self.trace).expect("the trace"))
    }

    pub(super) fn trace_bytes(&self) -> u64 {
        std::fs::metadata(&self.trace).expect("the trace").len()
    }

    /// Lets the next sync of a file fail whose name ends so, see `shim.c`.
    pub(super) fn fail_a_sync_of(&self, file: &str) {
        let draft = self.fail.with_extension("new");
        std::fs::write(&draft, file).expect("written");
        std::fs::rename(draft, &self.fail).expect("renamed");
    }

    /// Lets all syncs of files fail, until they are let [`Self::succeed`].
    pub(super) fn fail_all_syncs(&self) {
        self.fail_a_sync_of("*");
    }

    /// Lets syncs succeed.
    pub(super) fn succeed(&self) {
        std::fs::remove_file(&self.fail).expect("they failed");
    }

    /// Returns whether that sync has failed.
    pub(super) fn has_failed(&self) -> bool {
        !self.fail.exists()
    }

    /// Reads a number from the durable database while the server runs.
    pub(super) fn query(&self, sql: &str) -> i64 {
        let number = self.database().query_row(sql, [], |row| row.get(0));
        number.expect("the database is readable beside the server")
    }

    /// Returns how many frames the log of the durable database has, and how many of them are copied into it.
    pub(super) fn frames(&self) -> (i64, i64) {
        let frames = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        let frames = self.database().query_row("PRAGMA wal_checkpoint(NOOP)", [], frames);
        frames.expect("the log is readable beside the server")
    }

    /// Opens the durable database as another program does.
    pub(super) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.store.join("durable.db")).expect("the database opens")
    }

    fn note(&self, what: What) {
        let trace_bytes = self.trace_bytes();
        self.acknowledged.lock().push(Acknowledged { what, trace_bytes });
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes until there are so many acknowledgements more. A write that fails is tried again.
    pub(super) async fn write_until(self: &Arc<Self>, server: &Server, more: u64) {
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

    /// Writes as much to the journal as makes a compaction due.
    pub(super) async fn write_much(&self, server: &Server) {
        for _ in 0..14 {
            let batch = self.batches.fetch_add(1, Ordering::Relaxed);
            let keys: Vec<_> =
                (0..100).map(|n| format!("{batch}-{n}-{}", "x".repeat(900))).collect();
            let body = json!({"keys": keys, "ttl": "1h"});
            post(&server.client(), "/v1/locks/job", &body).await.expect("acquires");
            for key in [&keys[0], &keys[99]] {
                self.note(What::Lock(key.clone()));
            }
        }
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
