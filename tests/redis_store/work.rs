//! How much work scripts do, in the commands that they run: a bound for each script, and a table for each operation. No
//! test can tell how long a script takes on a busy machine.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::ManualClock;
use holdall::model::batch::PointBatch;
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::Seen;
use holdall::model::leases::{Claimant, Fence, Holder};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::selector::Selector;
use holdall::model::time::Timestamp;
use holdall::store::{
    AcquireOutcome, CacheSettings, SeriesSettings, SeriesWriter, StoreSettings, Stores,
};

use super::bounded::{clock, open, push, trips};
use super::cache::{address, generation_key, put, snapshot};
use super::replica::name;
use super::store_settings;
use crate::harness::monitor::Monitor;
use crate::harness::redis::Redis;

const TTL: Duration = Duration::from_secs(60);
/// As many items as a batch may have.
const BATCH: usize = 10_000;
/// More than two steps look at, or remove.
const MANY: usize = 2_500;
/// The most commands that a script runs, and their words: a few milliseconds on an idle machine.
const MAX_COMMANDS: usize = 2_300;
const MAX_WORDS: usize = 10_100;

fn me() -> Claimant {
    Claimant::anonymous(Holder::parse("me").expect("valid"))
}

fn locks(count: usize) -> Vec<LockKey> {
    (0..count).map(|n| LockKey::parse(LockKind::Job, n.to_string()).expect("valid")).collect()
}

fn points(count: usize) -> PointBatch {
    let mut batch = PointBatch::default();
    (0..count).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
    batch
}

fn checkpoint(n: usize) -> CheckpointKey {
    CheckpointKey::parse("org", &format!("repo {n:06}")).expect("valid")
}

async fn acquire(stores: &Stores, lease: &str) -> Fence {
    let acquired = stores.leases.acquire(&name(lease), &me(), TTL).await;
    match acquired.expect("the store works") {
        AcquireOutcome::Acquired(lease_held) => {
            Fence { lease: name(lease), token: lease_held.token }
        }
        AcquireOutcome::Held(held) => panic!("{held:?}"),
    }
}

/// Does much of everything in one shard, near the end of the budget of series.
async fn much_of_everything(redis: &Redis, clock: &Arc<ManualClock>) {
    let with = |cache_bytes: usize, max_tombstones: usize| StoreSettings {
        series: SeriesSettings {
            max_series: BATCH + 500,
            max_tombstones,
            ..store_settings().series
        },
        cache: CacheSettings {
            max_bytes: cache_bytes,
            namespace_max_bytes: cache_bytes,
            max_namespaces: 8,
        },
        ..store_settings()
    };
    let stores = open(redis, 1, &with(64 << 20, BATCH), clock);
    let small = open(redis, 1, &with(64 << 10, 100), clock);
    let works = "the store works";
    for _ in 0..2 {
        stores.locks.acquire(locks(BATCH), TTL, ReleaseToken([0; 16])).await.expect(works);
    }
    let keys: Vec<_> = (0..BATCH).map(|n| generation_key(&n.to_string())).collect();
    stores.generations.bump(keys.clone()).await.expect(works);
    stores.generations.snapshot(&keys).await.expect(works);
    let fence = snapshot(&stores, "key").await.fence;
    for n in 0..MANY {
        acquire(&stores, &format!("lease {n:06}")).await;
        let at = Timestamp::from_nanos(1);
        stores.checkpoints.set(checkpoint(n), at, false, None).await.expect(works);
        put(&stores, &address("values", &format!("key {n}")), Seen::Fence(fence), "v").await;
    }
    stores.leases.list(None, MANY).await.expect(works);
    stores.checkpoints.list(None, None, MANY).await.expect(works);
    stores.locks.list(LockKind::Job, None, BATCH).await.expect(works);
    let all = [Selector::parse("m").expect("valid")];
    for _ in 0..2 {
        // The second time all are known, and counted, since there is no room for as many.
        push(&stores, points(BATCH)).await;
    }
    stores.series.snapshot(&[], None, BATCH).await.expect(works);
    let before = stores.series.cursor().await.expect(works);
    stores.series.delete_matching(&all, false, SeriesWriter::anybody()).await.expect(works);
    stores.series.delta(&before, None, BATCH).await.expect(works);
    push(&stores, points(BATCH)).await;
    // What is left by lowered limits, and what has expired.
    put(&small, &address("values", "another"), Seen::Fence(fence), "v").await;
    small.operation.status().await.expect(works);
    clock.advance(Duration::from_secs(7_200));
    stores.leases.list(None, 1).await.expect(works);
    stores.locks.list(LockKind::Job, None, 1).await.expect(works);
    acquire(&stores, "new").await;
    small.operation.collect_garbage().await.expect(works);
    small.generations.cleanup(Duration::from_secs(60)).await.expect(works);
    small.operation.status().await.expect(works);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_runs_more_than_a_bounded_number_of_commands() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let mut monitor = Monitor::of(&redis);
    much_of_everything(&redis, &clock).await;
    let ran = monitor.ran();
    assert!(ran.len() > 3 * MANY, "{} scripts", ran.len());
    let commands = ran.iter().max_by_key(|ran| ran.commands.len()).expect("some ran");
    let words = ran.iter().max_by_key(|ran| ran.words).expect("some ran");
    assert!(commands.commands.len() <= MAX_COMMANDS, "{commands:?}");
    assert!(words.words <= MAX_WORDS, "{words:?}");
}

