//! The status of the store, which an idle replica reads each second: one call for each shard, whoever needs it.

use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::Seen;
use holdall::model::leases::{Claimant, Holder};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;

use super::bounded::{clock, open, push, trips};
use super::cache::{address, put, snapshot};
use super::replica::name;
use super::store_settings;
use crate::harness::redis::Redis;
use crate::harness::{Launch, Server, eventually};

const SHARDS: usize = 16;
const TTL: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_all_resources_is_one_call_for_each_shard() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let stores = open(&redis, SHARDS, &store_settings(), &clock);
    let mut batch = PointBatch::default();
    (0..40).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
    push(&stores, batch).await;
    let locks = (0..30).map(|n| LockKey::parse(LockKind::Job, n.to_string()).expect("valid"));
    stores
        .locks
        .acquire(locks.collect(), TTL, ReleaseToken([0; 16]))
        .await
        .expect("the store works");
    let me = Claimant::anonymous(Holder::parse("me").expect("valid"));
    for n in 0..20 {
        let lease = name(&format!("lease {n}"));
        stores.leases.acquire(&lease, &me, TTL).await.expect("the store works");
        let key = CheckpointKey::parse("org", &format!("repo {n}")).expect("valid");
        let at = Timestamp::from_nanos(1);
        stores.checkpoints.set(key, at, false, None).await.expect("the store works");
    }
    for n in 0..10 {
        let key = address("values", &format!("key {n}"));
        let fence = snapshot(&stores, "key").await.fence;
        put(&stores, &key, Seen::Fence(fence), "v").await;
    }
    // So that Redis knows the script.
    stores.operation.status().await.expect("the store works");
    let (calls, status) = trips(&stores, stores.operation.status()).await;
    let status = status.expect("the store works");
    assert_eq!(calls, SHARDS as u64);
    let held = ["series", "locks", "leases", "checkpoints", "cache"].map(|of| status.entries(of));
    assert_eq!(held, [40, 30, 20, 20, 10]);
    assert_eq!(status.newest, Some(stores.series.cursor().await.expect("the store works")));
    // The status has checked the epochs as well. A slow machine needs another attempt.
    eventually("a check has nothing to do behind a status", async || {
        stores.operation.status().await.expect("the store works");
        let (calls, checked) = trips(&stores, stores.operation.check_backend()).await;
        checked.expect("the store works");
        (calls == 0).then_some(())
    })
    .await;
    stores.operation.check_wanted().await;
    let (calls, _) = trips(&stores, stores.operation.check_backend()).await;
    assert!(calls >= SHARDS as u64, "without a status it checks by itself: {calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_deletes_what_is_due_in_steps_and_never_counts_it() {
    let (redis, clock) = (Redis::start(&[]), clock());
    let mut settings = store_settings();
    settings.series.max_series = 10_000;
    let stores = open(&redis, 1, &settings, &clock);
    let mut batch = PointBatch::default();
    (0..1_200).for_each(|n| batch.push("m", &format!("n=\"{n}\""), 1.0, None, None));
    push(&stores, batch).await;
    let before = stores.operation.status().await.expect("the store works");
    assert_eq!(before.entries("series"), 1_200);
    clock.advance(settings.series.retention + TTL);
    let (calls, after) = trips(&stores, stores.operation.status()).await;
    let after = after.expect("the store works");
    assert_eq!((calls, after.entries("series")), (3, 0), "steps of five hundred");
    assert_ne!(after.newest, before.newest);
}

/// Returns a sample of /metrics.
fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Returns how many round trips were made, and how many refreshes.
async fn made(server: &Server) -> Option<(f64, f64)> {
    let page = server.try_get("/metrics").await?.text();
    let trips = sample(&page, "holdall_store_round_trip_duration_seconds_count")?;
    Some((trips, sample(&page, "holdall_refresh_duration_seconds_count")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_replica_makes_fewer_than_twenty_round_trips_a_second() {
    let redis = Redis::start(&[]);
    let launch = Launch::new().env("HOLDALL_STORE__BACKEND", "redis");
    let server = launch.env("HOLDALL_STORE__REDIS__URL", &redis.url()).start().await;
    // Counted by refreshes, of which there is one a second at most, and not by a clock: a busy machine makes fewer.
    let mut start = None;
    eventually("it is idle", async || {
        let now = made(&server).await?;
        let (trips, refreshes) = *start.get_or_insert(now);
        // What the page shows of round trips may lack those of the newest refresh.
        let seconds = now.1 - refreshes - 1.0;
        if seconds < 5.0 {
            return None;
        }
        // Of a busy machine, or while something is purged, the next seconds are counted.
        start = Some(now);
        (now.0 - trips < 20.0 * seconds).then_some(())
    })
    .await;
}
