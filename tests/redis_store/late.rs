//! A command that was held up on its way does nothing once its caller has given up: what it would do, somebody else
//! may have done and undone since.

use std::time::Duration;

use holdall::model::generations::GenerationKey;
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::store::{ErrorKind, LockOutcome, StoreResult};

use super::replica::{Place, Replica, name};
use crate::harness::eventually;
use crate::harness::proxy::{Line, Proxy};
use crate::harness::redis::Redis;

/// How soon the replica behind the proxy gives up.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Two replicas, of which the commands of one can be held up.
struct Two {
    redis: Redis,
    place: Place,
    proxy: Proxy,
    held: Replica,
    other: Replica,
}

impl Two {
    async fn open() -> Self {
        let redis = Redis::start(&[]);
        let place = Place::on(&[redis.url()]);
        let proxy = Proxy::to(redis.port()).await;
        let held = place.replica_through(proxy.url(), TIMEOUT);
        let two = Self { redis, proxy, held, other: place.replica(None), place };
        two.is_warm().await;
        two
    }

    /// Waits until the replica behind the proxy knows the clock of Redis, and Redis its scripts: the next call is one
    /// command, which is on time.
    async fn is_warm(&self) {
        eventually("the replica works", async || {
            let ready = self.held.0.operation.ready().await.is_ok();
            let all = every_write(&self.held, "warm").await;
            (ready && all.iter().all(Result::is_ok)).then_some(())
        })
        .await;
    }

    /// Returns how many commands Redis refused since they came late.
    fn refused(&self) -> u64 {
        let stats = self.redis.cli(&["info", "errorstats"]);
        let late = stats.lines().find_map(|line| line.strip_prefix("errorstat_LATE:count="));
        late.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    /// Lets `write` begin and give up while its command is held up, then `meanwhile` happen, and the command arrive.
    async fn late<T: std::fmt::Debug>(
        &self,
        write: impl Future<Output = StoreResult<T>>,
        meanwhile: impl Future<Output = ()>,
    ) {
        let refused = self.refused();
        self.proxy.set(Line::Held);
        let error = write.await.expect_err("no reply came");
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        meanwhile.await;
        self.proxy.set(Line::Good);
        eventually("the command has arrived, and was refused", async || {
            (self.refused() > refused).then_some(())
        })
        .await;
    }
}

/// Lets a replica write a checkpoint, and breaks its connection while the command is held up.
async fn write_and_break(proxy: &Proxy, replica: &Replica, to: i64) {
    let held = proxy.held();
    proxy.set(Line::Held);
    let writer = replica.clone();
    let write = tokio::spawn(async move { writer.set("warm", to).await });
    eventually("the command is on its way", async || (proxy.held() > held).then_some(())).await;
    proxy.set(Line::Left);
    let error = write.await.expect("does not panic").expect_err("the connection broke");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
}

/// Runs one write of each kind.
async fn every_write(replica: &Replica, key: &str) -> Vec<StoreResult<()>> {
    let bumped = vec![GenerationKey::parse(key).expect("valid")];
    vec![
        replica.acquire(key, "warm").await.map(drop),
        replica.set(key, 1).await,
        replica.0.generations.bump(bumped).await.map(drop),
        lock(replica, key).await.map(drop),
    ]
}

async fn lock(replica: &Replica, key: &str) -> StoreResult<LockOutcome> {
    let key = LockKey::parse(LockKind::Job, key).expect("valid");
    let outcomes =
        replica.0.locks.acquire(vec![key], Duration::from_secs(60), ReleaseToken([0; 16])).await?;
    Ok(outcomes[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_checkpoint_does_not_overwrite_a_newer_one() {
    let two = Two::open().await;
    let newer = async { assert!(two.other.write("warm", 3, None).await) };
    two.late(two.held.set("warm", 2), newer).await;
    assert_eq!(two.other.read("warm").await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_a_broken_connection_is_carried_out_until_its_deadline_and_never_later() {
    let two = Two::open().await;
    let patient = two.place.replica_through(two.proxy.url(), Duration::from_secs(60));
    patient.set("warm", 2).await.expect("the store works");
    write_and_break(&two.proxy, &patient, 3).await;
    assert_eq!(two.other.read("warm").await, Some(2));
    two.proxy.set(Line::Good);
    eventually("it is carried out", async || {
        (two.other.read("warm").await == Some(3)).then_some(())
    })
    .await;
    two.is_warm().await;
    two.other.set("warm", 4).await.expect("the store works");
    let refused = two.refused();
    write_and_break(&two.proxy, &two.held, 5).await;
    let broken = std::time::Instant::now();
    eventually("the deadline is over", async || (broken.elapsed() > TIMEOUT).then_some(())).await;
    two.proxy.set(Line::Good);
    eventually("it is refused", async || (two.refused() > refused).then_some(())).await;
    assert_eq!(two.other.read("warm").await, Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_acquisition_does_not_take_a_lease_from_its_holder() {
    let two = Two::open().await;
    let (mut fence, renewed) = (None, Duration::from_secs(30));
    let acquired = async { fence = Some(two.other.lead("leader", "me").await) };
    two.late(two.held.acquire("leader", "me"), acquired).await;
    let fence = fence.expect("it was acquired");
    let lease = two.other.0.leases.renew(&name("leader"), fence.token, Some(renewed)).await;
    let lease = lease.expect("the store works").expect("its holder still has it");
    assert_eq!(lease.token, fence.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_bump_and_a_late_lock_do_nothing() {
    let two = Two::open().await;
    let keys = vec![GenerationKey::parse("warm").expect("valid")];
    let before = two.other.0.generations.snapshot(&keys).await.expect("the store works");
    two.late(two.held.0.generations.bump(keys.clone()), async {}).await;
    let after = two.other.0.generations.snapshot(&keys).await.expect("the store works");
    assert_eq!(after, before);
    two.is_warm().await;
    two.late(lock(&two.held, "late"), async {}).await;
    assert!(lock(&two.other, "late").await.expect("the store works").acquired, "it is free");
}
