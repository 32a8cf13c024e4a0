//! A cluster of which a part is away or moves: what lies elsewhere is served as before, and what moves is served where it
//! is, or waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdall::model::batch::PointBatch;
use holdall::model::leases::{Claimant, Fence, Holder};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{AcquireOutcome, Fenced, SeriesWriter, StoreResult, Stores};

use super::replica::{SHARDS, name};
use super::store_settings;
use crate::harness::eventually;
use crate::harness::redis::{Cluster, cli};
use crate::harness::slot::Slot;

const NAMESPACE: &str = "slots";

fn replica(cluster: &Cluster, timeout: Duration) -> Stores {
    let settings = RedisSettings { timeout, ..RedisSettings::for_tests(cluster.urls(), NAMESPACE) };
    open(&settings, &store_settings()).expect("the settings make sense")
}

fn lock(n: usize) -> LockKey {
    LockKey::parse(LockKind::Job, n.to_string()).expect("valid")
}

async fn acquire(stores: &Stores, n: usize) -> StoreResult<()> {
    stores
        .locks
        .acquire(vec![lock(n)], Duration::from_secs(600), ReleaseToken([0; 16]))
        .await
        .map(drop)
}

fn slot_of(cluster: &Cluster, shard: usize) -> Slot {
    Slot::of(cluster, format!("{{{NAMESPACE}:{shard}}}:locks"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_moved_is_served_at_the_other_node_and_what_moves_waits() {
    let cluster = Cluster::start();
    let stores = replica(&cluster, Duration::from_secs(20));
    for n in 0..40 {
        acquire(&stores, n).await.expect("the store works");
    }
    let slot = slot_of(&cluster, 1);
    let held: Vec<String> = cli(slot.from, &["zrange", &slot.key, "0", "-1"])
        .lines()
        .filter_map(|member| member.strip_prefix("job:").map(str::to_owned))
        .collect();
    let moved = LockKey::parse(LockKind::Job, held[0].clone()).expect("valid");
    slot.open();
    slot.migrate(&slot.keys());
    // The slot is still open: the node that has it sends to the other one.
    let end = stores.locks.get(&moved).await.expect("it is asked for at the other node");
    assert!(end.is_some(), "it is held there");
    // A script that needs keys of which some do not exist can run on neither node. It waits.
    let waiting = {
        let stores = stores.clone();
        tokio::spawn(async move { stores.operation.status().await })
    };
    eventually("the shard waits", async || {
        let stats = cli(slot.to, &["info", "errorstats"]);
        stats.contains("errorstat_TRYAGAIN").then_some(())
    })
    .await;
    slot.assign(&cluster);
    waiting.await.expect("does not panic").expect("it has waited until the slot had moved");
    let end = stores.locks.get(&moved).await.expect("the store works");
    assert!(end.is_some(), "it is held there");
}

/// Acquires and renews leases, pushes, and takes snapshots until `over`; returns how many rounds it made, and the longest
/// one.
async fn rounds(stores: Stores, over: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Acquire) {
        rounds += 1;
        let started = Instant::now();
        let lease = name(&format!("lease {rounds}"));
        let me = Claimant::anonymous(Holder::parse("me").expect("valid"));
        let ttl = Duration::from_secs(600);
        let acquired = stores.leases.acquire(&lease, &me, ttl).await.expect("it waits");
        let AcquireOutcome::Acquired(held) = acquired else { panic!("{acquired:?}") };
        let renewed = stores.leases.renew(&lease, held.token, None).await.expect("it waits");
        assert!(renewed.is_some());
        let mut batch = PointBatch::default();
        (0..20).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
        let fence = Fence { lease, token: held.token };
        let pushed =
            stores.series.upsert(batch, SeriesWriter::fenced(fence)).await.expect("it waits");
        assert!(matches!(pushed, Fenced::Done(_)), "{pushed:?}");
        let found = stores.series.snapshot(&[], None, 100).await.expect("it waits");
        assert_eq!(found.points.len(), 20);
        longest = longest.max(started.elapsed());
    }
    (rounds, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_pushes_and_snapshots_work_while_keys_of_a_slot_move_one_by_one() {
    let cluster = Cluster::start();
    let stores = replica(&cluster, Duration::from_secs(60));
    for n in 0..40 {
        acquire(&stores, n).await.expect("the store works");
    }
    let over = Arc::new(AtomicBool::new(false));
    let rounds = tokio::spawn(rounds(stores.clone(), Arc::clone(&over)));
    for shard in (0..SHARDS).chain(0..SHARDS) {
        let slot = slot_of(&cluster, shard);
        slot.open();
        for key in slot.keys() {
            slot.migrate(&[key]);
            // Some of its keys are here, some there, while others ask for them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What was created meanwhile, at a time when the shard was whole on one node.
        let rest = slot.keys();
        assert!(rest.is_empty(), "{rest:?}");
        slot.assign(&cluster);
        let key = slot.key.as_str();
        eventually("the shard is served", async || stores.operation.ready().await.ok()).await;
        assert_eq!(cli(slot.to, &["exists", key]).trim(), "1");
    }
    over.store(true, Ordering::Release);
    let (made, longest) = rounds.await.expect("nothing failed");
    eprintln!("{made} rounds, the longest took {longest:?}");
    assert!(made > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_open_and_closed_again_loses_nothing() {
    let cluster = Cluster::start();
    let stores = replica(&cluster, Duration::from_secs(20));
    stores.operation.status().await.expect("the store works");
    for n in 0..40 {
        acquire(&stores, n).await.expect("the store works");
    }
    let slot = slot_of(&cluster, 2);
    slot.open();
    let snapshot = {
        let stores = stores.clone();
        tokio::spawn(async move { stores.series.snapshot(&[], None, 10).await })
    };
    eventually("the shard waits", async || {
        let stats =
            cli(slot.from, &["info", "errorstats"]) + &cli(slot.to, &["info", "errorstats"]);
        stats.contains("errorstat_TRYAGAIN").then_some(())
    })
    .await;
    slot.close();
    snapshot.await.expect("does not panic").expect("it has waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_costs_only_its_own_shards() {
    let cluster = Cluster::start();
    let timeout = Duration::from_secs(5);
    let stores = replica(&cluster, timeout);
    for n in 0..40 {
        acquire(&stores, n).await.expect("the store works");
    }
    let hung = slot_of(&cluster, 0).from;
    let elsewhere = (1..SHARDS).map(|shard| slot_of(&cluster, shard)).find(|s| s.from != hung);
    let elsewhere = elsewhere.expect("the shards are on several nodes");
    let of = |slot: &Slot| {
        let held = cli(slot.from, &["zrange", &slot.key, "0", "-1"]);
        let first = held.lines().find_map(|member| member.strip_prefix("job:")).map(str::to_owned);
        LockKey::parse(LockKind::Job, first.expect("some are held")).expect("valid")
    };
    let (there, here) = (of(&slot_of(&cluster, 0)), of(&elsewhere));
    cluster.pause(hung, true);
    let over = Arc::new(AtomicBool::new(false));
    let others = {
        let (stores, over) = (stores.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut served = 0;
            while !over.load(Ordering::Acquire) {
                stores.locks.get(&here).await.map_err(|error| error.with_causes())?;
                served += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<usize, String>(served)
        })
    };
    // Its replica takes over, and is found, though the old connection to the node that hangs never ends.
    eventually("the shards of the node that hangs are back", async || {
        stores.locks.get(&there).await.ok()
    })
    .await;
    over.store(true, Ordering::Release);
    let served = others.await.expect("does not panic").expect("no other shard failed");
    assert!(served > 0);
    cluster.pause(hung, false);
}
