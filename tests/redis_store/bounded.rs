//! No script's work grows with what is stored: what may be much is done in steps, whose number each case looks at, since
//! no test can tell how long a step takes.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{ManualClock, SharedClock};
use holdall::model::batch::PointBatch;
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::Seen;
use holdall::model::leases::{Claimant, Holder};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::selector::Selector;
use holdall::model::time::Timestamp;
use holdall::store::redis::{RedisSettings, open_with};
use holdall::store::{
    CacheSettings, Fenced, SeriesSettings, SeriesWriter, StoreSettings, Stores, UpsertOutcome,
};

use super::cache::{address, put, snapshot};
use super::replica::name;
use super::store_settings;
use crate::harness::redis::Redis;

const NAMESPACE: &str = "bounded";
const TTL: Duration = Duration::from_secs(60);
/// More than two steps look at, or remove.
const MANY: usize = 2_500;

pub(super) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_nanos(1_800_000_000_000_000_000)))
}

pub(super) fn open(
    redis: &Redis,
    shards: usize,
    store: &StoreSettings,
    clock: &Arc<ManualClock>,
) -> Stores {
    let settings = RedisSettings {
        index_shards: shards,
        ..RedisSettings::for_tests(&[redis.url()], NAMESPACE)
    };
    let clock = Arc::clone(clock) as SharedClock;
    open_with(&settings, store, Some(clock)).expect("the settings make sense")
}

/// Returns how many round trips `work` takes, and what it returns.
pub(super) async fn trips<T>(stores: &Stores, work: impl Future<Output = T>) -> (u64, T) {
    let count = || stores.operation.client_status().expect("there is a client").round_trips;
    let before = count();
    let done = work.await;
    (count() - before, done)
}

