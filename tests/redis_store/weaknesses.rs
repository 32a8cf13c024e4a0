//! What a failover can cost: each loss that docs/redis.md names, produced. A replica of Redis that lags behind takes over,
//! so what its master acknowledged since is lost; and what the document says to hold nevertheless holds.

use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::cache::MissReason;
use holdall::model::generations::Seen;
use holdall::model::leases::{Claimant, Fence, Holder};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::selector::Selector;
use holdall::store::{AcquireOutcome, DeleteOutcome, Delta, Fenced, PutOutcome, SeriesWriter};

use super::cache::{address, bump, fill, put, read, snapshot};
use super::replica::{Place, Replica, TTL, name};
use crate::harness::eventually;
use crate::harness::proxy::Proxy;
use crate::harness::redis::{Redis, until_replicated};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A master and its replica, and a replica of holdall that reaches one of them.
struct Stand {
    old: Redis,
    new: Redis,
    place: Place,
    proxy: Proxy,
    holdall: Replica,
}

impl Stand {
    async fn start() -> Self {
        let (old, new) = (Redis::start(&[]), Redis::start(&[]));
        let place = Place::on(&[old.url()]);
        let proxy = Proxy::to(old.port()).await;
        let holdall = place.replica_through(proxy.url(), TIMEOUT);
        holdall.0.operation.ready().await.expect("the store works");
        assert!(!holdall.0.operation.capabilities().survives_failover);
        new.cli(&["replicaof", "127.0.0.1", &old.port().to_string()]);
        Self { old, new, place, proxy, holdall }
    }

    /// From now on, what the old master acknowledges is lost: its replica is cut off.
    fn lag(&self) {
        until_replicated(self.old.port());
        self.new.cli(&["replicaof", "no", "one"]);
    }

    /// The replica that lagged behind has taken over.
    async fn fail_over(&self) {
        self.proxy.lead_to(self.new.port());
        eventually("all connections lead to the new master", async || {
            self.holdall.0.cache.get(&[address("any", "any")]).await.ok()?;
            self.holdall.0.series.cursor().await.ok()?;
            self.holdall.0.operation.ready().await.ok()
        })
        .await;
    }

    async fn lock(&self) -> bool {
        let key = LockKey::parse(LockKind::Job, "key").expect("valid");
        let token = ReleaseToken([0; 16]);
        let outcomes = self.holdall.0.locks.acquire(vec![key], TTL, token).await;
        outcomes.expect("the store works")[0].acquired
    }

    async fn unlock(&self) -> bool {
        let key = LockKey::parse(LockKind::Job, "key").expect("valid");
        let released = self.holdall.0.locks.release(&key, Some(ReleaseToken([0; 16]))).await;
        released.expect("the store works")
    }

    async fn delete(&self) -> Fenced<DeleteOutcome> {
        let all = [Selector::parse("m").expect("valid")];
        let deletion = self.holdall.0.series.delete_matching(&all, false, SeriesWriter::anybody());
        deletion.await.expect("the store works")
    }

    async fn acquire(&self, holder: &str) -> Option<Fence> {
        let claimant = Claimant::anonymous(Holder::parse(holder).expect("valid"));
        let acquired = self.holdall.0.leases.acquire(&name("leader"), &claimant, TTL).await;
        match acquired.expect("the store works") {
            AcquireOutcome::Acquired(lease) => {
                Some(Fence { lease: name("leader"), token: lease.token })
            }
            AcquireOutcome::Held(_) => None,
        }
    }

    async fn push(&self, value: f64) {
        let mut batch = PointBatch::default();
        batch.push("m", "", value, None, None);
        let pushed = self.holdall.0.series.upsert(batch, SeriesWriter::anybody()).await;
        assert!(matches!(pushed, Ok(Fenced::Done(_))), "{pushed:?}");
    }

