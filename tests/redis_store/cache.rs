//! The cache and its generations over several replicas on one Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdall::clock::{ManualClock, SharedClock};
use holdall::model::cache::{CacheKey, CachedValue, ContentType, MissReason, Namespace};
use holdall::model::generations::{Generation, GenerationKey, Seen};
use holdall::model::time::Timestamp;
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{
    CacheAddress, CachePut, CacheRead, CacheSettings, FillOutcome, PutOutcome, StoreSettings,
    Stores,
};

use super::{replica, replica_at, store_settings};
use crate::harness::redis::{self, Redis};
use crate::harness::rng::Rng;

const LONG: Duration = Duration::from_secs(3600);

pub(super) fn generation_key(name: &str) -> GenerationKey {
    GenerationKey::parse(name).expect("valid")
}

pub(super) fn address(namespace: &str, key: &str) -> CacheAddress {
    let namespace = Namespace::parse(namespace).expect("valid");
    let key_of_value = CacheKey::parse(namespace, key).expect("valid");
    CacheAddress { key: key_of_value, generation_key: generation_key(key) }
}

pub(super) fn a_put(address: &CacheAddress, seen: Seen, bytes: impl Into<Bytes>) -> CachePut {
    CachePut {
        address: address.clone(),
        seen,
        bytes: bytes.into(),
        content_type: ContentType::default(),
        ttl: LONG,
        fill: None,
    }
}

pub(super) async fn put(
    stores: &Stores,
    address: &CacheAddress,
    seen: Seen,
    bytes: impl Into<Bytes>,
) -> PutOutcome {
    stores.cache.put(a_put(address, seen, bytes)).await.expect("the store works")
}

pub(super) async fn read(stores: &Stores, address: &CacheAddress) -> CacheRead {
    let mut reads = stores.cache.get(std::slice::from_ref(address)).await.expect("it works");
    reads.pop().expect("one answer")
}

async fn get(stores: &Stores, address: &CacheAddress) -> Result<Arc<CachedValue>, MissReason> {
    read(stores, address).await.value
}

pub(super) async fn bump(stores: &Stores, name: &str) -> Generation {
    let bumped = stores.generations.bump(vec![generation_key(name)]).await;
    bumped.expect("the store works")[0]
}

pub(super) async fn snapshot(stores: &Stores, name: &str) -> Generation {
    let keys = [generation_key(name)];
    stores.generations.snapshot(&keys).await.expect("the store works")[0]
}

/// Puts what was made just now.
pub(super) async fn fill(stores: &Stores, address: &CacheAddress, bytes: impl Into<Bytes>) {
    let seen = Seen::Fence(snapshot(stores, address.generation_key.as_str()).await.fence);
    let outcome = put(stores, address, seen, bytes).await;
    assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
}

fn of_one_server(namespace: &str) -> [Stores; 2] {
    let urls = [redis::shared().to_owned()];
    [replica(&urls, namespace), replica(&urls, namespace)]
}

/// A source of truth: the versions that were written, and those whose bump was answered.
#[derive(Default)]
struct Source {
    written: [AtomicU64; SOURCES],
    bumped: [AtomicU64; SOURCES],
}

const SOURCES: usize = 5;
const NAMES: [&str; SOURCES] = ["a", "b", "c", "d", "e"];

impl Source {
    async fn invalidate(self: Arc<Self>, stores: Stores, mut rng: Rng) {
        for _ in 0..400 {
            let one = pick(&mut rng);
            let version = self.written[one].fetch_add(1, Ordering::SeqCst) + 1;
            bump(&stores, NAMES[one]).await;
            self.bumped[one].fetch_max(version, Ordering::SeqCst);
            pause(&mut rng, 20).await;
        }
    }

