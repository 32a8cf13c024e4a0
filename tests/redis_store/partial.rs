//! A batch of which a part was applied is neither a success nor a refusal: the error says how much was applied.

use std::sync::Arc;

use holdall::clock::{ManualClock, SharedClock};
use holdall::model::batch::PointBatch;
use holdall::model::leases::Fence;
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::selector::Selector;
use holdall::model::time::Timestamp;
use holdall::store::{ErrorKind, Fenced, SeriesWriter, StoreError, UpsertOutcome};

use super::cache::generation_key;
use super::replica::{Pausing, Place, Replica, SHARDS, TTL};
use crate::conformance::fixture::did_delete;
use crate::harness::redis::Redis;

/// Enough items that every shard has some.
const ITEMS: usize = 40;

struct Stand {
    redis: Redis,
    place: Place,
    replica: Replica,
    pauses: Arc<Pausing>,
}

impl Stand {
    fn start() -> Self {
        let redis = Redis::start(&[]);
        let place = Place::on(&[redis.url()]);
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_800_000_000_000_000_000)));
        let pauses = Pausing::new(&clock);
        let replica = place.replica(Some(Arc::clone(&pauses) as SharedClock));
        Self { redis, place, replica, pauses }
    }

    async fn push(&self, fence: &Fence) -> Result<Fenced<UpsertOutcome>, StoreError> {
        let mut batch = PointBatch::default();
        for n in 0..ITEMS {
            batch.push(&format!("m_{n}"), "", 1.0, None, None);
        }
        self.replica.0.series.upsert(batch, SeriesWriter::fenced(fence.clone())).await
    }

    async fn live(&self) -> usize {
        let snapshot = self.replica.0.series.snapshot(&[], None, ITEMS).await;
        snapshot.expect("the store works").points.len()
    }

    /// Returns the command that tells the last shard of a later holder, as if only that one had heard of it.
    fn later_holder(&self, fence: &Fence) -> [String; 4] {
        let key = self.place.key(SHARDS - 1, "fences");
        let token = (fence.token.0 + 1).to_string();
        ["zadd".to_owned(), key, token, fence.lease.as_str().to_owned()]
    }

    /// Makes a key of the last shard one that no script can use.
    fn spoil(&self, key: &str) {
        let key = self.place.key(SHARDS - 1, key);
        self.redis.cli(&["set", &key, "of another type"]);
    }
}

/// Returns how much of a batch was applied, of which a part was.
fn applied<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> usize {
    match outcome.expect_err("a part was not applied").kind {
        ErrorKind::PartlyApplied { applied } => usize::try_from(applied).expect("small"),
        kind => panic!("{kind:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_one_shard_refuses_says_what_the_others_applied() {
    let stand = Stand::start();
    let fence = stand.replica.lead("leader", "me").await;
    assert!(matches!(stand.push(&fence).await, Ok(Fenced::Done(_))));
    let all = [Selector::parse("{__name__=~\"m_.*\"}").expect("valid")];
    let deleted =
        stand.replica.0.series.delete_matching(&all, false, SeriesWriter::anybody()).await;
    assert_eq!(deleted.expect("the store works"), did_delete(ITEMS));
    let command = stand.later_holder(&fence);
    let port = stand.redis.port();
    // After the pass was issued and all shards have checked the push: they have too little room to go without.
    stand.pauses.after_steps(1 + SHARDS, async move {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        crate::harness::redis::cli(port, &command);
    });
    let pushed = applied(stand.push(&fence).await);
    assert!(stand.pauses.happened());
    assert_eq!(pushed, stand.live().await);
    assert!(pushed > 0 && pushed < ITEMS, "{pushed}");
    assert_eq!(stand.push(&fence).await.expect("the store works"), Fenced::Refused);
    assert_eq!(stand.live().await, pushed, "a refusal changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_one_shard_refuses_says_what_the_others_deleted() {
    let stand = Stand::start();
    let fence = stand.replica.lead("leader", "me").await;
    assert!(matches!(stand.push(&fence).await, Ok(Fenced::Done(_))));
    let command = stand.later_holder(&fence);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    stand.redis.cli(&command);
    let all = [Selector::parse("{__name__=~\"m_.*\"}").expect("valid")];
    let series = &stand.replica.0.series;
    let deleted =
        applied(series.delete_matching(&all, false, SeriesWriter::fenced(fence.clone())).await);
    assert_eq!(deleted, ITEMS - stand.live().await);
    assert!(deleted > 0 && deleted < ITEMS, "{deleted}");
    let again = series.delete_matching(&all, false, SeriesWriter::fenced(fence)).await;
    assert_eq!(again.expect("the store works"), Fenced::Refused, "nothing was deleted now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_locks_and_of_bumps_say_how_many_keys_were_done() {
    let stand = Stand::start();
    let stores = &stand.replica.0;
    stores.operation.ready().await.expect("every shard is initialized");
    stand.spoil("locks");
    stand.spoil("generations");
    let locks: Vec<LockKey> =
        (0..ITEMS).map(|n| LockKey::parse(LockKind::Job, n.to_string()).expect("valid")).collect();
    let taken = applied(stores.locks.acquire(locks.clone(), TTL, ReleaseToken([0; 16])).await);
    let keys: Vec<_> = (0..ITEMS).map(|n| generation_key(&n.to_string())).collect();
    let bumped = applied(stores.generations.bump(keys.clone()).await);
    for done in [taken, bumped] {
        assert!(done > 0 && done < ITEMS, "{done}");
    }
    let error = stores.generations.snapshot(&keys).await.expect_err("a shard fails");
    assert_eq!(error.kind, ErrorKind::Internal, "a read applies nothing");
    for key in ["locks", "generations"] {
        stand.redis.cli(&["del", &stand.place.key(SHARDS - 1, key)]);
    }
    let again =
        stores.locks.acquire(locks, TTL, ReleaseToken([0; 16])).await.expect("the store works");
    assert_eq!(again.iter().filter(|outcome| !outcome.acquired).count(), taken);
    let after = stores.generations.snapshot(&keys).await.expect("the store works");
    assert_eq!(after.iter().filter(|generation| generation.number == 1).count(), bumped);
}