/// Counts what one operation does, once everything that it needs is known, and compares it with the table.
async fn row<T, E: std::fmt::Debug>(
    monitor: &mut Monitor<'_>,
    stores: &Stores,
    operation: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Option<String> {
    monitor.ran();
    let (trips, outcome) = trips(stores, work).await;
    outcome.expect("the store works");
    let ran = monitor.ran();
    assert_eq!(ran.len() as u64, trips, "{operation}: each round trip is a script");
    let commands: usize = ran.iter().map(|ran| ran.commands.len()).sum();
    let row = format!("| {operation} | {trips} | {commands} |");
    let table = include_str!("../../docs/redis.md");
    (!table.lines().any(|line| line == row)).then_some(row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_makes_as_many_calls_as_the_document_says() {
    const SHARDS: usize = 16;
    let (redis, clock) = (Redis::start(&[]), clock());
    let store = StoreSettings {
        series: SeriesSettings { max_series: 1_000_000, ..store_settings().series },
        ..store_settings()
    };
    let stores = open(&redis, SHARDS, &store, &clock);
    let s = &stores;
    let token = ReleaseToken([0; 16]);
    let at = Timestamp::from_nanos(1);
    let value = address("values", "key");
    // So that every script and every epoch is known.
    let fence = acquire(s, "warm").await;
    s.leases.renew(&fence.lease, fence.token, None).await.expect("the store works");
    s.leases.release(&fence.lease, fence.token).await.expect("the store works");
    let fence = acquire(s, "warm").await;
    s.locks.acquire(locks(1_000), TTL, token).await.expect("the store works");
    s.checkpoints.set(checkpoint(0), at, false, Some(fence.clone())).await.expect("it works");
    s.checkpoints.get(&checkpoint(0)).await.expect("the store works");
    s.generations.bump(vec![generation_key("key")]).await.expect("the store works");
    let seen = Seen::Fence(snapshot(s, "key").await.fence);
    put(s, &value, seen, "v").await;
    s.cache.get(std::slice::from_ref(&value)).await.expect("the store works");
    s.operation.status().await.expect("the store works");
    s.operation.collect_garbage().await.expect("the store works");
    s.series.snapshot(&[], None, 10).await.expect("the store works");
    push(s, points(1_000)).await;
    let m = &mut Monitor::of(&redis);
    let other = || locks(1_001).split_off(1_000);
    let put_value = super::cache::a_put(&value, seen, "v");
    let (warm, warm_token) = (fence.lease.clone(), fence.token);
    let rows = [
        row(m, s, "a lock", s.locks.acquire(other(), TTL, token)).await,
        row(m, s, "1,000 locks that are held", s.locks.acquire(locks(1_000), TTL, token)).await,
        row(m, s, "a lease: acquire", s.leases.acquire(&name("other"), &me(), TTL)).await,
        row(m, s, "a lease: renew", s.leases.renew(&warm, warm_token, None)).await,
        row(m, s, "a checkpoint", s.checkpoints.set(checkpoint(0), at, false, None)).await,
        row(m, s, "a fenced checkpoint", {
            s.checkpoints.set(checkpoint(0), at, false, Some(fence.clone()))
        })
        .await,
        row(m, s, "a checkpoint: read", s.checkpoints.get(&checkpoint(0))).await,
        row(m, s, "a bump", s.generations.bump(vec![generation_key("key")])).await,
        row(m, s, "a cached value: put", s.cache.put(put_value)).await,
        row(m, s, "a cached value: look up", s.cache.get(std::slice::from_ref(&value))).await,
        {
            // Later than the samples that are held.
            clock.advance(Duration::from_millis(500));
            let push = s.series.upsert(points(1_000), SeriesWriter::anybody());
            row(m, s, "a push of 1,000 known series", push).await
        },
        {
            // What was seen of the room of each shard is too long ago.
            clock.advance(Duration::from_secs(1));
            let push = s.series.upsert(points(1_000), SeriesWriter::anybody());
            row(m, s, "the same, a second after the last one", push).await
        },
        row(m, s, "a snapshot of 1,000 series that change", s.series.snapshot(&[], None, 10)).await,
        row(m, s, "an idle second", s.operation.status()).await,
        row(m, s, "a lease: release", s.leases.release(&warm, warm_token)).await,
    ];
    let missing: Vec<String> = rows.into_iter().flatten().collect();
    assert!(missing.is_empty(), "docs/redis.md has other rows than\n{}", missing.join("\n"));
}
