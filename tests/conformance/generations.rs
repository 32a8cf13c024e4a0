//! What every store of generations must do.
//!
//! What a fence is worth shows in a put that carries it; so the cache takes part.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdall::model::generations::{Generation, GenerationFence, GenerationKey, Seen};
use holdall::store::{GenerationStore, PutOutcome};

use super::cache::{address, put};
use super::fixture::Fixture;

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            an_unknown_key_is_zero_and_its_first_bump_returns_one,
            bumps_of_many_tasks_are_all_counted,
            a_batch_raises_each_key_once,
            a_snapshot_is_in_the_order_of_its_keys,
            generations_of_any_key_survive_a_restart,
            a_cleanup_removes_keys_not_bumped_for_the_retention,
            a_cleanup_of_many_keys_misses_none,
            a_fence_holds_until_its_key_is_bumped,
            a_fence_of_a_key_that_is_bumped_survives_the_cleanup_of_others,
            a_fence_never_holds_again_after_a_cleanup,
            a_fence_never_holds_again_after_a_restart,
            a_fence_never_holds_again_on_a_wiped_store,
            a_fence_never_holds_again_on_a_restored_store,
            bumps_that_race_with_cleanups_end_every_fence,
        }
    };
}
pub(super) use cases;

const RETENTION: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn key(key: &str) -> GenerationKey {
    GenerationKey::parse(key).expect("valid")
}

pub(super) async fn bump(store: &Arc<dyn GenerationStore>, name: &str) -> Generation {
    bump_many(store, &[name]).await[0]
}

async fn bump_many(store: &Arc<dyn GenerationStore>, names: &[&str]) -> Vec<Generation> {
    let keys = names.iter().map(|name| key(name)).collect();
    store.bump(keys).await.expect("the store works")
}

pub(super) async fn snapshot(store: &Arc<dyn GenerationStore>, name: &str) -> Generation {
    snapshot_many(store, &[name]).await[0]
}

async fn snapshot_many(store: &Arc<dyn GenerationStore>, names: &[&str]) -> Vec<Generation> {
    let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
    store.snapshot(&keys).await.expect("the store works")
}

fn numbers(generations: &[Generation]) -> Vec<i64> {
    generations.iter().map(|generation| generation.number).collect()
}

/// Returns whether a put takes this fence.
async fn holds(fixture: &Fixture, name: &str, fence: GenerationFence) -> bool {
    let address = address("fences", name);
    match put(&fixture.stores.cache, &address, Seen::Fence(fence), "v").await {
        PutOutcome::Stored(_) => true,
        PutOutcome::Moved(_) => false,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn an_unknown_key_is_zero_and_its_first_bump_returns_one(fixture: Fixture) {
    let store = &fixture.stores.generations;
    let missing = snapshot(store, "a").await;
    assert_eq!(missing.number, 0);
    let first = bump(store, "a").await;
    assert_eq!(first.number, 1);
    assert_ne!(first.fence, missing.fence);
    assert_eq!(snapshot(store, "a").await, first, "an acknowledged bump is visible");
    assert_eq!(bump(store, "a").await.number, 2);
    assert_eq!(snapshot(store, "b").await.number, 0);
}

pub(super) async fn bumps_of_many_tasks_are_all_counted(fixture: Fixture) {
    const TASKS: i64 = 8;
    const BUMPS: i64 = 100;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = Arc::clone(&fixture.stores.generations);
            tokio::spawn(async move {
                let own = format!("own {task}");
                let mut given = Vec::new();
                for n in 0..BUMPS {
                    let generation = match n % 2 {
                        0 => bump(&store, "hot").await,
                        _ => bump_many(&store, &[&own, "hot", &own]).await[1],
                    };
                    let stands = snapshot(&store, "hot").await;
                    assert!(stands.number >= generation.number, "an acknowledged bump is visible");
                    given.push(generation);
                }
                given
            })
        })
        .collect();
    let (mut given, mut fences) = (HashSet::new(), HashSet::new());
    for task in tasks {
        for generation in task.await.expect("does not panic") {
            assert!(given.insert(generation.number), "{} was given twice", generation.number);
            assert!(fences.insert(generation.fence), "{} was given twice", generation.fence);
        }
    }
    assert_eq!(given, (1..=TASKS * BUMPS).collect());
    for task in 0..TASKS {
        let own = snapshot(&fixture.stores.generations, &format!("own {task}")).await;
        assert_eq!(own.number, BUMPS / 2);
    }
}

pub(super) async fn a_batch_raises_each_key_once(fixture: Fixture) {
    let store = &fixture.stores.generations;
    bump(store, "b").await;
    let bumped = bump_many(store, &["a", "b", "c", "a", "b"]).await;
    assert_eq!(numbers(&bumped), [1, 2, 1, 1, 2]);
    assert_eq!(bumped[0], bumped[3]);
    assert_eq!(bumped[1], bumped[4]);
    assert_eq!(snapshot_many(store, &["a", "b", "c"]).await, bumped[..3]);
    assert!(store.bump(Vec::new()).await.expect("the store works").is_empty());
}

