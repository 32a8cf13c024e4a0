//! A million steps of tasks that read, make values slowly, and invalidate: no lookup may give a
//! value that is older than a bump which was acknowledged before it began. The same steps over a
//! cache that is deleted from instead do find such values: so they would show.

use std::collections::HashMap;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdall::engine::cache::FillRequest;
use holdall::engine::{Engine, EngineSettings};
use holdall::model::cache::{CacheKey, ContentType, FillToken, Namespace};
use holdall::model::generations::{GenerationKey, Seen};
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open};
use holdall::store::{CacheAddress, CachePut, PutOutcome, StoreSettings};
use parking_lot::Mutex;

use crate::conformance::fixture::Random;

const KEYS: usize = 64;
const TASKS: u64 = 8;
const STEPS: usize = 500_000;
/// One step of so many invalidates.
const INVALIDATES: usize = 40;
const STEPS_WITHOUT_FENCES: usize = 100_000;

/// What the value of one key is made from.
#[derive(Default)]
struct Source {
    version: AtomicU64,
    /// The last version whose invalidation was acknowledged.
    acknowledged: AtomicU64,
}

/// What tasks have seen.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    hits: u64,
    misses: u64,
    stale: u64,
    refused: u64,
    invalidations: u64,
}

/// A cache under test. A value is the version of the source that it was made from.
enum Cache {
    /// holdall's, where a value is put with the fence that was seen before it was made.
    Fenced(Box<Engine>),
    /// One that forgets a value when its source has changed, and sets what it is given.
    Deleted(Mutex<HashMap<usize, u64>>),
}

/// What somebody who found nothing needs for a put.
struct Miss {
    seen: Option<Seen>,
    fill: Option<FillToken>,
}

fn address(key: usize) -> CacheAddress {
    let namespace = Namespace::parse("n").expect("valid");
    CacheAddress {
        key: CacheKey::parse(namespace, format!("value {key}")).expect("valid"),
        generation_key: GenerationKey::parse(format!("source {key}")).expect("valid"),
    }
}

impl Cache {
    async fn get(&self, key: usize, waits: bool) -> Result<u64, Miss> {
        const LONG: Duration = Duration::from_secs(30);
        match self {
            Self::Fenced(engine) => {
                let wish = waits.then_some(FillRequest { ttl: LONG, wait: LONG });
                let lookup = engine.cache.get(&address(key), wish).await.expect("works");
                let generation = lookup.generation;
                lookup.value.map(|value| version_in(&value.bytes)).map_err(|miss| Miss {
                    seen: Some(Seen::Fence(generation.fence)),
                    fill: miss.fill.map(|fill| fill.token),
                })
            }
            Self::Deleted(values) => {
                values.lock().get(&key).copied().ok_or(Miss { seen: None, fill: None })
            }
        }
    }

    /// Returns whether the value was taken.
    async fn put(&self, key: usize, version: u64, miss: Miss) -> bool {
        match self {
            Self::Fenced(engine) => {
                let outcome = engine.cache.put(CachePut {
                    address: address(key),
                    seen: miss.seen.expect("a lookup tells it"),
                    bytes: Bytes::copy_from_slice(&version.to_le_bytes()),
                    content_type: ContentType::default(),
                    ttl: Duration::from_secs(3600),
                    fill: miss.fill,
                });
                match outcome.await {
                    Ok(PutOutcome::Stored(_)) => true,
                    Ok(PutOutcome::Moved(_)) => false,
                    other => panic!("{other:?}"),
                }
            }
            Self::Deleted(values) => {
                values.lock().insert(key, version);
                true
            }
        }
    }

    async fn invalidate(&self, key: usize) {
        match self {
            Self::Fenced(engine) => {
                let keys = vec![address(key).generation_key];
                engine.generations.bump(keys).await.expect("works");
            }
            Self::Deleted(values) => drop(values.lock().remove(&key)),
        }
    }
}

