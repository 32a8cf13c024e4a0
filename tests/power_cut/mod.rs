//! Power cuts at any moment: what was acknowledged is there when the server starts again.
//!
//! The server runs under `shim.c`, which records its system calls. `disk` works out what a disk may hold at one moment of
//! that record, and the store is opened on it. So one run of the server is enough for many power cuts. Needs Linux and a
//! C compiler.

mod disk;
mod traced;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use holdall::model::generations::GenerationKey;
use holdall::model::locks::{LockKey, LockKind};
use holdall::model::selector::Selector;
use holdall::store::embedded::{EmbeddedSettings, open};
use holdall::store::{StoreSettings, Stores};
use serde_json::json;
use tempfile::TempDir;

use self::disk::{Disk, Record};
use self::traced::{Traced, What};
use crate::harness::rng::Rng;
use crate::harness::{DEADLINE, Server, eventually};

/// Acknowledgements of one run.
const ACKNOWLEDGEMENTS: u64 = 900;
/// Power cuts that are tried all over one run.
const CUTS: usize = 24;
/// Power cuts around one moment.
const CUTS_AROUND: usize = 24;

/// Cuts the power behind each of the records at `cuts`: returns each folder that the next start finds.
fn cut<'a>(
    records: &'a [Record],
    cuts: &'a BTreeSet<usize>,
) -> impl Iterator<Item = (usize, TempDir)> + 'a {
    let (mut rng, mut disk) = (Rng::from_environment(), Disk::default());
    records.iter().enumerate().filter_map(move |(index, record)| {
        disk.follow(record);
        cuts.contains(&index).then(|| {
            let folder = tempfile::tempdir().expect("a folder");
            disk.clone().cut_power(&mut rng, folder.path());
            start_machine(folder.path());
            (index, folder)
        })
    })
}

/// Cuts the power behind each of the records at `cuts`, and says what is missing then.
async fn lost_after(traced: &Traced, records: &[Record], cuts: &BTreeSet<usize>) -> Vec<String> {
    let mut lost = Vec::new();
    for (index, folder) in cut(records, cuts) {
        let at = format!("cut behind record {index} of {}", records.len());
        match start(folder.path()) {
            Ok(stores) => {
                let missing = missing(traced, &stores, records[index].end as u64).await;
                lost.extend(missing.into_iter().map(|what| format!("{at}: {what}")));
            }
            Err(error) => lost.push(format!("{at}: {error}")),
        }
    }
    lost
}

/// After a power cut, the machine has another boot id than the one that the server noted.
fn start_machine(folder: &Path) {
    let lock = folder.join("lock");
    let noted = std::fs::read_to_string(&lock).unwrap_or_default();
    let words: Vec<&str> = noted.trim_matches('\0').split_whitespace().collect();
    if let [sync, _, files, _] = words[..] {
        let text = format!("{sync} an-earlier-boot {files}");
        let crc = crc32fast::hash(text.as_bytes());
        std::fs::write(lock, format!("{text} {crc:08x}\n")).expect("written");
    } else {
        assert!(words.is_empty(), "the lock file has another form: {noted}");
    }
}

fn start(folder: &Path) -> Result<Stores, String> {
    let settings =
        EmbeddedSettings { path: Some(folder.to_owned()), ..EmbeddedSettings::in_memory() };
    let opened = open(&settings, &StoreSettings::for_tests());
    opened.map(|opened| opened.0).map_err(|error| error.to_string())
}

/// Says what of the writes is missing that were acknowledged when the trace was so long.
async fn missing(traced: &Traced, stores: &Stores, trace_bytes: u64) -> Vec<String> {
    let acknowledged = traced.acknowledged();
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
                let parsed = LockKey::parse(LockKind::Job, key.clone()).expect("valid");
                if stores.locks.get(&parsed).await.expect("works").is_none() {
                    lost.push(format!("the lock {key}"));
                }
            }
        }
    }
    for (key, number) in bumps {
        let parsed = GenerationKey::parse(key.clone()).expect("valid");
        let found = stores.generations.snapshot(&[parsed]).await.expect("works");
        if found[0].number < number {
            lost.push(format!("bump {number} of {key}: {found:?}"));
        }
    }
    for (name, value) in series {
        let selector = [Selector::parse(&name).expect("valid")];
        let found = stores.series.snapshot(&selector, None, 10).await.expect("works").points;
        if found.first().is_none_or(|point| point.sample.value < value) {
            lost.push(format!("{name} = {value}: {found:?}"));
        }
    }
    lost
}

/// Chooses moments all over the run, its end included.
fn moments(records: &[Record]) -> BTreeSet<usize> {
    let mut rng = Rng::from_environment();
    let any = |_| usize::try_from(rng.below(records.len() as u64)).expect("an index");
    (0..CUTS).map(any).chain([records.len() - 1]).collect()
}

/// Every moment before and shortly after the one at which the trace was so long.
fn around(records: &[Record], trace_bytes: u64) -> impl Iterator<Item = usize> {
    let at = records.partition_point(|record| (record.end as u64) < trace_bytes);
    at.saturating_sub(CUTS_AROUND)..(at + CUTS_AROUND / 6).min(records.len())
}