    /// Looks up, and fills what is missing, slowly: what was read from the source may be outdated by
    /// the time it is put. Gives how many values were found.
    async fn read(self: Arc<Self>, stores: Stores, mut rng: Rng) -> usize {
        let mut hits = 0;
        for _ in 0..1_500 {
            let one = pick(&mut rng);
            let (at, bumped) = (address("values", NAMES[one]), &self.bumped[one]);
            let before = bumped.load(Ordering::SeqCst);
            let looked = read(&stores, &at).await;
            if let Ok(value) = looked.value {
                let version = u64::from_le_bytes(value.bytes[..].try_into().expect("a version"));
                assert!(version >= before, "{version} after {before} was answered");
                hits += 1;
                continue;
            }
            let version = self.written[one].load(Ordering::SeqCst);
            pause(&mut rng, 30).await;
            let seen = Seen::Fence(looked.generation.fence);
            put(&stores, &at, seen, version.to_le_bytes().to_vec()).await;
        }
        hits
    }
}

fn pick(rng: &mut Rng) -> usize {
    usize::try_from(rng.below(SOURCES as u64)).expect("small")
}

async fn pause(rng: &mut Rng, most: u64) {
    for _ in 0..rng.below(most) {
        tokio::task::yield_now().await;
    }
}

async fn nobody_reads_what_is_stale(replicas: [Stores; 2]) {
    let mut rng = Rng::from_environment();
    let source = Arc::new(Source::default());
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for stores in &replicas {
        let writer = Arc::clone(&source).invalidate(stores.clone(), rng.split());
        writers.push(tokio::spawn(writer));
        for _ in 0..3 {
            let reader = Arc::clone(&source).read(stores.clone(), rng.split());
            readers.push(tokio::spawn(reader));
        }
    }
    let cleaner = {
        let stores = replicas[0].clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let forgotten = stores.generations.cleanup(Duration::from_millis(5)).await;
                forgotten.expect("the store works");
                tokio::task::yield_now().await;
            }
        })
    };
    for task in writers {
        task.await.expect("does not panic");
    }
    cleaner.await.expect("does not panic");
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.expect("nothing stale was read");
    }
    assert!(hits > 300, "{hits} values were found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_gives_a_value_that_another_one_ended() {
    nobody_reads_what_is_stale(of_one_server("stale")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_of_a_cluster_gives_a_value_that_another_one_ended() {
    let urls = redis::shared_cluster();
    nobody_reads_what_is_stale([replica(urls, "stale"), replica(urls, "stale")]).await;
}

#[tokio::test]
async fn a_large_value_of_any_bytes_is_found_by_the_other_replica() {
    let [one, other] = of_one_server("large");
    let mut rng = Rng::from_environment();
    let bytes: Vec<u8> =
        (0..1 << 20).map(|_| u8::try_from(rng.below(256)).expect("small")).collect();
    let at = address("n\0{}\r\n:", "k\0\r\n 1:");
    fill(&one, &at, bytes.clone()).await;
    let found = get(&other, &at).await.expect("is there");
    assert!(found.bytes == bytes, "the bytes are not what was put");
    bump(&other, at.generation_key.as_str()).await;
    assert_eq!(get(&one, &at).await, Err(MissReason::Stale));
}

#[tokio::test]
async fn a_fill_has_one_claimant_over_all_replicas() {
    let [one, other] = of_one_server("claims");
    let at = address("n", "k");
    let claimed = async |stores: &Stores| stores.cache.claim_fill(&at.key, LONG).await;
    let FillOutcome::Granted { token, expires_at } = claimed(&one).await.expect("it works") else {
        panic!("no caller has the claim");
    };
    let held = claimed(&other).await.expect("it works");
    assert_eq!(held, FillOutcome::Held { expires_at });
    fill(&other, &at, "v").await;
    assert!(!one.cache.end_fill(&at.key, token).await.expect("it works"), "the value ended it");
    let again = claimed(&other).await.expect("it works");
    assert!(matches!(again, FillOutcome::Granted { .. }), "{again:?}");
}

#[tokio::test]
async fn replicas_together_hold_what_one_may() {
    const BYTES: usize = 1 << 20;
    let cache =
        CacheSettings { max_bytes: BYTES, namespace_max_bytes: BYTES / 2, max_namespaces: 10 };
    let urls = [redis::shared().to_owned()];
    let settings = RedisSettings::for_tests(&urls, "bounds");
    let store = StoreSettings { cache, ..store_settings() };
    let replicas = [(); 2].map(|()| open(&settings, &store).expect("sensible"));
    for n in 0..600 {
        let namespace = ["a", "b", "c"][n % 3];
        fill(&replicas[n % 2], &address(namespace, &format!("{n}")), vec![0; 8 << 10]).await;
        let held = replicas[0].operation.status().await.expect("it works").bytes("cache");
        assert!(held <= BYTES as u64, "{held} bytes are held");
        if n < 180 && namespace == "a" {
            // Used over and over, it stays.
            for _ in 0..3 {
                assert!(n < 3 || get(&replicas[0], &address("a", "0")).await.is_ok(), "{n}");
            }
        }
    }
    let held = replicas[1].operation.status().await.expect("it works").bytes("cache");
    assert!(held >= BYTES as u64 * 3 / 4, "{held} bytes are held");
    assert_eq!(get(&replicas[1], &address("a", "3")).await, Err(MissReason::Evicted));
}

/// What is counted is what Redis needs, so that a bound protects its memory.
#[tokio::test]
async fn what_is_counted_is_what_redis_uses() {
    const VALUES: usize = 2_000;
    let server = Redis::start(&[]);
    let stores = replica(&[server.url()], "memory");
    fill(&stores, &address("n", "first"), "v").await;
    let used = || -> u64 {
        let info = server.cli(&["info", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).expect("redis tells")
    };
    let before = used();
    for n in 0..VALUES {
        let at = address("namespace", &format!("page/of/a/usual/length/{n}"));
        put(&stores, &at, Seen::Number(0), vec![7; 100]).await;
    }
    let uses = used() - before;
    let counted = stores.operation.status().await.expect("it works").bytes("cache");
    assert!(uses <= counted * 5 / 4, "{uses} bytes are used, {counted} counted");
    assert!(uses >= counted / 3, "{uses} bytes are used, {counted} counted");
}

#[tokio::test]
async fn what_is_over_leaves_nothing_behind() {
    const MANY: usize = 1_000;
    let server = Redis::start(&[]);
    let start = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
    let clock = Arc::new(ManualClock::at(start));
    let shared = Arc::clone(&clock) as SharedClock;
    let stores = replica_at(&[server.url()], "over", shared);
    let ttl = Duration::from_secs(1);
    for n in 0..MANY {
        let at = address("n", &format!("{n}"));
        let put = CachePut { ttl, ..a_put(&at, Seen::Number(0), "v") };
        stores.cache.put(put).await.expect("it works");
        stores.cache.claim_fill(&at.key, ttl).await.expect("it works");
    }
    let young = address("n", "young");
    fill(&stores, &young, "v").await;
    bump(&stores, "bumped").await;
    clock.advance(ttl);
    let collected = stores.operation.collect_garbage().await.expect("it works");
    assert_eq!(collected, 2 * MANY as u64);
    assert_eq!(stores.operation.collect_garbage().await.expect("it works"), 0);
    let status = stores.operation.status().await.expect("it works");
    assert_eq!((status.entries("cache"), status.entries("generations")), (1, 1));
    assert_eq!(get(&stores, &address("n", "0")).await, Err(MissReason::Expired));
    assert!(stores.cache.delete(&young.key).await.expect("it works"));
    clock.advance(ttl);
    assert_eq!(stores.generations.cleanup(ttl).await.expect("it works"), 1);
    let keys = server.cli(&["--scan"]);
    let ours = |key: &&str| ["cache", "fill", "generation"].iter().any(|word| key.contains(word));
    let left: Vec<&str> =
        keys.lines().filter(ours).filter(|key| !key.ends_with(":cache_miss_reasons")).collect();
    assert!(left.is_empty(), "{left:?}");
    let status = stores.operation.status().await.expect("it works");
    assert_eq!(
        (status.entries("cache"), status.bytes("cache"), status.entries("generations")),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_full_redis_is_looked_up_as_always() {
    let server = Redis::start(&[]);
    let stores = replica(&[server.url()], "full");
    let (held, other) = (address("n", "held"), address("n", "other"));
    fill(&stores, &held, "v").await;
    assert!(get(&stores, &other).await.is_err());
    server.cli(&["config", "set", "maxmemory", "1"]);
    for _ in 0..5 {
        assert_eq!(&get(&stores, &held).await.expect("it is held").bytes[..], b"v");
        assert!(get(&stores, &other).await.is_err());
    }
}