    async fn value(&self) -> Option<f64> {
        let found = self.holdall.0.series.snapshot(&[], None, 10).await.expect("the store works");
        found.points.first().map(|point| point.sample.value)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_acquisition_was_lost_is_acquired_again() {
    let stand = Stand::start().await;
    stand.lag();
    assert!(stand.lock().await);
    stand.fail_over().await;
    assert!(stand.lock().await, "the first acquisition is lost");
    assert!(!stand.lock().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_release_was_lost_is_held_again_until_it_is_released_again() {
    let stand = Stand::start().await;
    assert!(stand.lock().await);
    stand.lag();
    assert!(stand.unlock().await);
    assert!(!stand.unlock().await, "it is free");
    stand.fail_over().await;
    assert!(!stand.lock().await, "the release is lost");
    assert!(stand.unlock().await, "its token still releases it");
    assert!(stand.lock().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_release_was_lost_is_held_again_by_its_holder() {
    let stand = Stand::start().await;
    let fence = stand.acquire("holder").await.expect("it is free");
    stand.lag();
    assert!(stand.holdall.release(&fence).await);
    assert!(!stand.holdall.write("org", 1, Some(&fence)).await);
    stand.fail_over().await;
    assert!(stand.acquire("another").await.is_none(), "the release is lost");
    assert!(stand.holdall.write("org", 2, Some(&fence)).await);
    assert!(stand.holdall.release(&fence).await);
    assert!(stand.acquire("another").await.is_some_and(|next| next.token > fence.token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_series_are_back_until_they_are_deleted_again() {
    let stand = Stand::start().await;
    stand.push(1.0).await;
    stand.lag();
    assert_eq!(stand.delete().await, Fenced::Done(DeleteOutcome::Deleted(1)));
    assert_eq!(stand.value().await, None);
    let cursor = stand.holdall.0.series.cursor().await.expect("the store works");
    stand.fail_over().await;
    assert_eq!(stand.value().await, Some(1.0), "the deletion is lost");
    let delta = stand.holdall.0.series.delta(&cursor, None, 10).await.expect("the store works");
    assert!(matches!(delta, Delta::Gone), "no reader of deltas misses that it is back: {delta:?}");
    assert_eq!(stand.delete().await, Fenced::Done(DeleteOutcome::Deleted(1)));
    assert_eq!(stand.value().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_grant_was_lost_has_another_holder_with_a_higher_token() {
    let stand = Stand::start().await;
    stand.lag();
    let first = stand.acquire("first").await.expect("it is free");
    stand.fail_over().await;
    let second = stand.acquire("second").await.expect("the grant is lost");
    assert!(second.token > first.token);
    assert!(!stand.holdall.write("org", 1, Some(&first)).await, "only the second one writes");
    assert!(stand.holdall.write("org", 2, Some(&second)).await);
    let renewed = stand.holdall.0.leases.renew(&name("leader"), first.token, None).await;
    assert_eq!(renewed.expect("the store works"), None);
    assert!(!stand.holdall.release(&first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_successor_was_lost_has_its_lease_again() {
    let stand = Stand::start().await;
    let former = stand.holdall.lead("leader", "me").await;
    stand.lag();
    let later = stand.holdall.lead("leader", "me").await;
    assert!(!stand.holdall.write("org", 1, Some(&former)).await);
    stand.fail_over().await;
    assert!(stand.holdall.write("org", 2, Some(&former)).await, "the takeover is lost");
    assert!(!stand.holdall.write("org", 3, Some(&later)).await);
    let next = stand.holdall.lead("leader", "me").await;
    assert!(next.token > later.token, "no token is issued twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_moves_back() {
    let stand = Stand::start().await;
    assert!(stand.holdall.write("org", 1, None).await);
    stand.lag();
    assert!(stand.holdall.write("org", 2, None).await);
    stand.fail_over().await;
    assert_eq!(stand.holdall.read("org").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_older_until_the_next_push_and_every_cursor_is_gone() {
    let stand = Stand::start().await;
    stand.push(1.0).await;
    stand.lag();
    stand.push(2.0).await;
    assert_eq!(stand.value().await, Some(2.0));
    let cursor = stand.holdall.0.series.cursor().await.expect("the store works");
    stand.fail_over().await;
    assert_eq!(stand.value().await, Some(1.0));
    let delta = stand.holdall.0.series.delta(&cursor, None, 10).await.expect("the store works");
    assert!(matches!(delta, Delta::Gone), "{delta:?}");
    stand.push(3.0).await;
    assert_eq!(stand.value().await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bump_is_lost_and_its_number_repeats_but_no_fence_and_no_value_of_before_holds() {
    let stand = Stand::start().await;
    let stores = &stand.holdall.0;
    let value = address("values", "key");
    fill(stores, &value, "old").await;
    stand.lag();
    let lost = bump(stores, "key").await;
    stand.fail_over().await;
    let found = snapshot(stores, "key").await;
    assert_eq!(found.number + 1, lost.number);
    assert!(found.fence > lost.fence);
    assert_eq!(read(stores, &value).await.value, Err(MissReason::Stale));
    let refused = put(stores, &value, Seen::Fence(lost.fence), "v").await;
    assert!(matches!(refused, PutOutcome::Moved(_)), "{refused:?}");
    assert_eq!(bump(stores, "key").await.number, lost.number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bump_that_reached_a_master_that_was_cut_off_ends_no_value_of_its_successor() {
    let stand = Stand::start().await;
    let value = address("values", "key");
    stand.lag();
    // Another replica of holdall reaches the old master for a while.
    let cut_off = stand.place.replica_through(stand.old.url(), TIMEOUT);
    stand.fail_over().await;
    fill(&stand.holdall.0, &value, "v").await;
    bump(&cut_off.0, "key").await;
    assert!(read(&stand.holdall.0, &value).await.value.is_ok(), "nothing tells of the bump");
    bump(&stand.holdall.0, "key").await;
    assert_eq!(read(&stand.holdall.0, &value).await.value, Err(MissReason::Stale));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_its_replicas_serves_nothing_once_it_notices() {
    let stand = Stand::start().await;
    stand.old.cli(&["config", "set", "min-replicas-to-write", "1"]);
    stand.old.cli(&["config", "set", "min-replicas-max-lag", "1"]);
    stand.lag();
    eventually("it notices", async || {
        stand.holdall.0.operation.ready().await.is_err().then_some(())
    })
    .await;
    stand.holdall.0.cache.get(&[address("values", "key")]).await.expect_err("no read either");
}
