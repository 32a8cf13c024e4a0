//! Stores that share one namespace as the replicas of a server do, and a clock that lets something
//! happen between two steps of one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::leases::{Claimant, Fence, FencingToken, Holder, Lease, LeaseName};
use holdall::model::time::{SteadyTime, Timestamp};
use holdall::store::redis::{RedisSettings, open_with};
use holdall::store::{AcquireOutcome, CheckpointOutcome, Fenced, StoreResult, Stores};
use parking_lot::Mutex;

use crate::harness::redis;

/// How many shards the stores have.
pub(super) const SHARDS: usize = 4;
/// How long the leases of these cases last.
pub(super) const TTL: Duration = Duration::from_secs(30);

/// Where replicas meet.
#[derive(Clone)]
pub(super) struct Place {
    urls: Vec<String>,
    namespace: String,
}

impl Place {
    /// A namespace of its own in a Redis.
    pub(super) fn on(urls: &[String]) -> Self {
        static PLACES: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("place{}", PLACES.fetch_add(1, Ordering::Relaxed));
        Self { urls: urls.to_vec(), namespace }
    }

    /// In the Redis that all cases share.
    pub(super) fn single() -> Self {
        Self::on(&[redis::shared().to_owned()])
    }

    /// In the cluster that all cases share.
    pub(super) fn cluster() -> Self {
        Self::on(redis::shared_cluster())
    }

    /// Opens a replica; it goes by the time of Redis where there is no clock.
    pub(super) fn replica(&self, clock: Option<SharedClock>) -> Replica {
        let settings = RedisSettings::for_tests(&self.urls, &self.namespace);
        let stores = open_with(&settings, &super::store_settings(), clock);
        Replica(stores.expect("the store opens"))
    }

    /// Opens a replica that reaches the Redis through another URL, and gives a call up after `timeout`.
    pub(super) fn replica_through(&self, url: String, timeout: Duration) -> Replica {
        let mut settings = RedisSettings::for_tests(&[url], &self.namespace);
        settings.timeout = timeout;
        let stores = open_with(&settings, &super::store_settings(), None);
        Replica(stores.expect("the store opens"))
    }

    /// Returns the Redis key of something in a shard.
    pub(super) fn key(&self, shard: usize, name: &str) -> String {
        format!("{{{}:{shard}}}:{name}", self.namespace)
    }
}

/// One replica.
#[derive(Clone)]
pub(super) struct Replica(pub(super) Stores);

impl Replica {
    /// Takes the lease of that name over, or takes it.
    pub(super) async fn acquire(&self, lease: &str, holder: &str) -> StoreResult<AcquireOutcome> {
        let holder = Holder::parse(holder).expect("valid");
        let claimant = Claimant::anonymous(holder.clone());
        loop {
            if let Some(taken) = self.0.leases.take_over(&name(lease), &claimant, TTL).await? {
                return Ok(AcquireOutcome::Acquired(taken));
            }
            match self.0.leases.acquire(&name(lease), &claimant, TTL).await? {
                // Another call of the same holder came first.
                AcquireOutcome::Held(held) if held.holder == holder => {}
                outcome => return Ok(outcome),
            }
        }
    }

    /// Takes the lease of that name.
    pub(super) async fn lead(&self, lease: &str, holder: &str) -> Fence {
        match self.acquire(lease, holder).await.expect("the store works") {
            AcquireOutcome::Acquired(held) => Fence { lease: name(lease), token: held.token },
            AcquireOutcome::Held(held) => panic!("held by {}", held.holder.as_str()),
        }
    }

    /// Returns up what `fence` stands for.
    pub(super) async fn release(&self, fence: &Fence) -> bool {
        self.0.leases.release(&fence.lease, fence.token).await.expect("the store works")
    }

    /// Reads the lease of that name.
    pub(super) async fn lease(&self, lease: &str) -> Option<Lease> {
        self.0.leases.get(&name(lease)).await.expect("the store works")
    }

