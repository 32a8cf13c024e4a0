//! Aggregates of several replicas on one Redis: each update counts once, whoever sends it where, and whatever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::redis::Redis;
use crate::harness::rng::Rng;
use crate::harness::{Client, Launch, Server};

const PIPELINES: &str = "[pipelines.events]\nkind = \"sum\"\ndedup = \"1h\"\n[pipelines.batches]\nkind = \"count\"\ndedup = \"1h\"\n";
const WORKERS: u64 = 8;
/// The events of one round, each sent by several workers.
const EVENTS: u64 = 40;
const ROUNDS: u64 = 60;

fn replica(redis: &Redis) -> Launch {
    Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__URL", &redis.url())
        .env("HOLDALL_STORE__REDIS__INDEX_SHARDS", "4")
        .env("HOLDALL_STORE__REDIS__TIMEOUT", "1s")
        .config(PIPELINES)
}

/// The update of an event: most events of a round are about one entity.
fn event(number: u64) -> Value {
    let entity =
        if number.is_multiple_of(3) { format!("e{}", number % 7) } else { "hot".to_owned() };
    json!({"entity": entity, "delta": number % 11, "event_id": format!("event-{number}")})
}

/// Sends a merge to one replica or the other until one has merged it.
async fn until_merged(replicas: &[Client], rng: &mut Rng, pipeline: &str, body: &Value) {
    let path = format!("/v1/aggregates/{pipeline}/merge");
    let merged = async {
        loop {
            let to = usize::try_from(rng.below(2)).expect("small");
            match replicas[to].try_post(&path, body).await {
                Some(response) if response.status == 200 => return,
                Some(response) => assert_eq!(response.status, 503, "{}", response.text()),
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), merged).await.expect("merged at last");
}

/// Sends events that others send as well, and numbered batches. Returns the numbers of the events, and how much its
/// batches count.
async fn work(replicas: [Client; 2], worker: u64, mut rng: Rng) -> (BTreeSet<u64>, u64) {
    let (mut sent, mut counted) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        let numbers: Vec<u64> = (0..20).map(|_| round / 4 * EVENTS + rng.below(EVENTS)).collect();
        let updates: Vec<_> = numbers.iter().map(|number| event(*number)).collect();
        until_merged(&replicas, &mut rng, "events", &json!({ "updates": updates })).await;
        sent.extend(numbers);
        // Some batches have more updates than one step of a shard.
        let size = if rng.below(10) == 0 { 2500 } else { 1 + rng.below(20) };
        let updates: Vec<_> = (0..size)
            .map(|_| json!({"entity": format!("b{}", rng.below(30)), "delta": 1}))
            .collect();
        let batch =
            json!({"updates": updates, "producer": format!("worker-{worker}"), "seq": round});
        until_merged(&replicas, &mut rng, "batches", &batch).await;
        counted += size;
    }
    (sent, counted)
}

async fn totals(server: &Server, pipeline: &str) -> BTreeMap<String, u64> {
    let page = server.get(&format!("/v1/aggregates/{pipeline}?limit=1000")).await.expect(200);
    let rows = page["aggregates"].as_array().expect("a page");
    let row = |row: &Value| {
        let entity = row["entity"].as_str().expect("an entity").to_owned();
        (entity, row["value"].as_u64().expect("a total"))
    };
    rows.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_update_counts_once_while_connections_are_cut_and_redis_stalls() {
    let redis = Redis::start(&[]);
    let mut rng = Rng::from_environment();
    let servers = [replica(&redis).start().await, replica(&redis).start().await];
    let outcomes = Arc::new(Mutex::new((BTreeSet::new(), 0)));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let clients = servers.each_ref().map(|server| server.client());
        let (outcomes, rng) = (Arc::clone(&outcomes), rng.split());
        workers.spawn(async move {
            let (sent, counted) = work(clients, worker, rng).await;
            let mut outcomes = outcomes.lock();
            outcomes.0.extend(sent);
            outcomes.1 += counted;
        });
    }
    let done = CancellationToken::new();
    let faults = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50 + rng.below(300))).await;
            if rng.below(3) == 0 {
                redis.pause(true);
                tokio::time::sleep(Duration::from_millis(200 + rng.below(1500))).await;
                redis.pause(false);
            } else {
                redis.cli(&["client", "kill", "type", "normal"]);
            }
        }
    };
    let worked = async {
        while let Some(ended) = workers.join_next().await {
            ended.expect("no worker fails");
        }
        done.cancel();
    };
    tokio::join!(done.run_until_cancelled(faults), worked);
    redis.pause(false);
    let (sent, counted) = std::mem::take(&mut *outcomes.lock());
    let mut expected = BTreeMap::new();
    for number in sent {
        let update = event(number);
        let entity = update["entity"].as_str().expect("an entity").to_owned();
        *expected.entry(entity).or_insert(0) += number % 11;
    }
    assert_eq!(totals(&servers[0], "events").await, expected);
    assert_eq!(totals(&servers[1], "batches").await.values().sum::<u64>(), counted);
}
