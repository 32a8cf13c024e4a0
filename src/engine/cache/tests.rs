//! Who makes a value, who waits for it and how lookups are counted, over the store in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{CacheEngine, CacheLookup, CacheRules, Fill, FillWish, Miss};
use crate::clock::SharedClock;
use crate::engine::{EngineError, EngineResult};
use crate::model::cache::{CacheKey, CachedValue, ContentType, FillToken, MissReason, Namespace};
use crate::model::generations::{GenerationKey, Seen};
use crate::store::CacheSettings;
use crate::store::embedded::{EmbeddedSettings, open};
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheStore, ErrorKind, FillOutcome, PutOutcome, StoreError,
    StoreResult, Stores,
};

/// Longer than any test waits: who is woken by this time only, was not woken.
const LONG: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const MAX_VALUE_BYTES: usize = 1000;

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A store that tells what it was asked, and where something can happen in between.
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
            return Err(StoreError::new(ErrorKind::Unavailable, "as the test wants it"));
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
        let settings = EmbeddedSettings { cache, ..EmbeddedSettings::in_memory() };
        let (stores, clock) = open(&settings).expect("opens");
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

    async fn get(&self, wish: Option<FillWish>) -> CacheLookup {
        self.engine.get(&address(), wish).await.expect("the store works")
    }

    /// Asks for the value in the background.
    fn ask(&self) -> JoinHandle<CacheLookup> {
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            engine.get(&address(), patient(LONG)).await.expect("the store works")
        })
    }

    /// Takes the turn for `ttl`.
    async fn turn(&self, ttl: Duration) -> (CacheLookup, Fill) {
        let answer = self.get(Some(FillWish { ttl, wait: Duration::ZERO })).await;
        let fill = turn_in(&answer).expect("nobody has the turn");
        (answer, fill)
    }

    /// Waits until the store was asked for so many turns.
    async fn claims(&self, count: usize) {
        let mut claims = self.store.claims.subscribe();
        let there = claims.wait_for(|claims| *claims >= count);
        drop(soon(there).await.expect("the store is there"));
    }

    async fn bump(&self) {
        let key = address().generation_key;
        self.stores.generations.bump(vec![key]).await.expect("the store works");
    }

    fn put(&self, bytes: &[u8], seen: Seen, fill: Option<Fill>) -> CachePut {
        CachePut {
            address: address(),
            seen,
            bytes: Bytes::copy_from_slice(bytes),
            content_type: ContentType::default(),
            ttl: LONG,
            fill: fill.map(|fill| fill.token),
        }
    }

    async fn fill(&self, put: CachePut) -> EngineResult<Arc<CachedValue>> {
        self.engine.put(put).await
    }

    /// Returns the hits and misses of the namespace.
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

fn patient(ttl: Duration) -> Option<FillWish> {
    Some(FillWish { ttl, wait: LONG })
}

fn turn_in(answer: &CacheLookup) -> Option<Fill> {
    answer.value.as_ref().err().and_then(|miss| miss.fill)
}

fn seen(answer: &CacheLookup) -> Seen {
    Seen::Fence(answer.generation.fence)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("nobody waits in vain")
}

async fn answer(asked: JoinHandle<CacheLookup>) -> CacheLookup {
    soon(asked).await.expect("does not panic")
}

