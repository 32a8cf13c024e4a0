//! Several replicas on one Redis: what one acknowledges holds on all, also when a replica, the
//! Redis, or a master of a cluster is killed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::redis::{Cluster, Redis};
use crate::harness::rng::Rng;
use crate::harness::{Client, Launch, Server, eventually};
use crate::load::{Ledger, Load, verify_series_whole, verify_strong};

const KILLS_OF_A_REPLICA: u64 = 8;
const KILLS_OF_REDIS: u64 = 5;
/// A life ends after so many acknowledgements at most.
const LIFE: u64 = 1500;

fn on_redis(urls: &[String]) -> Launch {
    let launch = Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__INDEX_SHARDS", "8")
        .env("HOLDALL_STORE__REDIS__TIMEOUT", "2s")
        .env("HOLDALL_REFRESH__INTERVAL", "50ms");
    match urls {
        [url] => launch.env("HOLDALL_STORE__REDIS__URL", url),
        seeds => launch.env("HOLDALL_STORE__REDIS__CLUSTER", &seeds.join(",")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_acknowledged_stands_on_the_other() {
    let redis = Redis::start(&[]);
    let mut rng = Rng::from_environment();
    let ledger = Arc::new(Ledger::default());
    let other = on_redis(&[redis.url()]).start().await;
    let mut launch = on_redis(&[redis.url()]);
    for _ in 0..KILLS_OF_A_REPLICA {
        let locks_before = ledger.lock_count();
        let replica = launch.start().await;
        let load = Load::start(&replica, &ledger, &mut rng);
        ledger.until_more(1 + rng.below(LIFE)).await;
        launch = replica.kill();
        load.ended().await;
        verify_strong(&other, &ledger, locks_before, &mut rng).await;
        verify_series_whole(&other, &ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_that_writes_all_down_loses_nothing() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut rng = Rng::from_environment();
    let ledger = Arc::new(Ledger::default());
    let replicas = [on_redis(&[redis.url()]).start().await, on_redis(&[redis.url()]).start().await];
    for _ in 0..KILLS_OF_REDIS {
        let locks_before = ledger.lock_count();
        let load = Load::start(&replicas[0], &ledger, &mut rng);
        ledger.until_more(1 + rng.below(LIFE)).await;
        redis.kill();
        // Some of it would go on: a flush has nothing to do here, and always succeeds.
        load.stop();
        load.ended().await;
        redis.run();
        for replica in &replicas {
            replica.until_ready().await;
        }
        verify_strong(&replicas[1], &ledger, locks_before, &mut rng).await;
        verify_series_whole(&replicas[1], &ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_and_deltas_are_the_same_on_every_replica() {
    let redis = Redis::start(&[]);
    let launch = || on_redis(&[redis.url()]);
    let mut replicas = vec![launch().start().await, launch().start().await, launch().start().await];
    let mut rng = Rng::from_environment();
    let stop = CancellationToken::new();
    let mut writers = write_on_all(&replicas, &stop, &mut rng);
    let followers = follow_on_all(&replicas, &stop);
    for _ in 0..3 {
        // The killed one is only written to, so that its follower is not its victim.
        let victim = launch().start().await;
        let victim_stops = CancellationToken::new();
        let more = write_on_all(std::slice::from_ref(&victim), &victim_stops, &mut rng);
        let cursor = async || Some(victim.get("/v1/series/cursor").await.expect(200));
        let before = cursor().await;
        eventually("changes go on", async || (cursor().await != before).then_some(())).await;
        replicas.push(victim.kill().start().await);
        victim_stops.cancel();
        more.join_all().await;
    }
    stop.cancel();
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer found no fault");
    }
    let fresh = View::of(&replicas[0].client()).await;
    assert!(!fresh.series.is_empty());
    for mut view in followers.join_all().await {
        view.catch_up().await;
        assert_eq!(view.series, fresh.series, "snapshot and deltas");
    }
    for replica in &replicas {
        assert_eq!(View::of(&replica.client()).await.series, fresh.series, "a fresh snapshot");
    }
    same_pages(&replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_go_on_when_a_master_of_the_cluster_dies() {
    let cluster = Cluster::start();
    let launch = || on_redis(cluster.urls());
    let replicas = [launch().start().await, launch().start().await];
    let mut rng = Rng::from_environment();
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&replicas[0], &ledger, &mut rng);
    ledger.until_more(LIFE).await;
    // What is acknowledged from here on may be lost with the master, so nothing is asked now.
    load.stop();
    load.ended().await;
    cluster.until_replicated();
    let master = cluster.a_master();
    cluster.kill(master);
    for replica in &replicas {
        eventually("every shard takes writes again", async || {
            for n in 0..40 {
                let path = format!("/v1/generations/after{n}/bump");
                let bumped = replica.try_post(&path, &json!({})).await?;
                if bumped.status != 200 {
                    let code = bumped.expect_problem(503);
                    assert!(code.starts_with("store_"), "{code}");
                    return None;
                }
            }
            Some(())
        })
        .await;
        replica.until_ready().await;
        verify_strong(replica, &ledger, 0, &mut rng).await;
        verify_series_whole(replica, &ledger).await;
    }
    same_pages(&replicas).await;
}

/// Pushes and deletes a few series again and again, through each of the servers.
fn write_on_all(servers: &[Server], stop: &CancellationToken, rng: &mut Rng) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for server in servers {
        let (client, stop, mut rng) = (server.client(), stop.clone(), rng.split());
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                let points: Vec<Value> = (0..1 + rng.below(20))
                    .map(|_| {
                        let labels = json!({"n": rng.below(60).to_string()});
                        json!({"name": "written", "labels": labels, "value": rng.below(1000)})
                    })
                    .collect();
                let batch = json!({"role": "leader", "source": "leader_scrape", "points": points});
                let selector = format!("written{{n=\"{}\"}}", rng.below(60));
                let answer = if rng.below(4) == 0 {
                    client.try_post("/v1/series/delete", &json!({"match": [selector]})).await
                } else {
                    client.try_post("/v1/series", &batch).await
                };
                // The server was killed.
                let Some(answer) = answer else { return };
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        });
    }
    tasks
}

fn follow_on_all(servers: &[Server], stop: &CancellationToken) -> JoinSet<View> {
    let mut tasks = JoinSet::new();
    for server in servers {
        let (client, stop) = (server.client(), stop.clone());
        tasks.spawn(async move {
            let mut view = View::of(&client).await;
            while !stop.is_cancelled() {
                view.step("&wait=1s").await;
            }
            view
        });
    }
    tasks
}

/// What somebody knows of the series who took a snapshot and then read deltas.
struct View {
    client: Client,
    series: BTreeMap<String, Value>,
    cursor: String,
}

impl View {
    async fn of(client: &Client) -> Self {
        let (mut series, mut cursor) = (BTreeMap::new(), None);
        let mut page = String::new();
        loop {
            let answer = client.get(&format!("/v1/series?limit=37{page}")).await.expect(200);
            for point in answer["points"].as_array().expect("points") {
                series.insert(point["id"].as_str().expect("an id").to_owned(), point.clone());
            }
            // The deltas behind the first page bring all of them to one moment.
            cursor.get_or_insert_with(|| answer["cursor"].as_str().expect("a cursor").to_owned());
            match answer["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        let cursor = cursor.expect("the first page has a cursor");
        let mut view = Self { client: client.clone(), series, cursor };
        view.catch_up().await;
        view
    }

    /// Reads one delta; tells whether there is more.
    async fn step(&mut self, wait: &str) -> bool {
        let path = format!("/v1/series/delta?limit=23&cursor={}{wait}", self.cursor);
        let answer = self.client.get(&path).await.expect(200);
        for event in answer["events"].as_array().expect("events") {
            let id = event["id"].as_str().expect("an id").to_owned();
            if event["deleted"] == true {
                self.series.remove(&id);
            } else {
                self.series.insert(id, event["point"].clone());
            }
        }
        self.cursor = answer["next_cursor"].as_str().expect("a cursor").to_owned();
        answer["more"] == true
    }

    async fn catch_up(&mut self) {
        while self.step("").await {}
    }
}

/// Waits until every replica shows the same pushed series.
async fn same_pages(replicas: &[Server]) {
    eventually("all replicas show the same", async || {
        let mut pages = Vec::new();
        for replica in replicas {
            let page = replica.try_get("/metrics").await?.text();
            let pushed = page.lines().filter(|line| !line.contains("holdall_"));
            pages.push(pushed.map(str::to_owned).collect::<Vec<_>>());
        }
        pages.windows(2).all(|two| two[0] == two[1]).then_some(())
    })
    .await;
}
