//! Tests of the queue of a lease, over the store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::LeaseEngine;
use crate::clock::{ManualClock, SharedClock};
use crate::engine::EngineResult;
use crate::engine::roles::Roles;
use crate::model::leases::{Claimant, FencingToken, Holder, Lease, LeaseName};
use crate::model::time::Timestamp;
use crate::store::StoreSettings;
use crate::store::embedded::{EmbeddedSettings, open_with};
use crate::store::{AcquireOutcome, LeaseStore, StoreResult};

const TTL: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);
const DEADLINE: Duration = Duration::from_secs(30);

struct Fixture {
    engine: Arc<LeaseEngine>,
    clock: Arc<ManualClock>,
    store: Arc<SlowStore>,
}

/// A store whose grants can be held back after they are made.
struct SlowStore {
    inner: Arc<dyn LeaseStore>,
    hold_back: AtomicBool,
    /// How many acquisitions found the lease held.
    refused: AtomicUsize,
    granted: Notify,
    go_on: Notify,
}

#[async_trait]
impl LeaseStore for SlowStore {
    async fn acquire(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        let outcome = self.inner.acquire(name, claimant, ttl).await;
        if let Ok(AcquireOutcome::Held(_)) = &outcome {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        self.wait().await;
        outcome
    }

    async fn take_over(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<Option<Lease>> {
        // Before it asks the store, unlike above: what happens to the lease meanwhile must not matter.
        self.wait().await;
        self.inner.take_over(name, claimant, ttl).await
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        self.inner.renew(name, token, ttl).await
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        self.inner.release(name, token).await
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        self.inner.get(name).await
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        self.inner.list(after, limit).await
    }
}

impl SlowStore {
    async fn wait(&self) {
        if self.hold_back.load(Ordering::SeqCst) {
            self.granted.notify_one();
            self.go_on.notified().await;
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let start = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
        let clock = Arc::new(ManualClock::at(start));
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let (settings, store) = (EmbeddedSettings::in_memory(), StoreSettings::for_tests());
        let (stores, _) =
            open_with(&settings, &store, |_| Arc::clone(&shared)).expect("opens in memory");
        let inner = stores.leases;
        let store = Arc::new(SlowStore {
            inner,
            hold_back: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            granted: Notify::new(),
            go_on: Notify::new(),
        });
        let engine = LeaseEngine::new(Arc::clone(&store) as Arc<dyn LeaseStore>, roles(), shared);
        Self { engine: Arc::new(engine), clock, store }
    }

    async fn acquire(&self, holder: &str, wait: Duration) -> EngineResult<AcquireOutcome> {
        let (name, claimant) = (name(), claimant(holder));
        let acquire = self.engine.acquire(&name, &claimant, TTL, wait, false, None);
        tokio::time::timeout(DEADLINE, acquire).await.expect("returns in time")
    }

    async fn take_over(&self, holder: &str) -> EngineResult<AcquireOutcome> {
        let (name, claimant) = (name(), claimant(holder));
        let acquire = self.engine.acquire(&name, &claimant, TTL, Duration::ZERO, true, None);
        tokio::time::timeout(DEADLINE, acquire).await.expect("returns in time")
    }

    async fn take(&self, holder: &str) -> Lease {
        acquired(self.acquire(holder, Duration::ZERO).await)
    }

    /// Starts a request, and returns when it is in the queue.
    async fn queue(
        &self,
        holder: &str,
        wait: Duration,
    ) -> JoinHandle<EngineResult<AcquireOutcome>> {
        let before = self.engine.queues.length(&name());
        let (engine, claimant) = (Arc::clone(&self.engine), claimant(holder));
        let task = tokio::spawn(async move {
            engine.acquire(&name(), &claimant, TTL, wait, false, None).await
        });
        self.until_length(before + 1).await;
        task
    }

    async fn release(&self, lease: &Lease) {
        assert!(self.engine.release(&name(), lease.token).await.expect("the store works"));
    }

    /// Waits until the first of the queue has found the lease held since the last call.
    async fn until_looked(&self) {
        until(|| self.store.refused.swap(0, Ordering::SeqCst) > 0).await;
    }

    async fn until_length(&self, length: usize) {
        until(|| self.engine.queues.length(&name()) == length).await;
    }
}

fn roles() -> Arc<Roles> {
    Arc::new(Roles::new(BTreeMap::new(), "leader".to_owned(), None))
}

fn claimant(holder: &str) -> Claimant {
    Claimant::anonymous(Holder::parse(holder).expect("valid"))
}

fn name() -> LeaseName {
    LeaseName::parse("leader").expect("valid")
}

fn acquired(outcome: EngineResult<AcquireOutcome>) -> Lease {
    match outcome.expect("the store works") {
        AcquireOutcome::Acquired(lease) => lease,
        AcquireOutcome::Held(lease) => panic!("{} holds it", lease.holder.as_str()),
    }
}

fn held(outcome: EngineResult<AcquireOutcome>) -> Lease {
    match outcome.expect("the store works") {
        AcquireOutcome::Held(lease) => lease,
        AcquireOutcome::Acquired(_) => panic!("must be held by another"),
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("becomes true in time");
}

async fn ended<T>(task: JoinHandle<T>) -> T {
    tokio::time::timeout(DEADLINE, task).await.expect("ends in time").expect("does not panic")
}

#[tokio::test]
async fn waiters_are_granted_in_the_order_in_which_they_joined() {
    let fixture = Fixture::new();
    let mut lease = fixture.take("first").await;
    let mut waiters = Vec::new();
    for n in 0..5 {
        waiters.push(fixture.queue(&format!("waiter {n}"), LONG).await);
    }
    for (n, waiter) in waiters.into_iter().enumerate() {
        fixture.release(&lease).await;
        lease = acquired(ended(waiter).await);
        assert_eq!(lease.holder.as_str(), format!("waiter {n}"));
    }
    assert_eq!(fixture.engine.queues.length(&name()), 0);
}

#[tokio::test]
async fn no_request_overtakes_one_that_waits() {
    let fixture = Fixture::new();
    let lease = fixture.take("first").await;
    let waiter = fixture.queue("waiter", LONG).await;
    let newcomer = held(fixture.acquire("newcomer", Duration::ZERO).await);
    assert_eq!(newcomer, lease);
    // Past the engine, so that no request is woken: the lease is free, but not for the newcomer.
    fixture.store.release(&name(), lease.token).await.expect("the store works");
    let newcomer = held(fixture.acquire("newcomer", Duration::ZERO).await);
    assert_eq!(newcomer.holder.as_str(), "waiter");
    assert_eq!(acquired(ended(waiter).await).token, newcomer.token);
}

#[tokio::test]
async fn a_holder_takes_its_lease_over_only_when_it_says_so() {
    let fixture = Fixture::new();
    let lease = fixture.take("me").await;
    let waiter = fixture.queue("waiter", LONG).await;
    assert_eq!(held(fixture.acquire("me", Duration::ZERO).await), lease);
    assert_eq!(held(fixture.take_over("other").await), lease);
    let again = acquired(fixture.take_over("me").await);
    assert!(again.token > lease.token);
    assert!(!waiter.is_finished());
    waiter.abort();
}

#[tokio::test]
async fn a_takeover_of_a_lease_that_was_released_meanwhile_does_not_pass_the_queue() {
    let fixture = Arc::new(Fixture::new());
    let lease = fixture.take("me").await;
    let waiter = fixture.queue("waiter", LONG).await;
    fixture.store.hold_back.store(true, Ordering::SeqCst);
    let other = Arc::clone(&fixture);
    let again = tokio::spawn(async move { other.take_over("me").await });
    fixture.store.granted.notified().await;
    fixture.store.hold_back.store(false, Ordering::SeqCst);
    fixture.release(&lease).await;
    fixture.store.go_on.notify_one();
    let next = acquired(ended(waiter).await);
    assert_eq!(next.holder.as_str(), "waiter");
    assert_eq!(held(ended(again).await), next);
}

#[tokio::test]
async fn a_release_and_a_shortening_renewal_wake_the_first_of_the_queue() {
    let mut fixture = Fixture::new();
    // Nothing but a wake-up makes the waiters look before this test has failed.
    Arc::get_mut(&mut fixture.engine).expect("not shared yet").poll = 2 * DEADLINE;
    let lease = fixture.take("first").await;
    let waiter = fixture.queue("waiter", LONG).await;
    fixture.until_looked().await;
    fixture.release(&lease).await;
    let lease = acquired(ended(waiter).await);
    let waiter = fixture.queue("next", LONG).await;
    fixture.until_looked().await;
    let short = Duration::from_millis(1);
    let renewed = fixture.engine.renew(&name(), lease.token, Some(short)).await;
    assert!(renewed.expect("the store works").is_some());
    fixture.clock.advance(2 * short);
    assert_eq!(acquired(ended(waiter).await).holder.as_str(), "next");
}

#[tokio::test]
async fn a_lease_that_expires_goes_to_the_first_of_the_queue() {
    let fixture = Fixture::new();
    let lease = fixture.take("first").await;
    let waiter = fixture.queue("waiter", LONG).await;
    fixture.clock.advance(TTL);
    assert!(acquired(ended(waiter).await).token > lease.token);
}

#[tokio::test]
async fn a_wait_that_ends_returns_the_holder() {
    let fixture = Fixture::new();
    let lease = fixture.take("first").await;
    let outcome = fixture.acquire("waiter", Duration::from_millis(20)).await;
    assert_eq!(held(outcome), lease);
    assert_eq!(fixture.engine.queues.length(&name()), 0);
}

#[tokio::test]
async fn a_waiter_that_disconnects_is_never_granted() {
    let fixture = Fixture::new();
    let lease = fixture.take("first").await;
    let gone = fixture.queue("gone", LONG).await;
    let stays = fixture.queue("stays", LONG).await;
    gone.abort();
    fixture.until_length(2 - 1).await;
    fixture.release(&lease).await;
    let next = acquired(ended(stays).await);
    assert_eq!((next.holder.as_str(), next.token.0), ("stays", lease.token.0 + 1));
}

#[tokio::test]
async fn a_grant_whose_waiter_disconnects_meanwhile_is_released() {
    let fixture = Fixture::new();
    fixture.store.hold_back.store(true, Ordering::SeqCst);
    let gone = fixture.queue("gone", Duration::ZERO).await;
    fixture.store.granted.notified().await;
    fixture.store.hold_back.store(false, Ordering::SeqCst);
    let stays = fixture.queue("stays", LONG).await;
    gone.abort();
    assert!(gone.await.expect_err("was aborted").is_cancelled());
    let granted = fixture.store.get(&name()).await.expect("the store works").expect("was granted");
    assert_eq!(granted.holder.as_str(), "gone");
    fixture.store.go_on.notify_one();
    assert_eq!(acquired(ended(stays).await).holder.as_str(), "stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_a_thousand_waiters_is_granted_once() {
    let fixture = Arc::new(Fixture::new());
    let lease = fixture.take("first").await;
    let (served, mut order) = mpsc::unbounded_channel();
    let tasks: Vec<_> = (0..1_000)
        .map(|n| {
            let (fixture, served) = (Arc::clone(&fixture), served.clone());
            tokio::spawn(async move {
                let lease = acquired(fixture.acquire(&format!("waiter {n}"), LONG).await);
                served.send(lease.token).expect("is awaited");
                fixture.release(&lease).await;
            })
        })
        .collect();
    drop(served);
    fixture.release(&lease).await;
    for task in tasks {
        ended(task).await;
    }
    let mut tokens = Vec::new();
    while let Some(token) = order.recv().await {
        tokens.push(token);
    }
    assert_eq!(tokens.len(), 1_000);
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "one after the other");
    assert_eq!(fixture.engine.queues.length(&name()), 0);
}