    /// Tries to write a checkpoint of `org` without a fence.
    pub(super) async fn set(&self, org: &str, to: i64) -> StoreResult<()> {
        let to = Timestamp::from_nanos(to);
        self.0.checkpoints.set(key(org), to, false, None).await.map(drop)
    }

    /// Writes a checkpoint of `org`; tells whether it was not refused.
    pub(super) async fn write(&self, org: &str, to: i64, fence: Option<&Fence>) -> bool {
        let to = Timestamp::from_nanos(to);
        let set = self.0.checkpoints.set(key(org), to, false, fence.cloned()).await;
        match set.expect("the store works") {
            Fenced::Done(CheckpointOutcome::Stored(_)) => true,
            Fenced::Done(CheckpointOutcome::NotLater(_)) => panic!("it was to be written anyway"),
            Fenced::Refused => false,
        }
    }

    /// Deletes the checkpoint of `org`; `None` when that is refused.
    pub(super) async fn delete(&self, org: &str, fence: Option<&Fence>) -> Option<bool> {
        let deleted = self.0.checkpoints.delete(key(org), fence.cloned()).await;
        match deleted.expect("the store works") {
            Fenced::Done(was_there) => Some(was_there),
            Fenced::Refused => None,
        }
    }

    /// Reads the checkpoint of `org`.
    pub(super) async fn read(&self, org: &str) -> Option<i64> {
        let stands = self.0.checkpoints.get(&key(org)).await.expect("the store works");
        stands.map(|stands| stands.checkpoint.as_nanos())
    }
}

/// So many orgs that every shard has some of them.
pub(super) fn orgs() -> Vec<String> {
    (0..8 * SHARDS).map(|n| format!("org {n}")).collect()
}

pub(super) fn name(lease: &str) -> LeaseName {
    LeaseName::parse(lease).expect("valid")
}

/// A fence that nobody ever held.
pub(super) fn above(fence: &Fence) -> Fence {
    Fence { lease: fence.lease.clone(), token: FencingToken(fence.token.0 + 1) }
}

fn key(org: &str) -> CheckpointKey {
    CheckpointKey::parse(org, "repo").expect("valid")
}

/// What happens while a replica sleeps.
type Event = Box<dyn FnOnce() + Send>;

/// A clock that a replica reads at each step, and at whose next reading but some it "sleeps":
/// something else happens before it goes on.
pub(super) struct Pausing {
    clock: Arc<ManualClock>,
    event: Mutex<Option<(usize, Event)>>,
}

impl Pausing {
    pub(super) fn new(clock: &Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self { clock: Arc::clone(clock), event: Mutex::default() })
    }

    /// Lets `event` happen after the first step of the next call.
    pub(super) fn after_the_first_step(&self, event: impl Future<Output = ()> + Send + 'static) {
        self.after_steps(1, event);
    }

    /// Lets `event` happen after some steps of the next call.
    pub(super) fn after_steps(
        &self,
        steps: usize,
        event: impl Future<Output = ()> + Send + 'static,
    ) {
        let runtime = tokio::runtime::Handle::current();
        let event = move || tokio::task::block_in_place(|| runtime.block_on(event));
        *self.event.lock() = Some((steps, Box::new(event)));
    }

    /// Returns whether the event has happened.
    pub(super) fn happened(&self) -> bool {
        self.event.lock().is_none()
    }
}

impl Clock for Pausing {
    fn now(&self) -> Timestamp {
        let mut waiting = self.event.lock();
        let event = match waiting.take() {
            Some((0, event)) => Some(event),
            later => {
                *waiting = later.map(|(steps, event)| (steps - 1, event));
                None
            }
        };
        drop(waiting);
        if let Some(event) = event {
            event();
        }
        self.clock.now()
    }

    fn steady(&self) -> SteadyTime {
        self.clock.steady()
    }
}
