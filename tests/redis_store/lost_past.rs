//! A Redis that lost what it had acknowledged: wiped, killed, restored, or taken over by a replica
//! that had not everything. No fence of before holds, no value of before is true.

use holdall::model::cache::MissReason;
use holdall::model::generations::{GenerationFence, Seen};
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{CacheSettings, PutOutcome, StoreSettings, Stores};

use super::cache::{address, bump, fill, generation_key, put, read, snapshot};
use super::{replica, store_settings};
use crate::harness::eventually;
use crate::harness::redis::{Cluster, Redis};

const NAMESPACE: &str = "past";
const SHARDS: usize = 4;
/// Enough keys that all shards hold some.
const KEYS: usize = 40;
const CACHE_BYTES: usize = 1 << 20;

fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("key {n}"))
}

/// Fences that should never hold again, with their keys: of keys before their bump and after it.
async fn fences(stores: &Stores) -> Vec<(String, GenerationFence)> {
    let mut fences = Vec::new();
    for name in names() {
        fences.push((name.clone(), snapshot(stores, &name).await.fence));
        fences.push((name.clone(), bump(stores, &name).await.fence));
    }
    fences
}

async fn none_holds(stores: &Stores, fences: &[(String, GenerationFence)]) {
    for (name, fence) in fences {
        let outcome = put(stores, &address("fences", name), Seen::Fence(*fence), "v").await;
        assert!(matches!(outcome, PutOutcome::Moved(_)), "{name} {fence}: {outcome:?}");
    }
}

/// Checks that the fences don't hold, now and when other keys have moved on, and that new ones do.
async fn begins_anew(stores: &Stores, fences: &[(String, GenerationFence)]) {
    none_holds(stores, fences).await;
    let others: Vec<_> = (0..500).map(|n| generation_key(&format!("other {n}"))).collect();
    stores.generations.bump(others).await.expect("the store works");
    none_holds(stores, fences).await;
    for name in names() {
        let before = snapshot(stores, &name).await;
        let given = |fence| fences.contains(&(name.clone(), fence));
        assert!(!given(before.fence), "{name}: {} was given twice", before.fence);
        fill(stores, &address("new", &name), "v").await;
        assert!(read(stores, &address("new", &name)).await.value.is_ok());
        let bumped = bump(stores, &name).await;
        assert!(bumped.fence > before.fence && !given(bumped.fence));
        let looked = read(stores, &address("new", &name)).await.value;
        assert_eq!(looked, Err(MissReason::Stale));
    }
    none_holds(stores, fences).await;
}

/// What the shards know of themselves.
fn infos(server: &Redis, field: &str) -> Vec<String> {
    let key = |shard| format!("{{{NAMESPACE}:{shard}}}:info");
    (0..SHARDS).map(|shard| server.cli(&["hget", &key(shard), field]).trim().to_owned()).collect()
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Waits until both lines to Redis are back.
async fn works(stores: &Stores) {
    eventually("redis is there again", async || stores.operation.ready().await.ok()).await;
    let looks = async || stores.cache.get(&[address("values", "any")]).await.ok();
    eventually("redis gives values again", looks).await;
}

#[tokio::test]
async fn no_fence_holds_after_a_flush() {
    let server = Redis::start(&[]);
    let stores = replica(&[server.url()], NAMESPACE);
    let fences = fences(&stores).await;
    fill(&stores, &address("values", "key 0"), "old").await;
    server.cli(&["flushall"]);
    let looked = read(&stores, &address("values", "key 0")).await;
    assert_eq!((looked.value, looked.generation.number), (Err(MissReason::Absent), 0));
    begins_anew(&stores, &fences).await;
}

/// Without a file nothing is left; with one, what had reached it.
async fn no_fence_holds_after_a_crash(options: &[&str]) {
    let mut server = Redis::start(options);
    let replicas = [
        replica(&[server.url()], NAMESPACE),
        replica(&[server.url()], NAMESPACE),
        replica(&[server.url()], NAMESPACE),
    ];
    let fences = fences(&replicas[0]).await;
    for name in names() {
        fill(&replicas[0], &address("values", &name), "old").await;
    }
    let epochs = infos(&server, "epoch");
    server.kill();
    server.run();
    // Nobody asked the guard: the first to come notices. But the lines have to come back.
    for stores in &replicas {
        let ask = async || stores.generations.snapshot(&[generation_key("a")]).await.ok();
        eventually("redis is there again", ask).await;
    }
    for name in names() {
        let looked = read(&replicas[1], &address("values", &name)).await;
        assert!(looked.value.is_err(), "{name}: {looked:?}");
    }
    begins_anew(&replicas[2], &fences).await;
    let now = infos(&server, "epoch");
    assert!(now.iter().zip(&epochs).all(|(now, before)| now != before), "{now:?} {epochs:?}");
}

#[tokio::test]
async fn no_fence_holds_after_a_crash_without_a_file() {
    no_fence_holds_after_a_crash(&[]).await;
}

#[tokio::test]
async fn no_fence_holds_after_a_crash_with_a_log() {
    no_fence_holds_after_a_crash(&["--appendonly", "yes"]).await;
}

#[tokio::test]
async fn no_fence_holds_on_a_restored_dump() {
    let mut server = Redis::start(&[]);
    let stores = replica(&[server.url()], NAMESPACE);
    let mut given = fences(&stores).await;
    for name in names() {
        fill(&stores, &address("values", &name), "old").await;
    }
    // Read at start, since nothing is saved after it.
    assert_eq!(server.cli(&["save"]).trim(), "OK");
    let past =
        ["epoch", "run_id", "last_bump", "minimum_fence", "last_token"].map(|f| infos(&server, f));
    given.extend(fences(&stores).await);
    server.kill();
    server.run();
    works(&stores).await;
    let now =
        ["epoch", "run_id", "last_bump", "minimum_fence", "last_token"].map(|f| infos(&server, f));
    for shard in 0..SHARDS {
        for field in 0..2 {
            assert_ne!(now[field][shard], past[field][shard], "shard {shard}");
        }
        for field in 2..5 {
            let (now, past) = (number(&now[field][shard]), number(&past[field][shard]));
            assert!(now > past, "shard {shard}: {now} after {past}");
        }
    }
    for name in names() {
        let looked = read(&stores, &address("values", &name)).await;
        assert_eq!(looked.value, Err(MissReason::Stale), "it was bumped after the copy");
        assert_eq!(looked.generation.number, 1, "it is the copy");
    }
    begins_anew(&stores, &given).await;
}

/// Of many replicas that notice, one starts the new epoch; no other starts while the server stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_epoch_checks_start_one_epoch() {
    let mut server = Redis::start(&["--appendonly", "yes"]);
    let urls = [server.url()];
    let replicas: Vec<Stores> = (0..8).map(|_| replica(&urls, NAMESPACE)).collect();
    let mut before = Vec::new();
    for round in 0..3 {
        works(&replicas[0]).await;
        let epochs = infos(&server, "epoch");
        assert!(!epochs.contains(&String::new()) && !before.contains(&epochs), "round {round}");
        before.push(epochs);
        server.kill();
        server.run();
        let seen = replicas.iter().map(async |stores| {
            works(stores).await;
            snapshot(stores, "a").await.fence
        });
        let seen = futures_util::future::join_all(seen).await;
        assert!(seen.iter().all(|fence| *fence == seen[0]), "{seen:?}");
    }
}

