//! Tests of the cache engine, over the store in memory.

mod counting;
mod single_flight;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{CacheEngine, CacheLookup, CacheRules, FillClaim, FillRequest};
use crate::clock::SharedClock;
use crate::model::cache::{CacheKey, ContentType, FillToken, MissReason, Namespace};
use crate::model::generations::{Generation, GenerationKey, Seen};
use crate::store::embedded::{EmbeddedSettings, open};
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheStore, ErrorKind, FillOutcome, PutOutcome, StoreError,
    StoreResult, Stores,
};
use crate::store::{CacheSettings, StoreSettings};

/// Longer than any test waits: a waiter that only this time would end was not woken.
const LONG: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const MAX_VALUE_BYTES: usize = 1000;

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A store that counts its calls, and lets a test do something before and after a claim.
struct Watched {
    inner: Arc<dyn CacheStore>,
    gets: AtomicUsize,
    claims: watch::Sender<usize>,
    before_claim: Mutex<Option<Hook>>,
    after_claim: Mutex<Option<Hook>>,
    fails_to_put: AtomicBool,
}

#[async_trait]
impl CacheStore for Watched {
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.get(addresses).await
    }

    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome> {
        if self.fails_to_put.swap(false, Ordering::SeqCst) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the test makes it fail"));
        }
        self.inner.put(put).await
    }

    async fn delete(&self, key: &CacheKey) -> StoreResult<bool> {
        self.inner.delete(key).await
    }

    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        let before = self.before_claim.lock().take();
        if let Some(hook) = before {
            hook().await;
        }
        let outcome = self.inner.claim_fill(key, ttl).await;
        self.claims.send_modify(|claims| *claims += 1);
        let after = self.after_claim.lock().take();
        if let Some(hook) = after {
            hook().await;
        }
        outcome
    }

    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool> {
        self.inner.end_fill(key, token).await
    }
}

struct Fixture {
    engine: Arc<CacheEngine>,
    store: Arc<Watched>,
    stores: Stores,
    clock: SharedClock,
}

impl Fixture {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(shared: bool) -> Self {
        let cache = CacheSettings { max_namespaces: 2, ..CacheSettings::default() };
        let settings = StoreSettings { cache, ..StoreSettings::for_tests() };
        let (stores, clock) = open(&EmbeddedSettings::in_memory(), &settings).expect("opens");
        let store = Arc::new(Watched {
            inner: Arc::clone(&stores.cache),
            gets: AtomicUsize::new(0),
            claims: watch::Sender::new(0),
            before_claim: Mutex::default(),
            after_claim: Mutex::default(),
            fails_to_put: AtomicBool::new(false),
        });
        let rules = CacheRules { max_value_bytes: MAX_VALUE_BYTES, ..CacheRules::default() };
        let seen_by_engine = Arc::clone(&store) as _;
        let engine = CacheEngine::new(seen_by_engine, rules, Arc::clone(&clock), shared);
        Self { engine: Arc::new(engine), store, stores, clock }
    }

    async fn get(&self, fill: Option<FillRequest>) -> CacheLookup {
        self.engine.get(&address(), fill).await.expect("the store works")
    }

    /// Looks the value up in the background, and waits for it.
    fn look_up(&self) -> JoinHandle<CacheLookup> {
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            engine.get(&address(), patient(LONG)).await.expect("the store works")
        })
    }

    /// Gets the fill claim for `ttl`.
    async fn claim(&self, ttl: Duration) -> (CacheLookup, FillClaim) {
        let miss = self.get(Some(FillRequest { ttl, wait: Duration::ZERO })).await;
        let claim = claim_in(&miss).expect("the claim is free");
        (miss, claim)
    }

    /// Waits until the store was asked for so many claims.
    async fn claims(&self, count: usize) {
        let mut claims = self.store.claims.subscribe();
        let there = claims.wait_for(|claims| *claims >= count);
        drop(soon(there).await.expect("the store is there"));
    }

    async fn bump(&self) {
        let key = address().generation_key;
        self.stores.generations.bump(vec![key]).await.expect("the store works");
    }

    fn put(&self, bytes: &[u8], seen: Seen, fill: Option<FillClaim>) -> CachePut {
        CachePut {
            address: address(),
            seen,
            bytes: Bytes::copy_from_slice(bytes),
            content_type: ContentType::default(),
            ttl: LONG,
            fill: fill.map(|fill| fill.token),
        }
    }

    /// Puts a value, which must be stored.
    async fn stored(&self, put: CachePut) {
        let outcome = self.engine.put(put).await.expect("the store works");
        assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
    }

    /// Puts a value, which must be refused because its generation has moved.
    async fn refused_as_moved(&self, put: CachePut) -> Generation {
        match self.engine.put(put).await.expect("the store works") {
            PutOutcome::Moved(now) => now,
            outcome => panic!("{outcome:?}"),
        }
    }

    /// Returns the hits and the misses of the namespace.
    fn counted(&self) -> (u64, [u64; 4]) {
        let totals = self.engine.totals().of(&address().key.namespace);
        (totals.hits(), MissReason::ALL.map(|reason| totals.misses(reason)))
    }
}

fn address() -> CacheAddress {
    let namespace = Namespace::parse("n").expect("valid");
    CacheAddress {
        key: CacheKey::parse(namespace, "k").expect("valid"),
        generation_key: GenerationKey::parse("source").expect("valid"),
    }
}

fn patient(ttl: Duration) -> Option<FillRequest> {
    Some(FillRequest { ttl, wait: LONG })
}

fn claim_in(found: &CacheLookup) -> Option<FillClaim> {
    found.value.as_ref().err().and_then(|miss| miss.fill)
}

fn seen(found: &CacheLookup) -> Seen {
    Seen::Fence(found.generation.fence)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("ends in time")
}

async fn outcome(lookup: JoinHandle<CacheLookup>) -> CacheLookup {
    soon(lookup).await.expect("does not panic")
}

fn bytes_of(found: &CacheLookup) -> &[u8] {
    &found.value.as_ref().expect("is there").bytes
}