pub(super) async fn push(stores: &Stores, batch: PointBatch) -> usize {
    match stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works") {
        Fenced::Done(UpsertOutcome::Applied(counts)) => counts.created,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_series_are_written_and_read_in_pieces_of_bounded_bytes() {
    const SERIES: usize = 40;
    const BYTES: usize = 250_000;
    let (redis, clock) = (Redis::start(&[]), clock());
    let stores = open(&redis, 1, &store_settings(), &clock);
    stores.operation.ready().await.expect("the store works");
    let mut batch = PointBatch::default();
    (0..900).for_each(|n| batch.push("small", &format!("n=\"{n}\""), 1.0, None, None));
    assert_eq!(push(&stores, batch).await, 900);
    let (read, found) = trips(&stores, stores.series.snapshot(&[], None, 1_000)).await;
    assert_eq!(found.expect("the store works").points.len(), 900);
    assert!(read <= 3, "small ones are not read one by one: {read} round trips");
    let mut batch = PointBatch::default();
    for n in 0..SERIES {
        batch.push("large", &format!("n=\"{n}\",v=\"{}\"", "v".repeat(BYTES)), 1.0, None, None);
    }
    let megabytes = (SERIES * BYTES / 1_000_000) as u64;
    let (written, created) = trips(&stores, push(&stores, batch)).await;
    assert_eq!(created, SERIES);
    let (read, found) = trips(&stores, stores.series.snapshot(&[], None, 1_000)).await;
    assert_eq!(found.expect("the store works").points.len(), 900 + SERIES);
    for trips in [written, read] {
        assert!(trips >= megabytes * 3 / 4, "{trips} round trips for {megabytes} MB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_push_would_create_is_counted_in_steps() {
    const KNOWN: usize = 2 * MANY;
    let (redis, clock) = (Redis::start(&[]), clock());
    let store = StoreSettings {
        series: SeriesSettings { max_series: KNOWN + 500, ..store_settings().series },
        ..store_settings()
    };
    let stores = open(&redis, 1, &store, &clock);
    let batch = |series: usize| {
        let mut batch = PointBatch::default();
        (0..series).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
        batch
    };
    assert_eq!(push(&stores, batch(KNOWN)).await, KNOWN);
    let (steps, outcome) =
        trips(&stores, stores.series.upsert(batch(KNOWN + 501), SeriesWriter::anybody())).await;
    let refused = Fenced::Done(UpsertOutcome::OverBudget { new: 501, room: 500 });
    assert_eq!(outcome.expect("the store works"), refused);
    assert!(steps > KNOWN as u64 / 2_000, "{steps} round trips");
    assert_eq!(push(&stores, batch(KNOWN + 500)).await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_look_past_many_expired_entries_in_steps() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let stores = open(&redis, 1, &store_settings(), &clock);
    let me = Claimant::anonymous(Holder::parse("me").expect("valid"));
    let key = |n: usize| CheckpointKey::parse("org", &format!("repo {n:06}")).expect("valid");
    let lock = |n| LockKey::parse(LockKind::Job, format!("{n:06}")).expect("valid");
    let locks = |keys: std::ops::Range<usize>| keys.map(lock).collect::<Vec<_>>();
    let token = ReleaseToken([0; 16]);
    for n in 0..MANY {
        let lease = name(&format!("lease {n:06}"));
        stores.leases.acquire(&lease, &me, TTL).await.expect("the store works");
        let at = Timestamp::from_nanos(1);
        stores.checkpoints.set(key(n), at, false, None).await.expect("the store works");
    }
    stores.locks.acquire(locks(0..MANY), TTL, token).await.expect("the store works");
    clock.advance(Duration::from_secs(3600));
    // So that Redis knows the scripts.
    let warm = (stores.leases.list(None, 1).await, stores.checkpoints.list(None, None, 1).await);
    assert!(warm.0.is_ok() && warm.1.is_ok());
    stores.locks.list(LockKind::Job, None, 1).await.expect("the store works");
    for (live, found) in [(false, 0), (true, 1)] {
        if live {
            // It purges ten of the expired ones.
            stores.leases.acquire(&name("zebra"), &me, TTL).await.expect("the store works");
            let at = Timestamp::from_nanos(1);
            stores.checkpoints.set(key(999_999), at, false, None).await.expect("the store works");
            let one = locks(999_999..1_000_000);
            stores.locks.acquire(one, TTL, token).await.expect("the store works");
        }
        let (leases, list) = trips(&stores, stores.leases.list(None, 10)).await;
        assert_eq!(list.expect("the store works").len(), found);
        let (checkpoints, list) = trips(&stores, stores.checkpoints.list(None, None, 10)).await;
        assert_eq!(list.expect("the store works").len(), found);
        let (locks, list) = trips(&stores, stores.locks.list(LockKind::Job, None, 10)).await;
        assert_eq!(list.expect("the store works").len(), found);
        assert_eq!((leases, checkpoints, locks), (3, 3, 3), "steps of a thousand");
    }
    let all = stores.checkpoints.list(Some("org"), Some(&key(7)), MANY).await;
    assert_eq!(all.expect("the store works").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_locks_ends_with_them() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let stores = open(&redis, 1, &store_settings(), &clock);
    let locks = || (0..MANY).map(|n| LockKey::parse(LockKind::Job, n.to_string()).expect("valid"));
    let token = ReleaseToken([0; 16]);
    let kept = || {
        let counts = [("zcard", "locks"), ("hlen", "lock_tokens"), ("zcard", "lock_names")];
        counts.map(|(count, key)| {
            let reply = redis.cli(&[count, &format!("{{{NAMESPACE}:0}}:{key}")]);
            reply.trim().parse::<usize>().expect("a number")
        })
    };
    stores.locks.acquire(locks().collect(), TTL, token).await.expect("the store works");
    assert_eq!(kept(), [MANY; 3]);
    for key in locks().take(100) {
        assert!(stores.locks.release(&key, Some(token)).await.expect("the store works"));
    }
    assert_eq!(kept(), [MANY - 100; 3]);
    clock.advance(2 * TTL);
    stores.operation.collect_garbage().await.expect("the store works");
    assert_eq!(kept(), [0; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_after_the_limits_were_lowered_evicts_in_steps() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let with = |bytes: usize| StoreSettings {
        cache: CacheSettings { max_bytes: bytes, namespace_max_bytes: bytes, max_namespaces: 8 },
        ..store_settings()
    };
    let large = open(&redis, 1, &with(64 << 20), &clock);
    let fence = snapshot(&large, "key").await.fence;
    for n in 0..MANY {
        put(&large, &address("values", &format!("key {n}")), Seen::Fence(fence), "v").await;
    }
    let lowered = 64 << 10;
    let small = open(&redis, 1, &with(lowered), &clock);
    small.operation.ready().await.expect("the store works");
    let one = address("values", "another");
    let (trips, outcome) = trips(&small, put(&small, &one, Seen::Fence(fence), "v")).await;
    assert!(matches!(outcome, holdall::store::PutOutcome::Stored(_)), "{outcome:?}");
    assert!(trips >= MANY as u64 / 200, "{trips} round trips");
    let held = small.operation.status().await.expect("the store works").bytes("cache");
    assert!(held <= lowered as u64, "{held} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lowered_limit_leaves_of_tombstones_is_trimmed_in_steps() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let with = |max_tombstones: usize| StoreSettings {
        series: SeriesSettings { max_series: 2 * MANY, max_tombstones, ..store_settings().series },
        ..store_settings()
    };
    let many = open(&redis, 1, &with(2 * MANY), &clock);
    let mut batch = PointBatch::default();
    (0..MANY).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
    push(&many, batch).await;
    let all = [Selector::parse("m").expect("valid")];
    many.series
        .delete_matching(&all, false, SeriesWriter::anybody())
        .await
        .expect("the store works");
    let held = async |stores: &Stores| {
        stores.operation.status().await.expect("the store works").entries("series_tombstones")
    };
    assert_eq!(held(&many).await, MANY as u64);
    let few = open(&redis, 1, &with(100), &clock);
    // Each script trims a thousand, whatever else it does.
    assert_eq!(held(&few).await, MANY as u64 - 1_000);
    assert_eq!(held(&few).await, MANY as u64 - 2_000);
    assert_eq!(held(&few).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_goes_on_past_a_shard_that_fails() {
    const SHARDS: usize = 4;
    let (redis, clock) = (Redis::start(&[]), clock());
    let stores = open(&redis, SHARDS, &store_settings(), &clock);
    let locks = (0..SHARDS * MANY).map(|n| LockKey::parse(LockKind::Job, n.to_string()));
    let locks: Vec<LockKey> = locks.map(|key| key.expect("valid")).collect();
    stores.locks.acquire(locks, TTL, ReleaseToken([0; 16])).await.expect("the store works");
    let me = Claimant::anonymous(Holder::parse("me").expect("valid"));
    for n in 0..20 {
        let lease = name(&format!("lease {n}"));
        stores.leases.acquire(&lease, &me, TTL).await.expect("the store works");
    }
    clock.advance(2 * TTL);
    let spoilt = format!("{{{NAMESPACE}:0}}:locks");
    redis.cli(&["rename", &spoilt, &format!("{{{NAMESPACE}:0}}:aside")]);
    redis.cli(&["set", &spoilt, "of another type"]);
    stores.operation.collect_garbage().await.expect_err("a shard fails");
    for shard in 0..SHARDS {
        for key in ["locks", "leases"] {
            let exists = redis.cli(&["exists", &format!("{{{NAMESPACE}:{shard}}}:{key}")]);
            let expected = if (shard, key) == (0, "locks") { "1" } else { "0" };
            assert_eq!(exists.trim(), expected, "shard {shard}: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_known_series_makes_one_call_for_each_shard_that_it_touches() {
    const SHARDS: usize = 16;
    let (redis, clock) = (Redis::start(&[]), clock());
    let store = StoreSettings {
        series: SeriesSettings { max_series: 1_000_000, ..store_settings().series },
        ..store_settings()
    };
    let stores = open(&redis, SHARDS, &store, &clock);
    let batch = || {
        let mut batch = PointBatch::default();
        (0..200).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
        batch
    };
    assert_eq!(push(&stores, batch()).await, 200);
    // What is known of the room counts for a second only, so a slow machine needs another attempt.
    crate::harness::eventually("a push needs no check", async || {
        let (calls, created) = trips(&stores, push(&stores, batch())).await;
        assert_eq!(created, 0);
        (calls == SHARDS as u64).then_some(())
    })
    .await;
    // Near the end of the budget it is checked first.
    let near = StoreSettings {
        series: SeriesSettings { max_series: 16_000, ..store_settings().series },
        ..store_settings()
    };
    let stores = open(&redis, SHARDS, &near, &clock);
    push(&stores, batch()).await;
    let (calls, _) = trips(&stores, push(&stores, batch())).await;
    assert_eq!(calls, 2 * SHARDS as u64);
}
