//! Durable writes into the embedded store, and snapshots of generations, without HTTP: 32 callers,
//! each waiting for its response.
//!
//! `cargo bench --bench state` prints operations a second. Arguments: seconds for each
//! measurement (2), callers (32).

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::GenerationKey;
use holdall::model::leases::{Claimant, Holder, LeaseName};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;
use holdall::store::StoreSettings;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open};
use holdall::store::{AcquireOutcome, Stores};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TTL: Duration = Duration::from_secs(3600);
const KEYS: usize = 1000;

#[derive(Clone, Copy)]
enum Work {
    Locks,
    Renewals,
    Checkpoints,
    Bumps,
    HotBumps,
    Snapshots,
}

const ALL: [(Work, &str); 6] = [
    (Work::Locks, "new locks"),
    (Work::Renewals, "renewals"),
    (Work::Checkpoints, "checkpoints"),
    (Work::Bumps, "bumps"),
    (Work::HotBumps, "bumps of one key"),
    (Work::Snapshots, "snapshots of 100"),
];

/// The keys that every caller bumps and reads.
fn generation_keys() -> Vec<GenerationKey> {
    (0..KEYS).map(|n| GenerationKey::parse(format!("repo {n}")).expect("valid")).collect()
}

async fn call(stores: &Stores, work: Work, caller: usize, stop: &AtomicBool) -> Vec<u32> {
    let name = LeaseName::parse(format!("lease {caller}")).expect("valid");
    let holder = Holder::parse("bench").expect("valid");
    let lease =
        stores.leases.acquire(&name, &Claimant::anonymous(holder), TTL).await.expect("works");
    let AcquireOutcome::Acquired(lease) = lease else { panic!("it is free") };
    let generations = generation_keys();
    if matches!(work, Work::Snapshots) {
        stores.generations.bump(generations.clone()).await.expect("works");
    }
    let mut done = 0_usize;
    let mut micros = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        match work {
            Work::Locks => {
                let key = LockKey::parse(LockKind::Job, format!("job {caller} {done}"));
                let keys = vec![key.expect("valid")];
                let outcome =
                    stores.locks.acquire(keys, TTL, ReleaseToken([0; 16])).await.expect("works");
                assert!(outcome[0].acquired);
            }
            Work::Renewals => {
                let renewed = stores.leases.renew(&name, lease.token, None).await.expect("works");
                assert!(renewed.is_some());
            }
            Work::Checkpoints => {
                let key = CheckpointKey::parse("org", &format!("repo {}", done % KEYS));
                let at = Timestamp::from_nanos(0);
                let outcome = stores.checkpoints.set(key.expect("valid"), at, false, None).await;
                outcome.expect("works");
            }
            Work::Bumps => {
                let key = generations[(caller + done) % KEYS].clone();
                let bumped = stores.generations.bump(vec![key]).await.expect("works");
                assert!(bumped[0].number > 0);
            }
            Work::HotBumps => {
                let key = generations[0].clone();
                let bumped = stores.generations.bump(vec![key]).await.expect("works");
                assert!(bumped[0].number > 0);
            }
            Work::Snapshots => {
                let from = (caller + done) % (KEYS - 100);
                let keys = &generations[from..from + 100];
                let seen = stores.generations.snapshot(keys).await.expect("works");
                assert!(seen.iter().all(|generation| generation.number > 0));
                // A read never waits: without this the others would not get their turns.
                tokio::task::yield_now().await;
            }
        }
        done += 1;
        micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    micros
}

async fn measure(name: &str, sync: SyncMode, work: Work, seconds: u64, callers: usize) {
    let folder = tempfile::tempdir_in("target").expect("a folder");
    let settings = EmbeddedSettings { path: Some(folder.path().to_owned()), sync };
    let (stores, _) = open(&settings, &StoreSettings::for_tests()).expect("opens");
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (stores, stop) = (stores.clone(), Arc::clone(&stop));
            tokio::spawn(async move { call(&stores, work, caller, &stop).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut micros = Vec::new();
    for task in tasks {
        micros.append(&mut task.await.expect("does not panic"));
    }
    let rate = micros.len() as f64 / start.elapsed().as_secs_f64();
    micros.sort_unstable();
    let (p99, most) = (micros[micros.len() / 100 * 99], micros[micros.len() - 1]);
    let status = stores.operation.status().await.expect("reports");
    let group = status.committed_writes as f64 / status.commits as f64;
    let start = Instant::now();
    stores.operation.close().await.expect("closes");
    let close_ms = start.elapsed().as_millis();
    let start = Instant::now();
    drop(open(&settings, &StoreSettings::for_tests()).expect("opens again"));
    let open_ms = start.elapsed().as_millis();
    println!(
        "{name:24} {rate:9.0} ops/s, {group:5.1} in a commit, p99 {p99} us, most {most} us, close {close_ms} ms, open {open_ms} ms"
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
            for (work, what) in ALL {
                measure(&format!("{what}, {mode}"), sync, work, seconds, callers).await;
            }
        }
    });
}