fn version_in(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

struct World {
    cache: Cache,
    sources: Vec<Source>,
}

impl World {
    async fn step(&self, random: &mut Random, tally: &mut Tally) {
        // Some keys are asked for by everybody.
        let key = random.below(KEYS).min(random.below(KEYS));
        let source = &self.sources[key];
        if random.below(INVALIDATES) == 0 {
            let version = source.version.fetch_add(1, Ordering::SeqCst) + 1;
            self.cache.invalidate(key).await;
            source.acknowledged.fetch_max(version, Ordering::SeqCst);
            tally.invalidations += 1;
            return;
        }
        let acknowledged = source.acknowledged.load(Ordering::SeqCst);
        match self.cache.get(key, random.below(2) == 0).await {
            Ok(version) => {
                tally.hits += 1;
                tally.stale += u64::from(version < acknowledged);
            }
            Err(miss) => {
                tally.misses += 1;
                let version = source.version.load(Ordering::SeqCst);
                slowly(random).await;
                tally.refused += u64::from(!self.cache.put(key, version, miss).await);
            }
        }
    }

    async fn run(self: &Arc<Self>, steps: usize) -> Tally {
        let tasks: Vec<_> = (0..TASKS)
            .map(|seed| {
                let world = Arc::clone(self);
                tokio::spawn(async move {
                    let (mut random, mut tally) = (Random::from(seed), Tally::default());
                    for step in 0..steps / usize::try_from(TASKS).expect("small") {
                        world.step(&mut random, &mut tally).await;
                        if step % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    tally
                })
            })
            .collect();
        let mut sum = Tally::default();
        for task in tasks {
            let tally = task.await.expect("does not panic");
            sum.hits += tally.hits;
            sum.misses += tally.misses;
            sum.stale += tally.stale;
            sum.refused += tally.refused;
            sum.invalidations += tally.invalidations;
        }
        sum
    }
}

/// Making a value takes a while, in which others go on.
async fn slowly(random: &mut Random) {
    for _ in 0..random.below(4) {
        tokio::task::yield_now().await;
        for _ in 0..random.below(200) {
            spin_loop();
        }
    }
}

fn world(cache: Cache) -> Arc<World> {
    let sources = (0..KEYS).map(|_| Source::default()).collect();
    Arc::new(World { cache, sources })
}

async fn no_lookup_is_stale(settings: EmbeddedSettings) {
    let (stores, clock) = open(&settings, &StoreSettings::for_tests()).expect("opens");
    let operation = Arc::clone(&stores.operation);
    let engine = Engine::new(stores, EngineSettings::default(), clock);
    let world = world(Cache::Fenced(Box::new(engine)));
    let tally = world.run(STEPS).await;
    eprintln!("{tally:?}");
    assert_eq!(tally.stale, 0, "{tally:?}");
    assert!(tally.hits > STEPS as u64 / 2, "few are found: {tally:?}");
    assert!(tally.refused > 0, "no put was too late: {tally:?}");
    assert!(tally.invalidations > STEPS as u64 / 50, "{tally:?}");
    operation.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_steps_in_memory_find_nothing_stale() {
    no_lookup_is_stale(EmbeddedSettings::in_memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_steps_on_files_find_nothing_stale() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Some(folder.path().to_owned());
    no_lookup_is_stale(EmbeddedSettings { path, sync: SyncMode::Normal }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_steps_without_fences_find_what_is_stale() {
    let tally = world(Cache::Deleted(Mutex::default())).run(STEPS_WITHOUT_FENCES).await;
    eprintln!("{tally:?}");
    assert!(tally.stale > 0, "the steps show nothing: {tally:?}");
}

/// The interleaving itself, step by step.
#[tokio::test]
async fn who_is_too_late_is_refused_with_a_fence_and_not_without() {
    let (stores, clock) =
        open(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests()).expect("opens");
    let engine = Engine::new(stores, EngineSettings::default(), clock);
    for (cache, takes) in
        [(Cache::Fenced(Box::new(engine)), false), (Cache::Deleted(Mutex::default()), true)]
    {
        let Err(miss) = cache.get(0, false).await else { panic!("it is empty") };
        cache.invalidate(0).await;
        assert_eq!(cache.put(0, 0, miss).await, takes);
        assert_eq!(cache.get(0, false).await.is_ok(), takes);
    }
}
