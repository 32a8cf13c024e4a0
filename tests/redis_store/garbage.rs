//! What has expired is purged from Redis, in every shard, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{ManualClock, SharedClock};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;

use super::replica::{Place, Replica, SHARDS, TTL, name, orgs};
use crate::harness::redis::Redis;

const KEYS: [&str; 9] = [
    "locks",
    "lock_tokens",
    "leases",
    "lease_ends",
    "lease_names",
    "fences",
    "checkpoints",
    "checkpoint_writes",
    "checkpoint_keys",
];

/// More than one step removes.
const MANY: usize = 2_500;

async fn fill(replica: &Replica) {
    let locks = (0..MANY * SHARDS).map(|n| LockKey::parse(LockKind::Job, n.to_string()));
    let locks: Vec<LockKey> = locks.map(|key| key.expect("valid")).collect();
    replica.0.locks.acquire(locks, TTL, ReleaseToken([0; 16])).await.expect("the store works");
    for org in orgs() {
        replica.lead(&org, "me").await;
        assert!(replica.write(&org, 1, None).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_purged_in_every_shard_and_nothing_else() {
    let redis = Redis::start(&[]);
    let place = Place::on(&[redis.url()]);
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_800_000_000_000_000_000)));
    let replica = place.replica(Some(Arc::clone(&clock) as SharedClock));
    let operation = &replica.0.operation;
    fill(&replica).await;
    let exist = |keys: &[&str]| {
        let all = (0..SHARDS).flat_map(|shard| keys.iter().map(move |key| (shard, *key)));
        all.filter(|(shard, key)| redis.cli(&["exists", &place.key(*shard, key)]).trim() == "1")
            .count()
    };
    assert_eq!(exist(&KEYS), KEYS.len() * SHARDS, "every shard has some of everything");

    clock.advance(TTL - Duration::from_millis(1));
    operation.collect_garbage().await.expect("the store works");
    let status = operation.status().await.expect("the store works");
    let held = orgs().len() as u64;
    assert_eq!(status.entries("locks"), (MANY * SHARDS) as u64);
    assert_eq!((status.entries("leases"), status.entries("checkpoints")), (held, held));

    clock.advance(Duration::from_millis(1));
    let status = operation.status().await.expect("the store works");
    assert_eq!(
        (status.entries("locks"), status.entries("leases"), status.entries("checkpoints")),
        (0, 0, held)
    );
    let removed = operation.collect_garbage().await.expect("the store works");
    assert_eq!(removed, (MANY * SHARDS) as u64 + held);
    assert_eq!(exist(&KEYS[..5]), 0);
    assert_eq!(exist(&KEYS[5..]), 4 * SHARDS, "fences and checkpoints stand");

    let kept = replica.lead(&orgs()[0], "me").await;
    clock.advance(Duration::from_secs(3600));
    operation.collect_garbage().await.expect("the store works");
    assert_eq!(exist(&KEYS[6..]), 0);
    assert_eq!(exist(&["fences"]), SHARDS, "a fence is remembered for a day");
    clock.advance(Duration::from_secs(24 * 3600));
    operation.collect_garbage().await.expect("the store works");
    assert_eq!(exist(&["fences"]), 0);
    let next = replica.lead(kept.lease.as_str(), "me").await;
    assert!(next.token > kept.token);
    assert_eq!(replica.0.leases.get(&name("another")).await.expect("the store works"), None);
}
