//! Redis that is away, slow, full, read-only, or loses its scripts or its data: requests end in
//! time, /metrics goes on with what it had, and everything works again by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::push;
use crate::harness::proxy::{Line, Proxy};
use crate::harness::redis::Redis;
use crate::harness::{Launch, Server, eventually};

/// How long the store waits for an answer here.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Within what a request ends, whatever Redis does: two steps of the store, and room for a busy
/// machine.
const IN_TIME: Duration = Duration::from_secs(8);

fn replica(url: &str) -> Launch {
    Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__URL", url)
        .env("HOLDALL_STORE__REDIS__TIMEOUT", "500ms")
        .env("HOLDALL_STORE__REDIS__CONNECT_TIMEOUT", "500ms")
        .env("HOLDALL_REFRESH__INTERVAL", "50ms")
}

/// A replica, the line to its Redis, and the Redis.
struct Stand {
    server: Server,
    proxy: Proxy,
    redis: Redis,
    cursor: String,
}

impl Stand {
    async fn up() -> Self {
        let redis = Redis::start(&[]);
        let proxy = Proxy::to(redis.port()).await;
        let server = replica(&proxy.url()).start().await;
        let mut stand = Self { server, proxy, redis, cursor: String::new() };
        stand.works("before").await;
        let cursor = stand.server.get("/v1/series/cursor").await.expect(200);
        stand.cursor = cursor["cursor"].as_str().expect("a cursor").to_owned();
        stand
    }

    /// Waits until everything works.
    async fn works(&self, name: &str) {
        let server = &self.server;
        eventually("writes work", async || {
            let pushed = server.try_push(name, 1.0).await?;
            let (lock, bump) =
                (format!("/v1/locks/job/{name}"), format!("/v1/generations/{name}/bump"));
            let locked = server.try_post(&lock, &json!({"ttl": "1h"})).await?;
            let bumped = server.try_post(&bump, &json!({})).await?;
            let statuses = [pushed.status, locked.status, bumped.status];
            (statuses == [200; 3]).then_some(())
        })
        .await;
        eventually("the server is ready", async || {
            (server.try_get("/readyz").await?.status == 200).then_some(())
        })
        .await;
        self.shows(name).await;
    }

