//! The cache of the embedded store, without HTTP: lookups and puts on one thread and on two, and
//! how much of a skewed load it can serve when it holds only a part of the values.
//!
//! `cargo bench --bench cache` prints operations a second and the ratio of hits; it fails when that
//! ratio is far below what the best choice of what to hold would reach. Argument: seconds for each
//! measurement (2).

#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdall::model::cache::{CacheKey, ContentType, MissReason, Namespace};
use holdall::model::generations::{GenerationFence, GenerationKey, Seen};
use holdall::store::embedded::{EmbeddedSettings, open};
use holdall::store::{CacheAddress, CachePut, PutOutcome, Stores};
use holdall::store::{CacheSettings, StoreSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TTL: Duration = Duration::from_secs(3600);
/// The values that lookups and puts go to in turn.
const VALUES: usize = 1000;
/// The values of the skewed load, and how skewed it is: that of YCSB's.
const RANKS: usize = 100_000;
const SKEW: f64 = 0.99;
const RANKED_BYTES: usize = 744;
/// What an entry takes of the cache beside its value, in bytes: names, and a lump sum.
const ABOUT_ENTRY_BYTES: usize = 280;
const LOOKUPS: usize = 1_000_000;
/// The least part of the best ratio of hits.
const LEAST_OF_BEST: f64 = 0.85;

#[derive(Debug, Clone, Copy)]
enum Work {
    Hits,
    Misses,
    Puts,
}

fn open_stores(max_bytes: usize) -> Stores {
    let cache =
        CacheSettings { max_bytes, namespace_max_bytes: max_bytes, ..CacheSettings::default() };
    let settings = StoreSettings { cache, ..StoreSettings::for_tests() };
    open(&EmbeddedSettings::in_memory(), &settings).expect("opens").0
}

fn address(namespace: &Namespace, number: usize) -> CacheAddress {
    let name = format!("value {number}");
    CacheAddress {
        key: CacheKey::parse(namespace.clone(), &*name).expect("valid"),
        generation_key: GenerationKey::parse(name).expect("valid"),
    }
}

fn addresses(namespace: &str, count: usize) -> Vec<CacheAddress> {
    let namespace = Namespace::parse(namespace).expect("valid");
    (0..count).map(|number| address(&namespace, number)).collect()
}

/// The fence of every key, as none is ever bumped here.
async fn fence(stores: &Stores) -> GenerationFence {
    let key = GenerationKey::parse("any").expect("valid");
    stores.generations.snapshot(&[key]).await.expect("works")[0].fence
}

async fn put(stores: &Stores, address: &CacheAddress, bytes: &Bytes, fence: GenerationFence) {
    let put = CachePut {
        address: address.clone(),
        seen: Seen::Fence(fence),
        bytes: bytes.clone(),
        content_type: ContentType::default(),
        ttl: TTL,
        fill: None,
    };
    let outcome = stores.cache.put(put).await.expect("works");
    assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
}

/// Looks one value up; tells whether it was there.
async fn get(stores: &Stores, address: &CacheAddress) -> bool {
    let reads = stores.cache.get(std::slice::from_ref(address)).await.expect("works");
    match &reads[0].value {
        Ok(_) => true,
        Err(MissReason::Absent | MissReason::Evicted) => false,
        Err(reason) => panic!("nothing was bumped, nothing expired: {reason:?}"),
    }
}

async fn call(stores: &Stores, work: Work, bytes: &Bytes, stop: &AtomicBool) -> usize {
    let held = addresses("held", VALUES);
    let others = addresses("held", 2 * VALUES).split_off(VALUES);
    let fence = fence(stores).await;
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = done % VALUES;
        match work {
            Work::Hits => assert!(get(stores, &held[at]).await),
            Work::Misses => assert!(!get(stores, &others[at]).await),
            Work::Puts => put(stores, &held[at], bytes, fence).await,
        }
        done += 1;
    }
    done
}

fn measure(name: &str, work: Work, bytes: usize, threads: usize, seconds: u64) {
    let stores = open_stores(256 << 20);
    let bytes = Bytes::from(vec![b'v'; bytes]);
    block_on(async {
        let fence = fence(&stores).await;
        for address in &addresses("held", VALUES) {
            put(&stores, address, &bytes, fence).await;
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let (stores, stop, bytes) = (stores.clone(), Arc::clone(&stop), bytes.clone());
            std::thread::spawn(move || block_on(call(&stores, work, &bytes, &stop)))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    let count = threads.len();
    let done: usize = threads.into_iter().map(|thread| thread.join().expect("ends")).sum();
    let rate = done as f64 / start.elapsed().as_secs_f64();
    println!("{name:22} {count} threads {rate:11.0} ops/s, {:.2} us", 1e6 / rate * count as f64);
}

/// How probable each rank is, summed up to it.
fn cumulated() -> Vec<f64> {
    let mut sum = 0.0;
    let weights = (1..=RANKS).map(|rank| {
        sum += (rank as f64).powf(-SKEW);
        sum
    });
    let sums: Vec<f64> = weights.collect();
    sums.iter().map(|part| part / sum).collect()
}

/// Fills what is not there, as clients do, with room for `held` of all values.
async fn skewed(held: usize, cumulated: &[f64]) {
    let stores = open_stores(held * (RANKED_BYTES + ABOUT_ENTRY_BYTES));
    let bytes = Bytes::from(vec![b'v'; RANKED_BYTES]);
    let (addresses, fence) = (addresses("skewed", RANKS), fence(&stores).await);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut hits, start) = (0, Instant::now());
    for lookup in 0..2 * LOOKUPS {
        // xorshift64: good enough to draw ranks, and the same in each run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let drawn = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = cumulated.partition_point(|sum| *sum < drawn).min(RANKS - 1);
        if get(&stores, &addresses[rank]).await {
            // The first half only fills the cache.
            hits += usize::from(lookup >= LOOKUPS);
        } else {
            put(&stores, &addresses[rank], &bytes, fence).await;
        }
    }
    let rate = (2 * LOOKUPS) as f64 / start.elapsed().as_secs_f64();
    let (ratio, best) = (hits as f64 / LOOKUPS as f64, cumulated[held - 1]);
    let status = stores.operation.status().await.expect("reports");
    println!(
        "zipf {SKEW}, room for {held:6} of {RANKS}: hit ratio {ratio:.3}, best {best:.3}, {:.0} % of it, {} held, {rate:.0} ops/s",
        ratio / best * 100.0,
        status.entries("cache"),
    );
    assert!(ratio >= best * LEAST_OF_BEST, "the cache holds the wrong values");
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(2);
    for threads in [1, 2] {
        for (name, work, bytes) in [
            ("get hit, 100 B", Work::Hits, 100),
            ("get hit, 10 KiB", Work::Hits, 10 << 10),
            ("get miss", Work::Misses, 100),
            ("put, 100 B", Work::Puts, 100),
            ("put, 10 KiB", Work::Puts, 10 << 10),
        ] {
            measure(name, work, bytes, threads, seconds);
        }
    }
    let cumulated = cumulated();
    for held in [RANKS / 100, RANKS / 10] {
        block_on(skewed(held, &cumulated));
    }
}