pub(super) async fn a_snapshot_is_in_the_order_of_its_keys(fixture: Fixture) {
    let store = &fixture.stores.generations;
    bump_many(store, &["c", "a"]).await;
    bump(store, "a").await;
    let seen = snapshot_many(store, &["a", "missing", "c", "a"]).await;
    assert_eq!(numbers(&seen), [2, 0, 1, 2]);
    assert_eq!(seen[0], seen[3]);
    assert!(store.snapshot(&[]).await.expect("the store works").is_empty());
}

pub(super) async fn generations_of_any_key_survive_a_restart(fixture: Fixture) {
    let long = "k".repeat(1024);
    let keys = ["a/b", "a", "a\0", "\"a\"", " a", "ä", "A", "{a}", &long];
    for (n, name) in keys.iter().enumerate() {
        for _ in 0..=n {
            bump(&fixture.stores.generations, name).await;
        }
    }
    let before = snapshot_many(&fixture.stores.generations, &keys).await;
    assert_eq!(numbers(&before), (1..=9).collect::<Vec<_>>());
    let status = fixture.stores.operation.status().await.expect("the store works");
    assert_eq!(status.entries("generations"), 9);
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    let after = snapshot_many(&fixture.stores.generations, &keys).await;
    assert_eq!(numbers(&after), numbers(&before));
    assert_eq!(bump(&fixture.stores.generations, "a/b").await.number, 2);
}

pub(super) async fn a_cleanup_removes_keys_not_bumped_for_the_retention(fixture: Fixture) {
    let store = &fixture.stores.generations;
    bump_many(store, &["old", "again"]).await;
    fixture.pass(RETENTION / 2).await;
    bump_many(store, &["again", "young"]).await;
    let cleanup = async || store.cleanup(RETENTION).await.expect("the store works");
    assert_eq!(cleanup().await, 0);
    fixture.pass(RETENTION / 2).await;
    // Reads are not bumps.
    for _ in 0..3 {
        snapshot_many(store, &["old", "young"]).await;
    }
    assert_eq!(cleanup().await, 1);
    assert_eq!(cleanup().await, 0);
    let left = snapshot_many(store, &["old", "again", "young"]).await;
    assert_eq!(numbers(&left), [0, 2, 1]);
    fixture.pass(RETENTION / 2).await;
    assert_eq!(cleanup().await, 2);
    assert_eq!(
        fixture.stores.operation.status().await.expect("the store works").entries("generations"),
        0
    );
    assert_eq!(bump(store, "again").await.number, 1, "what was forgotten starts again");
}

pub(super) async fn a_cleanup_of_many_keys_misses_none(fixture: Fixture) {
    const KEYS: usize = 5_000;
    let store = &fixture.stores.generations;
    let names: Vec<_> = (0..KEYS).map(|n| key(&format!("{n:05}"))).collect();
    store.bump(names.clone()).await.expect("the store works");
    fixture.pass(RETENTION).await;
    let young: Vec<_> = names.iter().step_by(3).cloned().collect();
    store.bump(young.clone()).await.expect("the store works");
    let forgotten = store.cleanup(RETENTION).await.expect("the store works");
    assert_eq!(forgotten, (KEYS - young.len()) as u64);
    let left = store.snapshot(&names).await.expect("the store works");
    for (n, generation) in left.iter().enumerate() {
        assert_eq!(generation.number, if n % 3 == 0 { 2 } else { 0 }, "{n}");
    }
}

pub(super) async fn a_fence_holds_until_its_key_is_bumped(fixture: Fixture) {
    let store = &fixture.stores.generations;
    let missing = snapshot(store, "a").await.fence;
    assert!(holds(&fixture, "a", missing).await);
    bump(store, "other").await;
    assert!(holds(&fixture, "a", missing).await, "it is another key's bump");
    let first = bump(store, "a").await.fence;
    assert!(!holds(&fixture, "a", missing).await);
    assert!(holds(&fixture, "a", first).await);
    let second = bump_many(store, &["b", "a"]).await[1].fence;
    assert!(!holds(&fixture, "a", first).await);
    assert!(holds(&fixture, "a", second).await);
    assert!(!holds(&fixture, "a", missing).await);
    // One that was not given by anybody.
    assert!(!holds(&fixture, "a", GenerationFence(i64::MAX)).await);
    assert!(!holds(&fixture, "a", GenerationFence(0)).await);
}

pub(super) async fn a_fence_of_a_key_that_is_bumped_survives_the_cleanup_of_others(
    fixture: Fixture,
) {
    let store = &fixture.stores.generations;
    bump(store, "old").await;
    fixture.pass(RETENTION).await;
    let kept = bump(store, "kept").await;
    assert_eq!(store.cleanup(RETENTION).await.expect("the store works"), 1);
    assert_eq!(snapshot(store, "kept").await, kept);
    assert!(holds(&fixture, "kept", kept.fence).await);
}

/// The fences of a key before its bump: of a key that is missing, and of one that is known.
async fn outdated(fixture: &Fixture) -> Vec<GenerationFence> {
    let store = &fixture.stores.generations;
    let missing = snapshot(store, "a").await.fence;
    let first = bump(store, "a").await.fence;
    bump(store, "a").await;
    vec![missing, first]
}