    /// Waits until /metrics shows a series.
    async fn shows(&self, name: &str) {
        let line = format!("{name} 1");
        eventually("the page shows it", async || {
            let page = self.server.try_get("/metrics").await?.text();
            page.lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    /// Every kind of request ends in time, as unavailable; the page is the last good one.
    async fn is_refused_in_time(&self) {
        let server = &self.server;
        eventually("the server is not ready", async || {
            let answer = server.try_get("/readyz").await?;
            (answer.status == 503 && !answer.json()["detail"].is_null()).then_some(())
        })
        .await;
        let delta = format!("/v1/series/delta?cursor={}", self.cursor);
        let requests = [
            server.request(reqwest::Method::POST, "/v1/series").json(&push("away", 1.0)),
            server.request(reqwest::Method::POST, "/v1/locks/job/away").json(&json!({"ttl": "1h"})),
            server.request(reqwest::Method::GET, "/v1/leases/away"),
            server.request(reqwest::Method::GET, "/v1/checkpoints"),
            server.request(reqwest::Method::POST, "/v1/generations/away/bump"),
            server.request(reqwest::Method::GET, "/v1/cache/away/key"),
            server.request(reqwest::Method::GET, &delta),
            // Never fewer series instead.
            server.request(reqwest::Method::GET, "/v1/series"),
            server.request(reqwest::Method::GET, "/v1/series?match[]=before"),
        ];
        for request in requests {
            let started = Instant::now();
            let answer = server.send(request).await;
            assert!(started.elapsed() < IN_TIME, "{:?}: {}", started.elapsed(), answer.text());
            let code = answer.expect_problem(503);
            assert!(["store_unavailable", "store_timeout"].contains(&&*code), "{code}");
            assert!(answer.headers.contains_key("retry-after"));
        }
        let page = server.get("/metrics").await;
        assert_eq!(page.status, 200);
        let page = page.text();
        assert!(page.lines().any(|line| line == "before 1"), "the last good page:\n{page}");
        eventually("the age of the page is told", async || {
            let page = server.try_get("/metrics").await?.text();
            page.lines().find(|line| *line == "holdall_store_up 0")?;
            let age = page.lines().find_map(|l| l.strip_prefix("holdall_page_age_seconds "))?;
            (age.parse::<f64>().ok()? > 1.0).then_some(())
        })
        .await;
        assert_eq!(server.get("/livez").await.status, 200, "restarting would not help");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_is_mended_by_itself() {
    let stand = Stand::up().await;
    stand.proxy.set(Line::Cut);
    stand.is_refused_in_time().await;
    stand.proxy.set(Line::Good);
    stand.works("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_is_not_waited_for() {
    let stand = Stand::up().await;
    stand.proxy.set(Line::Silent);
    stand.is_refused_in_time().await;
    stand.proxy.set(Line::Good);
    stand.works("after").await;
    stand.redis.pause(true);
    stand.is_refused_in_time().await;
    stand.redis.pause(false);
    stand.works("later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_is_only_slow() {
    let stand = Stand::up().await;
    stand.proxy.set(Line::Slow(TIMEOUT / 10));
    stand.works("slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_may_be_sent_again() {
    let stand = Stand::up().await;
    for line in [Line::LostAnswers, Line::CutInAnswer] {
        stand.proxy.set(line);
        let answer = stand.server.try_push("lost", 1.0).await.expect("the server answers");
        let code = answer.expect_problem(503);
        assert!(["store_timeout", "store_unavailable"].contains(&&*code), "{code}");
        stand.proxy.set(Line::Good);
        stand.works("lost").await;
        let status = stand.server.get("/v1/status").await.expect(200);
        assert_eq!(status["resources"][0]["entries"], 2, "before and lost, once each: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_is_served_again() {
    let mut stand = Stand::up().await;
    let fence = stand.server.get("/v1/generations/before").await.expect(200)["fence"].clone();
    stand.redis.kill();
    stand.is_refused_in_time().await;
    // It kept nothing.
    stand.redis.run();
    stand.works("after").await;
    let delta = stand.server.get(&format!("/v1/series/delta?cursor={}", stand.cursor)).await;
    assert_eq!(delta.expect_problem(410), "cursor_gone");
    let put = format!("/v1/cache/n/before?fence={}", fence.as_str().expect("a fence"));
    let put = stand.server.request(reqwest::Method::PUT, &put).body("old");
    assert_eq!(stand.server.send(put).await.expect_problem(412), "generation_moved");
    eventually("what is gone leaves the page", async || {
        let page = stand.server.try_get("/metrics").await?.text();
        (!page.lines().any(|line| line == "before 1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_were_forgotten_are_sent_again() {
    let stand = Stand::up().await;
    assert_eq!(stand.redis.cli(&["script", "flush"]).trim(), "OK");
    let pushed = stand.server.try_push("at once", 1.0).await;
    assert_eq!(pushed.map(|answer| answer.status), Some(422), "a bad name is refused before");
    for _ in 0..20 {
        stand.redis.cli(&["script", "flush"]);
        let pushed = stand.server.try_push("flushed", 1.0).await.expect("the server answers");
        pushed.expect(200);
    }
    stand.shows("flushed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_read_only_or_full_says_so_and_recovers() {
    let stand = Stand::up().await;
    // A replica of nobody: as a master that was demoted in a failover.
    stand.redis.cli(&["replicaof", "127.0.0.1", "1"]);
    let refused = eventually("writes are refused", async || {
        let answer = stand.server.try_push("away", 1.0).await?;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(refused.expect_problem(503), "store_unavailable");
    stand.redis.cli(&["replicaof", "no", "one"]);
    stand.works("after").await;
    stand.redis.cli(&["config", "set", "maxmemory", "1"]);
    let full = stand.server.try_push("full", 1.0).await.expect("the server answers");
    assert_eq!(full.expect_problem(507), "storage_full");
    stand.redis.cli(&["config", "set", "maxmemory", "0"]);
    stand.works("later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_while_redis_is_away() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let server = replica(&redis.url()).listening().await;
    eventually("it says why it is not ready", async || {
        let answer = server.try_get("/readyz").await?;
        (answer.status == 503).then_some(())
    })
    .await;
    redis.run();
    server.until_ready().await;
    server.try_push("after", 1.0).await.expect("the server answers").expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_pipelines_starts_while_redis_is_away_and_stops_at_once() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let launch = || replica(&redis.url()).config("[pipelines.total]\nkind = \"sum\"\n");
    let (first, second) = (launch(), launch());
    let server = first.listening().await;
    let (exit, _) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let server = second.listening().await;
    let body = serde_json::json!({"updates": [{"entity": "a", "delta": 1}]});
    let path = "/v1/aggregates/total/merge";
    let early = server.try_post(path, &body).await.expect("the server answers");
    assert_eq!(early.expect_problem(503), "starting");
    redis.run();
    server.until_ready().await;
    server.try_post(path, &body).await.expect("the server answers").expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_is_served_without_the_series_while_redis_is_away_or_loading() {
    // Each key takes 20 ms to load, and Redis responds in between that it is loading.
    let slow = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"];
    let mut redis =
        Redis::start(&[&["--appendonly", "yes", "--appendfsync", "always"], &slow[..]].concat());
    replica(&redis.url())
        .start()
        .await
        .try_push("kept", 1.0)
        .await
        .expect("a response")
        .expect(200);
    redis.kill();
    let server = replica(&redis.url()).listening().await;
    let loaded = tokio::task::spawn_blocking(move || {
        redis.run();
        redis
    });
    let mut refused = 0;
    eventually("the server is ready", async || {
        let page = server.try_get("/metrics").await?;
        if page.status == 200 {
            assert!(page.text().contains("\nkept 1\n"), "{}", page.text());
        } else {
            assert_eq!(page.expect_problem(503), "starting");
            refused += 1;
        }
        (server.try_get("/readyz").await?.status == 200).then_some(())
    })
    .await;
    assert!(refused > 0, "Redis was never away");
    assert!(server.get("/metrics").await.text().contains("\nkept 1\n"));
    let _redis = loaded.await.expect("Redis runs");
    let log = server.log();
    let failures = log.lines().filter(|line| line.contains("a refresh failed"));
    let causes: Vec<_> = failures.filter_map(|line| line.split("\"cause\":").nth(1)).collect();
    assert!(!causes.is_empty() && causes.windows(2).all(|two| two[0] != two[1]), "{log}");
}
