//! Strong writes into the embedded store, without HTTP: 32 callers, each waiting for its answer.
//!
//! `cargo bench --bench state` prints operations a second. Arguments: seconds for each
//! measurement (2), callers (32).

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdall::model::checkpoints::CheckpointKey;
use holdall::model::leases::{Holder, LeaseName};
use holdall::model::locks::{LockKey, LockKind};
use holdall::model::time::Timestamp;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open};
use holdall::store::{AcquireOutcome, Stores};

const TTL: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy)]
enum Work {
    Locks,
    Renewals,
    Checkpoints,
}

async fn call(store: &Stores, work: Work, caller: usize, stop: &AtomicBool) -> u64 {
    let name = LeaseName::parse(format!("lease {caller}")).expect("valid");
    let holder = Holder::parse("bench").expect("valid");
    let lease = store.leases.acquire(&name, &holder, TTL).await.expect("works");
    let AcquireOutcome::Acquired(lease) = lease else { panic!("it is free") };
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        match work {
            Work::Locks => {
                let key = LockKey::parse(LockKind::Job, format!("job {caller} {done}"));
                let keys = vec![key.expect("valid")];
                let outcome = store.locks.acquire(keys, TTL).await.expect("works");
                assert!(outcome[0].acquired);
            }
            Work::Renewals => {
                let renewed = store.leases.renew(&name, lease.token, None).await.expect("works");
                assert!(renewed.is_some());
            }
            Work::Checkpoints => {
                let key = CheckpointKey::parse("org", &format!("repo {}", done % 1000));
                let at = Timestamp::from_nanos(0);
                let key = key.expect("valid");
                store.checkpoints.set(key, at, false, None).await.expect("works");
            }
        }
        done += 1;
    }
    done
}

async fn measure(name: &str, sync: SyncMode, work: Work, seconds: u64, callers: usize) {
    let folder = tempfile::tempdir_in("target").expect("a folder");
    let settings = EmbeddedSettings {
        path: Some(folder.path().to_owned()),
        sync,
        ..EmbeddedSettings::in_memory()
    };
    let (store, _) = open(&settings).expect("opens");
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move { call(&store, work, caller, &stop).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for task in tasks {
        done += task.await.expect("does not panic");
    }
    let rate = done as f64 / start.elapsed().as_secs_f64();
    let status = store.operation.status().await.expect("reports");
    let group = status.committed_writes as f64 / status.commits as f64;
    let start = Instant::now();
    store.operation.close().await.expect("closes");
    let close_ms = start.elapsed().as_millis();
    let start = Instant::now();
    drop(store);
    drop(open(&settings).expect("opens again"));
    let load_ms = start.elapsed().as_millis();
    println!(
        "{name:24} {rate:9.0} ops/s, {group:5.1} in a commit, close {close_ms} ms, load {load_ms} ms"
    );
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(2);
    let callers = usize::try_from(numbers.next().unwrap_or(32)).expect("small");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for (mode, sync) in [("normal", SyncMode::Normal), ("full", SyncMode::Full)] {
            for (work, what) in [
                (Work::Locks, "new locks"),
                (Work::Renewals, "renewals"),
                (Work::Checkpoints, "checkpoints"),
            ] {
                measure(&format!("{what}, {mode}"), sync, work, seconds, callers).await;
            }
        }
    });
}