fn bytes_of(answer: &CacheLookup) -> &[u8] {
    &answer.value.as_ref().expect("is there").bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_makes_the_value_and_the_others_get_it() {
    const CALLERS: usize = 50;
    let fixture = Fixture::new();
    let asked: Vec<_> = (0..CALLERS).map(|_| fixture.ask()).collect();
    fixture.claims(CALLERS).await;
    let turn = soon(async {
        loop {
            if let Some(done) = asked.iter().position(JoinHandle::is_finished) {
                return done;
            }
            tokio::task::yield_now().await;
        }
    });
    let turn = turn.await;
    assert_eq!(asked.iter().filter(|asked| asked.is_finished()).count(), 1);
    let mut asked = asked;
    let miss = answer(asked.swap_remove(turn)).await;
    let put = fixture.put(b"made", seen(&miss), turn_in(&miss));
    fixture.fill(put).await.expect("nothing has moved");
    for asked in asked {
        assert_eq!(bytes_of(&answer(asked).await), b"made");
    }
    // One look before the wait and one after it, and two of the one who got the turn.
    assert_eq!(fixture.store.gets.load(Ordering::SeqCst), 2 * CALLERS);
    assert_eq!(fixture.counted(), (CALLERS as u64 - 1, [1, 0, 0, 0]));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn who_dies_while_filling_holds_nobody_up_for_longer_than_the_turn() {
    let fixture = Fixture::new();
    let (_, lost) = fixture.turn(SHORT).await;
    let next = answer(fixture.ask()).await;
    assert!(fixture.clock.now() >= lost.expires_at, "a turn is not taken away");
    let fill = turn_in(&next).expect("it is the next one's turn");
    assert_ne!(fill.token, lost.token);
}

#[tokio::test]
async fn who_waited_long_enough_is_told_what_there_is() {
    let fixture = Fixture::new();
    fixture.turn(LONG).await;
    let start = tokio::time::Instant::now();
    let answer = soon(fixture.get(Some(FillWish { ttl: LONG, wait: SHORT }))).await;
    assert!(start.elapsed() >= SHORT);
    assert_eq!(answer.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    let answer = soon(fixture.get(Some(FillWish { ttl: LONG, wait: Duration::ZERO }))).await;
    assert_eq!(answer.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    let answer = soon(fixture.get(None)).await;
    assert_eq!(answer.value, Err(Miss { reason: MissReason::Absent, fill: None }));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let (miss, turn) = fixture.turn(LONG).await;
    let asked: Vec<_> = (0..20).map(|_| fixture.ask()).collect();
    fixture.claims(21).await;
    assert_eq!(fixture.engine.waiters.len(), 1);
    for asked in &asked[1..] {
        asked.abort();
    }
    let mut asked = asked;
    let patient = asked.swap_remove(0);
    for gone in asked {
        assert!(soon(gone).await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(fixture.engine.waiters.len(), 1, "somebody still waits");
    fixture.fill(fixture.put(b"v", seen(&miss), Some(turn))).await.expect("nothing has moved");
    assert_eq!(bytes_of(&answer(patient).await), b"v");
    assert_eq!(fixture.engine.waiters.len(), 0);
}

/// Lets somebody have the turn and another one wait for it, while `end` ends it.
async fn the_turn_goes_on(fixture: &Fixture, end: impl AsyncFnOnce(CacheLookup, Fill)) {
    let (miss, turn) = fixture.turn(LONG).await;
    let claims = *fixture.store.claims.borrow();
    let asked = fixture.ask();
    fixture.claims(claims + 1).await;
    end(miss, turn).await;
    let next = answer(asked).await;
    let next_turn = turn_in(&next).expect("it is the next one's turn");
    assert_ne!(next_turn.token, turn.token);
    let put = fixture.put(b"next", seen(&next), Some(next_turn));
    fixture.fill(put).await.expect("it has seen what stands");
    fixture.engine.delete(&address().key).await.expect("it is there");
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn a_put_that_is_refused_hands_the_turn_to_who_waits() {
    let fixture = Fixture::new();
    the_turn_goes_on(&fixture, async |miss, turn| {
        fixture.bump().await;
        let refused = fixture.fill(fixture.put(b"old", seen(&miss), Some(turn))).await;
        assert!(matches!(refused, Err(EngineError::GenerationMoved(now)) if now.number == 1));
    })
    .await;
    the_turn_goes_on(&fixture, async |miss, turn| {
        let large = [0; MAX_VALUE_BYTES + 1];
        let refused = fixture.fill(fixture.put(&large, seen(&miss), Some(turn))).await;
        let limit_bytes = match refused {
            Err(EngineError::ValueTooLarge { limit_bytes }) => limit_bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(limit_bytes, MAX_VALUE_BYTES);
    })
    .await;
}

#[tokio::test]
async fn a_put_that_fails_hands_the_turn_to_who_waits() {
    let fixture = Fixture::new();
    the_turn_goes_on(&fixture, async |miss, turn| {
        fixture.store.fails_to_put.store(true, Ordering::SeqCst);
        let failed = fixture.fill(fixture.put(b"v", seen(&miss), Some(turn))).await;
        assert!(matches!(failed, Err(EngineError::Store(_))), "{failed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_delete_hands_the_turn_to_who_waits() {
    let fixture = Fixture::new();
    the_turn_goes_on(&fixture, async |_, _| {
        let absent = fixture.engine.delete(&address().key).await;
        assert!(matches!(absent, Err(EngineError::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_value_without_a_turn_reaches_who_waits() {
    let fixture = Fixture::new();
    let (miss, _) = fixture.turn(LONG).await;
    let asked = fixture.ask();
    fixture.claims(2).await;
    fixture.fill(fixture.put(b"v", seen(&miss), None)).await.expect("nothing has moved");
    assert_eq!(bytes_of(&answer(asked).await), b"v");
}

#[tokio::test]
async fn a_value_that_comes_between_the_look_and_the_turn_is_given() {
    let fixture = Fixture::new();
    let miss = fixture.get(None).await;
    let (put, inner) = (fixture.put(b"v", seen(&miss), None), Arc::clone(&fixture.store.inner));
    *fixture.store.before_claim.lock() = Some(Box::new(move || {
        Box::pin(async move { drop(inner.put(put).await.expect("the store works")) })
    }));
    assert_eq!(bytes_of(&soon(fixture.get(patient(LONG))).await), b"v");
    // And the turn that nobody needed is over.
    let claimed = fixture.store.inner.claim_fill(&address().key, LONG).await;
    assert!(matches!(claimed, Ok(FillOutcome::Granted { .. })), "{claimed:?}");
}

#[tokio::test]
async fn a_value_that_comes_just_before_the_wait_is_not_missed() {
    let fixture = Fixture::new();
    let (miss, turn) = fixture.turn(LONG).await;
    let put = fixture.put(b"v", seen(&miss), Some(turn));
    let engine = Arc::clone(&fixture.engine);
    *fixture.store.after_claim.lock() = Some(Box::new(move || {
        Box::pin(async move { drop(engine.put(put).await.expect("nothing has moved")) })
    }));
    assert_eq!(bytes_of(&soon(fixture.get(patient(LONG))).await), b"v");
}

#[tokio::test]
async fn what_another_replica_puts_is_found_though_nobody_wakes() {
    let fixture = Fixture::with(true);
    let (miss, turn) = fixture.turn(LONG).await;
    let asked = fixture.ask();
    fixture.claims(2).await;
    let put = fixture.put(b"v", seen(&miss), Some(turn));
    fixture.store.inner.put(put).await.expect("the store works");
    assert_eq!(bytes_of(&answer(asked).await), b"v");
}

#[tokio::test]
async fn every_lookup_is_counted_once_as_what_its_caller_was_told() {
    let fixture = Fixture::new();
    let absent = fixture.get(None).await;
    assert_eq!(fixture.counted(), (0, [1, 0, 0, 0]));
    let short = CachePut { ttl: Duration::from_nanos(1), ..fixture.put(b"v", seen(&absent), None) };
    fixture.fill(short).await.expect("nothing has moved");
    soon(async {
        while fixture.get(None).await.value.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (hits, misses) = fixture.counted();
    assert_eq!(misses, [1, 1, 0, 0]);
    let put = fixture.put(b"v", seen(&absent), None);
    fixture.fill(put.clone()).await.expect("nothing has moved");
    fixture.get(None).await;
    // A hit, where a turn was asked for, too.
    fixture.get(patient(LONG)).await;
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 0, 0]));
    fixture.bump().await;
    let stale = fixture.get(None).await;
    let mine = fixture.get(patient(LONG)).await;
    assert!(turn_in(&mine).is_some());
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 2, 0]));
    // Puts and refused puts are no lookups.
    assert!(fixture.fill(put).await.is_err());
    fixture.fill(fixture.put(b"w", seen(&stale), None)).await.expect("it has seen what stands");
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 2, 0]));
    let mut other = address();
    other.key.key = "other".to_owned();
    let answers = fixture.engine.get_many(&[address(), other.clone(), address(), other]).await;
    assert_eq!(answers.expect("the store works").len(), 4);
    assert_eq!(fixture.counted(), (hits + 4, [3, 1, 2, 0]));
}

#[tokio::test]
async fn a_lookup_that_fails_is_neither_hit_nor_miss() {
    let fixture = Fixture::new();
    fixture.stores.operation.close().await.expect("closes");
    assert!(fixture.engine.get(&address(), None).await.is_err());
    assert!(fixture.engine.get(&address(), patient(LONG)).await.is_err());
    assert!(fixture.engine.get_many(&[address()]).await.is_err());
    assert_eq!(fixture.counted(), (0, [0; 4]));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn what_is_not_held_is_an_error_that_says_why() {
    let fixture = Fixture::new();
    let seen = Seen::Number(0);
    for (namespace, fits) in [("1", true), ("2", true), ("3", false)] {
        let mut put = fixture.put(&[0; MAX_VALUE_BYTES], seen, None);
        put.address.key.namespace = Namespace::parse(namespace).expect("valid");
        match fixture.fill(put).await {
            Ok(_) => assert!(fits),
            Err(error) => assert!(!fits && matches!(error, EngineError::TooManyNamespaces)),
        }
    }
}