async fn none_holds(fixture: &Fixture, fences: &[GenerationFence]) {
    for fence in fences {
        assert!(!holds(fixture, "a", *fence).await, "{fence} holds again");
    }
}

pub(super) async fn a_fence_never_holds_again_after_a_cleanup(fixture: Fixture) {
    let store = &fixture.stores.generations;
    let fences = outdated(&fixture).await;
    let last = snapshot(store, "a").await.fence;
    fixture.pass(RETENTION).await;
    assert_eq!(store.cleanup(RETENTION).await.expect("the store works"), 1);
    assert_eq!(snapshot(store, "a").await.number, 0);
    none_holds(&fixture, &fences).await;
    // The same number as before, and not the same fence.
    for number in 1..=2 {
        let generation = bump(store, "a").await;
        assert_eq!(generation.number, number);
        assert!(!fences.contains(&generation.fence) && generation.fence != last);
        none_holds(&fixture, &fences).await;
        none_holds(&fixture, &[last]).await;
    }
}

pub(super) async fn a_fence_never_holds_again_after_a_restart(fixture: Fixture) {
    let mut fences = outdated(&fixture).await;
    let last = bump(&fixture.stores.generations, "a").await.fence;
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    none_holds(&fixture, &fences).await;
    // Not even when the key is removed by a later run than the one that returned the fence.
    fixture.pass(RETENTION).await;
    let forgotten = fixture.stores.generations.cleanup(RETENTION).await;
    assert_eq!(forgotten.expect("the store works"), 1);
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    none_holds(&fixture, &fences).await;
    fences.push(last);
    for _ in 0..4 {
        let generation = bump(&fixture.stores.generations, "a").await;
        assert!(!fences.contains(&generation.fence), "{} was given twice", generation.fence);
        none_holds(&fixture, &fences).await;
    }
}

pub(super) async fn a_fence_never_holds_again_on_a_wiped_store(fixture: Fixture) {
    let fences = outdated(&fixture).await;
    let fixture = fixture.wipe().await;
    none_holds(&fixture, &fences).await;
    for number in 1..=3 {
        let generation = bump(&fixture.stores.generations, "a").await;
        assert_eq!(generation.number, number);
        assert!(!fences.contains(&generation.fence), "{} was given twice", generation.fence);
        none_holds(&fixture, &fences).await;
    }
}

/// The copy does not know of bumps that came after it.
pub(super) async fn a_fence_never_holds_again_on_a_restored_store(fixture: Fixture) {
    bump(&fixture.stores.generations, "a").await;
    let (fixture, Some(backup)) = fixture.back_up().await else { return };
    let mut fences = vec![snapshot(&fixture.stores.generations, "a").await.fence];
    for _ in 0..3 {
        fences.push(bump(&fixture.stores.generations, "a").await.fence);
    }
    let last = fences.pop().expect("some");
    let fixture = fixture.restore(&backup).await;
    assert_eq!(snapshot(&fixture.stores.generations, "a").await.number, 1, "it is the copy");
    none_holds(&fixture, &fences).await;
    fences.push(last);
    for number in 2..=5 {
        let generation = bump(&fixture.stores.generations, "a").await;
        assert_eq!(generation.number, number);
        assert!(!fences.contains(&generation.fence), "{} was given twice", generation.fence);
        none_holds(&fixture, &fences).await;
    }
}

/// A cleanup that meets a bump forgets the key before it, or not at all.
pub(super) async fn bumps_that_race_with_cleanups_end_every_fence(fixture: Fixture) {
    const BUMPS: usize = 300;
    const CLEANED: u64 = 20;
    let stop = tokio_util::sync::CancellationToken::new();
    let forgotten = Arc::new(AtomicU64::new(0));
    let cleaner = {
        let (store, stop) = (Arc::clone(&fixture.stores.generations), stop.clone());
        let forgotten = Arc::clone(&forgotten);
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let keys = store.cleanup(Duration::ZERO).await.expect("the store works");
                forgotten.fetch_add(keys, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    };
    let mut given = HashSet::new();
    let store = &fixture.stores.generations;
    let deadline = Instant::now() + DEADLINE;
    // On a busy machine the cleaner may not run until many bumps are over.
    for n in 0.. {
        let cleaned = forgotten.load(Ordering::Relaxed);
        if n >= BUMPS && cleaned >= CLEANED {
            break;
        }
        assert!(Instant::now() < deadline, "{n} bumps met only {cleaned} forgotten keys");
        let name = ["a", "b"][n % 2];
        let before = snapshot(store, name).await;
        let bumped = bump(store, name).await;
        assert!(given.insert((name, bumped.fence)), "{} was given twice", bumped.fence);
        assert!(!holds(&fixture, name, before.fence).await, "{before:?} holds after {bumped:?}");
        fixture.pass(Duration::from_micros(1)).await;
    }
    stop.cancel();
    cleaner.await.expect("does not panic");
}
