//! Which Redis is asked: only a master serves, and one that comes back after another had taken over starts a new
//! epoch, though its process never ended.

use holdall::model::generations::{GenerationFence, Seen};
use holdall::store::{ErrorKind, PutOutcome, StoreResult, Stores};

use super::cache::{address, bump, fill, generation_key, put, read, snapshot};
use super::replica;
use super::replica::name;
use crate::harness::eventually;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;

const NAMESPACE: &str = "masters";
/// Enough keys that all shards have some.
const KEYS: usize = 40;

fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("key {n}"))
}

/// A master, its replica, and a store that reaches one of them.
struct Pair {
    old: Redis,
    new: Redis,
    proxy: Proxy,
    stores: Stores,
}

impl Pair {
    /// Starts both, with a value and a fence for each key that the replica has as well.
    async fn start() -> (Self, Vec<(String, GenerationFence)>) {
        let (old, new) = (Redis::start(&[]), Redis::start(&[]));
        let proxy = Proxy::to(old.port()).await;
        let stores = replica(&[proxy.url()], NAMESPACE);
        let mut fences = Vec::new();
        for name in names() {
            fences.push((name.clone(), bump(&stores, &name).await.fence));
            fill(&stores, &address("values", &name), "old").await;
        }
        new.cli(&["replicaof", "127.0.0.1", &old.port().to_string()]);
        let key = format!("{{{NAMESPACE}:0}}:info");
        eventually("the replica has the data", async || {
            (new.cli(&["exists", &key]).trim() == "1").then_some(())
        })
        .await;
        (Self { old, new, proxy, stores }, fences)
    }

    /// Leads the store to one of them, and waits until it has noticed.
    async fn lead_to(&self, redis: &Redis) {
        let connections = |redis: &Redis| redis.cli(&["client", "list"]).lines().count();
        self.proxy.lead_to(redis.port());
        eventually("both connections are new", async || {
            for name in names() {
                self.stores.generations.snapshot(&[generation_key(&name)]).await.ok()?;
                self.stores.cache.get(&[address("values", &name)]).await.ok()?;
            }
            (connections(redis) >= 3).then_some(())
        })
        .await;
    }

    async fn has_nothing_of_the_past(&self, fences: &[(String, GenerationFence)]) {
        for (name, fence) in fences {
            let looked = read(&self.stores, &address("values", name)).await.value;
            assert!(looked.is_err(), "{name}: {looked:?}");
            let put = put(&self.stores, &address("fences", name), Seen::Fence(*fence), "v").await;
            assert!(matches!(put, PutOutcome::Moved(_)), "{name}: {put:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_that_is_back_returns_no_value_that_its_successor_saw_bumped() {
    let (pair, mut fences) = Pair::start().await;
    pair.new.cli(&["replicaof", "no", "one"]);
    pair.lead_to(&pair.new).await;
    for name in names() {
        fences.push((name.clone(), bump(&pair.stores, &name).await.fence));
    }
    pair.lead_to(&pair.old).await;
    pair.has_nothing_of_the_past(&fences).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_that_is_back_is_in_a_new_epoch_whatever_its_numbers() {
    let (pair, fences) = Pair::start().await;
    pair.new.cli(&["replicaof", "no", "one"]);
    pair.lead_to(&pair.new).await;
    // The check of a second sees the epoch that the new master started. Its numbers may well be lower afterwards.
    pair.stores.operation.ready().await.expect("the store works");
    pair.proxy.lead_to(pair.old.port());
    for shard in 0..4 {
        let key = format!("{{{NAMESPACE}:{shard}}}:info");
        let far = "9000000000000000";
        pair.old.cli(&["hset", &key, "last_bump", far, "last_token", far]);
    }
    pair.lead_to(&pair.old).await;
    pair.has_nothing_of_the_past(&fences).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_tokens_went_back_while_its_process_stayed_starts_a_new_epoch() {
    let (pair, _) = Pair::start().await;
    pair.stores.operation.ready().await.expect("the store works");
    let before = snapshot(&pair.stores, "key 0").await.fence;
    // As if its file was loaded again, from before the last tokens.
    for shard in 0..4 {
        let key = format!("{{{NAMESPACE}:{shard}}}:info");
        pair.old.cli(&["hincrby", &key, "last_token", "-1"]);
    }
    let after = snapshot(&pair.stores, "key 0").await.fence;
    assert!(after > before, "{after} after {before}");
}

/// Asks for everything that can be read or written.
async fn ask(stores: &Stores) -> Vec<(&'static str, StoreResult<()>)> {
    let key = || generation_key("key 0");
    let after = stores.series.cursor().await;
    vec![
        ("cursor", after.map(drop)),
        ("generations", stores.generations.snapshot(&[key()]).await.map(drop)),
        ("bump", stores.generations.bump(vec![key()]).await.map(drop)),
        ("cached value", stores.cache.get(&[address("values", "key 0")]).await.map(drop)),
        ("lease", stores.leases.get(&name("leader")).await.map(drop)),
        ("leases", stores.leases.list(None, 10).await.map(drop)),
        ("checkpoints", stores.checkpoints.list(None, None, 10).await.map(drop)),
        ("status", stores.operation.status().await.map(drop)),
        ("snapshot", stores.series.snapshot(&[], None, 10).await.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_redis_and_a_master_without_replicas_serve_nothing() {
    let (pair, _) = Pair::start().await;
    for (name, asked) in ask(&pair.stores).await {
        asked.unwrap_or_else(|error| panic!("{name}: {}", error.with_causes()));
    }
    let refused = async || {
        // It begins with the server's next look at itself.
        eventually("the server is not ready", async || {
            pair.stores.operation.ready().await.is_err().then_some(())
        })
        .await;
        for (name, asked) in ask(&pair.stores).await {
            let error = asked.expect_err(name);
            assert_eq!(error.kind, ErrorKind::Unavailable, "{name}: {}", error.with_causes());
        }
    };
    pair.old.cli(&["config", "set", "min-replicas-to-write", "2"]);
    refused().await;
    pair.old.cli(&["config", "set", "min-replicas-to-write", "0"]);
    let works = async || {
        eventually("it works again", async || {
            ask(&pair.stores).await.iter().all(|(_, asked)| asked.is_ok()).then_some(())
        })
        .await;
    };
    works().await;
    pair.new.cli(&["replicaof", "no", "one"]);
    pair.old.cli(&["replicaof", "127.0.0.1", &pair.new.port().to_string()]);
    refused().await;
    // The address leads to the new master: the connections to the old one were given up by themselves.
    pair.old.cli(&["replicaof", "no", "one"]);
    works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_serves_reads_and_refuses_writes_as_full() {
    let (pair, _) = Pair::start().await;
    pair.old.cli(&["config", "set", "maxmemory", "1"]);
    for (name, asked) in ask(&pair.stores).await {
        match (name, asked) {
            ("bump", asked) => assert_eq!(asked.expect_err("it is full").kind, ErrorKind::Full),
            (_, asked) => asked.unwrap_or_else(|error| panic!("{name}: {}", error.with_causes())),
        }
    }
}