/// Records a run with compactions, of a busy server and of an idle one, and an orderly end.
async fn run(sync: &str) -> (Arc<Traced>, Vec<Record>, BTreeSet<usize>) {
    let traced = Traced::new(sync);
    let server = traced.launch.start().await;
    traced.write_until(&server, ACKNOWLEDGEMENTS).await;
    let compacted = || traced.query("SELECT seq FROM compacted");
    let before = compacted();
    traced.write_much(&server).await;
    let busy = async {
        while compacted() == before {
            traced.write_until(&server, 6).await;
        }
    };
    tokio::time::timeout(DEADLINE, busy).await.expect("a busy server compacts");
    let compacted_busy = traced.trace_bytes();
    eventually("an idle server compacts", async || {
        (traced.query("SELECT count(*) FROM journal") == 0).then_some(())
    })
    .await;
    let compacted_idle = traced.trace_bytes();
    let (exit, _) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let records = traced.records();
    let mut cuts = moments(&records);
    cuts.extend(around(&records, compacted_busy));
    cuts.extend(around(&records, compacted_idle));
    (traced, records, cuts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_takes_what_was_acknowledged() {
    let (traced, records, cuts) = run("full").await;
    let lost = lost_after(&traced, &records, &cuts).await;
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
    let syncs: Vec<_> = records.iter().filter_map(Record::synced).collect();
    // That is why a sync that fails can take no earlier commit with it.
    let most = syncs.iter().map(|synced| synced.commits).max();
    assert_eq!(most, Some(1), "a commit began before the one before it was synced");
    let mut commits = syncs.iter().filter(|synced| synced.commits > 0);
    assert!(commits.all(|synced| synced.data_only), "fsync writes the time of the file too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_during_starts_and_stops_keeps_the_next_start_from_serving() {
    let traced = Traced::new("full");
    // The first start makes the files; each stop deletes the logs.
    let mut launch = traced.launch.clone();
    for _ in 0..2 {
        let server = launch.start().await;
        traced.write_until(&server, 2).await;
        let (exit, again) = server.terminate().await;
        assert_eq!(exit.code, Some(0), "{}", exit.log);
        launch = again;
    }
    let records = traced.records();
    for _ in 0..4 {
        let lost = lost_after(&traced, &records, &(0..records.len()).collect()).await;
        assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_these_power_cuts_take_something() {
    let (traced, records, cuts) = run("normal").await;
    let lost = lost_after(&traced, &records, &cuts).await;
    assert!(!lost.is_empty(), "the test can't see a lost write");
}

/// Writes until a sync of a log has failed.
async fn fail_a_commit(traced: &Arc<Traced>, server: &Server) {
    traced.fail_a_sync_of("-wal");
    let failed = async {
        while !traced.has_failed() {
            traced.write_until(server, 20).await;
        }
    };
    tokio::time::timeout(DEADLINE, failed).await.expect("a sync of a commit comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sync_that_failed_no_power_cut_takes_what_was_acknowledged() {
    let traced = Traced::new("full");
    let mut server = traced.launch.start().await;
    traced.write_much(&server).await;
    for _ in 0..3 {
        fail_a_commit(&traced, &server).await;
    }
    // While the disk fails, nothing is acknowledged. The next server finds commits that are in the kernel's
    // memory, and not on disk.
    traced.fail_all_syncs();
    server.post("/v1/locks/job/unlucky", &json!({"ttl": "1h"})).await.expect_problem(503);
    server.get("/readyz").await.expect_problem(503);
    server.post("/v1/locks/job/unlucky", &json!({"ttl": "1h"})).await.expect_problem(503);
    let launch = server.kill();
    traced.succeed();
    server = launch.start().await;
    traced.write_until(&server, 40).await;
    traced.fail_a_sync_of("durable.db");
    let (_, launch) = server.terminate().await;
    assert!(traced.has_failed(), "an orderly end syncs the database");
    let server = launch.start().await;
    traced.write_until(&server, 60).await;
    server.kill();

    let records = traced.records();
    let failed: Vec<_> = records.iter().filter(|record| record.is_failed_sync()).collect();
    assert!(failed.len() >= 6, "{}", failed.len());
    let mut cuts = moments(&records);
    for failure in failed {
        let at = records.partition_point(|record| record.end < failure.end);
        cuts.extend((0..20).map(|step| (at + step * 2).min(records.len() - 1)));
    }
    let lost = lost_after(&traced, &records, &cuts).await;
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
}

/// Returns the index of the first sync that failed.
fn first_failed_sync(records: &[Record]) -> usize {
    records.iter().position(Record::is_failed_sync).expect("a sync has failed")
}

/// Chooses moments from record `from` on, evenly, the last one included.
fn from_then_on(records: &[Record], from: usize) -> BTreeSet<usize> {
    let step = 1 + (records.len() - from) / 100;
    (from..records.len()).step_by(step).chain([records.len() - 1]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_after_a_part_of_the_log_was_copied_takes_nothing() {
    let traced = Traced::new("full");
    let server = traced.launch.start().await;
    traced.write_much(&server).await;
    // While another program reads, the log is copied only as far as that program sees it.
    let reader = traced.database();
    reader.execute_batch("BEGIN; SELECT count(*) FROM journal").expect("reads");
    for _ in 0..2 {
        traced.write_much(&server).await;
    }
    eventually("a part of the log is copied", async || {
        let (in_log, copied) = traced.frames();
        (0 < copied && copied < in_log).then_some(())
    })
    .await;
    drop(reader);
    traced.fail_a_sync_of("durable.db");
    for _ in 0..2 {
        traced.write_much(&server).await;
    }
    eventually("a sync of the database fails", async || traced.has_failed().then_some(())).await;
    eventually("the log is kept for the next start", async || {
        server.get("/readyz").await.expect_problem(503);
        server.log().contains("restart the server to write its log").then_some(())
    })
    .await;
    traced.write_until(&server, 60).await;
    server.kill();
    let records = traced.records();
    let cuts = from_then_on(&records, first_failed_sync(&records));
    let lost = lost_after(&traced, &records, &cuts).await;
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
}
