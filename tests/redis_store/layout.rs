//! Replicas that do not agree on how the data is divided.

use std::time::Duration;

use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::store::redis::{RedisSettings, open};

use super::store_settings;
use crate::harness::redis;
use crate::harness::redis::Redis;
use crate::harness::{Launch, eventually};

#[tokio::test]
async fn a_replica_that_divides_otherwise_does_nothing() {
    let urls = [redis::shared().to_owned()];
    let store = store_settings();
    let right = RedisSettings::for_tests(&urls, "layout");
    let wrong = RedisSettings { index_shards: right.index_shards + 1, ..right.clone() };
    let (right, wrong) =
        (open(&right, &store).expect("valid"), open(&wrong, &store).expect("valid"));
    let keys = || vec![LockKey::parse(LockKind::Job, "one").expect("valid")];
    let ttl = Duration::from_secs(60);
    let locked =
        right.locks.acquire(keys(), ttl, ReleaseToken([0; 16])).await.expect("the store works");
    assert!(locked[0].acquired);
    let refused = wrong
        .locks
        .acquire(keys(), ttl, ReleaseToken([0; 16]))
        .await
        .expect_err("another number of shards");
    assert!(refused.detail.contains("in 4 shards, not in 5"), "{refused}");
    let why = wrong.operation.ready().await.expect_err("never ready");
    assert!(why.contains("index_shards to 4"), "{why}");
}

#[tokio::test]
async fn a_redis_that_drops_keys_is_warned_of() {
    let redis = Redis::start(&["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]);
    let server = Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__URL", &redis.url())
        .start()
        .await;
    eventually("it warns", async || server.log().contains("noeviction").then_some(())).await;
}