/// A replica of a cluster's master takes over, with or without all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fence_of_a_master_holds_under_its_successor() {
    let cluster = Cluster::start();
    let stores = replica(cluster.urls(), NAMESPACE);
    let given = fences(&stores).await;
    for name in names() {
        fill(&stores, &address("values", &name), "old").await;
    }
    // The first of the three, which has the first third of the slots: that of `past:3`, 1822, and not
    // that of `past:0`, 14205.
    let master = cluster.a_master();
    let moved = |name: &String, fence: GenerationFence| {
        let (stores, at) = (&stores, address("fences", name));
        async move {
            let outcome = put(stores, &at, Seen::Fence(fence), "v").await;
            matches!(outcome, PutOutcome::Moved(_))
        }
    };
    cluster.kill(master);
    works(&stores).await;
    let (mut ended, mut kept) = (0, 0);
    for (name, fence) in given.iter().skip(1).step_by(2) {
        let looked = read(&stores, &address("values", name)).await.value;
        let is_moved = moved(name, *fence).await;
        assert_eq!(looked.is_err(), is_moved, "{name}: {looked:?}");
        if is_moved { ended += 1 } else { kept += 1 }
    }
    assert!(ended > 0 && kept > 0, "{ended} ended, {kept} kept");
    let before: Vec<_> = given.iter().step_by(2).cloned().collect();
    none_holds(&stores, &before).await;
}

/// A Redis that was told to make room by dropping keys, or somebody who deletes some.
#[tokio::test]
async fn no_fence_holds_when_single_keys_are_lost() {
    let server = Redis::start(&[]);
    let cache = CacheSettings {
        max_bytes: CACHE_BYTES,
        namespace_max_bytes: CACHE_BYTES / 2,
        max_namespaces: 8,
    };
    let settings = RedisSettings::for_tests(&[server.url()], NAMESPACE);
    let store = StoreSettings { cache, ..store_settings() };
    let stores = open(&settings, &store).expect("sensible");
    let keys = [
        "info",
        "generations",
        "generation_bumps",
        "cache",
        "cache_values",
        "cache_ends",
        "cache_namespaces",
        "cache_queue:values",
        "cache_miss_reasons",
    ];
    let mut given = Vec::new();
    for lost in keys {
        given.extend(fences(&stores).await);
        for name in names() {
            // One that a bump ended, and one that stands.
            fill(&stores, &address("values", &name), "old").await;
            bump(&stores, &name).await;
            fill(&stores, &address("standing", &name), "v").await;
        }
        for shard in 0..SHARDS {
            let key = format!("{{{NAMESPACE}:{shard}}}:{lost}");
            assert_eq!(server.cli(&["del", &key]).trim(), "1", "{key}");
        }
        for name in names() {
            let looked = read(&stores, &address("values", &name)).await.value;
            assert!(looked.is_err(), "{lost} {name}: {looked:?}");
        }
        begins_anew(&stores, &given).await;
        // And the bounds hold as before.
        for n in 0..200 {
            let namespace = ["values", "new"][n % 2];
            fill(&stores, &address(namespace, &format!("{n}")), vec![0; 8 << 10]).await;
        }
        stores.operation.collect_garbage().await.expect("the store works");
        let held = stores.operation.status().await.expect("it works").bytes("cache");
        assert!(held <= CACHE_BYTES as u64, "{lost}: {held} bytes are held");
        assert!(held >= CACHE_BYTES as u64 / 2, "{lost}: {held} bytes are held");
    }
}
