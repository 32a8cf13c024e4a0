//! What the server does by itself: it flushes, collects garbage, refreshes the pages.

use serde_json::json;

use crate::harness::{Launch, Server, eventually};

const NEVER: &str = "30days";

async fn status(server: &Server, field: &str) -> i64 {
    server.get("/v1/status").await.expect(200)[field].as_i64().expect("a number")
}

async fn entries(server: &Server, resource: &str) -> i64 {
    let report = server.get("/v1/status").await.expect(200);
    let resources = report["resources"].as_array().expect("a list");
    let of = resources.iter().find(|of| of["resource"] == resource).expect("is listed");
    of["entries"].as_i64().expect("a number")
}

async fn until_flushed(server: &Server) {
    eventually("everything is flushed", async || {
        (status(server, "unflushed_writes").await == 0).then_some(())
    })
    .await;
}

async fn push(server: &Server, name: &str) {
    server.try_push(name, 1.0).await.expect("the server responds").expect(200);
}

async fn assert_survived(launch: &Launch, name: &str) {
    let server = launch.start().await;
    let series = server.get("/v1/series").await.expect(200);
    assert_eq!(series["points"][0]["name"], name, "{series}");
}

#[tokio::test]
async fn every_task_is_started_and_repeated() {
    let launch = ["FLUSH", "GC", "REFRESH"].into_iter().fold(Launch::new(), |launch, section| {
        launch.env(&format!("HOLDALL_{section}__INTERVAL"), "20ms")
    });
    let launch = launch.env("HOLDALL_GENERATIONS__CLEANUP_INTERVAL", "20ms");
    let server = launch.start().await;
    let last_success = async |task: &str| {
        let page = server.get("/metrics").await.text();
        let series = format!("holdall_task_last_success_timestamp_seconds{{task=\"{task}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{task} was not started:\n{page}"))
    };
    for task in ["flush", "gc", "watch", "clock", "log", "cleanup"] {
        let first = last_success(task).await;
        eventually(task, async || (last_success(task).await > first.max(1.0)).then_some(())).await;
    }
}

#[tokio::test]
async fn weak_writes_reach_the_disk_with_the_interval() {
    let launch = Launch::new().env("HOLDALL_FLUSH__INTERVAL", "20ms");
    let server = launch.start().await;
    push(&server, "by_interval").await;
    until_flushed(&server).await;
    assert_survived(&server.kill(), "by_interval").await;
}

#[tokio::test]
async fn weak_writes_reach_the_disk_with_the_threshold() {
    let launch =
        Launch::new().env("HOLDALL_FLUSH__INTERVAL", NEVER).env("HOLDALL_FLUSH__THRESHOLD", "2");
    let server = launch.start().await;
    push(&server, "by_threshold").await;
    push(&server, "by_threshold_too").await;
    until_flushed(&server).await;
    assert_survived(&server.kill(), "by_threshold").await;
}

#[tokio::test]
async fn what_has_expired_is_removed() {
    let launch = Launch::new()
        .env("HOLDALL_GC__INTERVAL", "20ms")
        .env("HOLDALL_SERIES__RETENTION", "100ms")
        .env("HOLDALL_CHECKPOINTS__RETENTION", "100ms");
    let server = launch.start().await;
    push(&server, "short_lived").await;
    server.post("/v1/locks/job/short", &json!({"ttl": "2s"})).await.expect(200);
    let lease = json!({"holder": "me", "ttl": "2s"});
    server.post("/v1/leases/short/acquire", &lease).await.expect(200);
    let checkpoint = json!({"checkpoint": "2026-01-01T00:00:00Z"});
    let request = server.request(reqwest::Method::PUT, "/v1/checkpoints/a/b").json(&checkpoint);
    assert!(server.send(request).await.status < 300);
    for field in ["series", "locks", "leases", "checkpoints"] {
        eventually(field, async || (entries(&server, field).await == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn generations_that_nobody_bumps_are_forgotten() {
    let launch = Launch::new()
        .env("HOLDALL_GENERATIONS__CLEANUP_INTERVAL", "20ms")
        .env("HOLDALL_GENERATIONS__RETENTION", "50ms");
    let server = launch.start().await;
    server.post("/v1/generations/k/bump", &json!({})).await.expect(200);
    eventually("the generation is forgotten", async || {
        (entries(&server, "generations").await == 0).then_some(())
    })
    .await;
    assert_eq!(server.get("/v1/generations/k").await.expect(200)["generation"], 0);
}

#[tokio::test]
async fn a_cleanup_that_is_switched_off_forgets_nothing() {
    for (interval, retention) in [("0s", "1ms"), ("1ms", "0s"), ("-1s", "1ms")] {
        let launch = Launch::new()
            .env("HOLDALL_GENERATIONS__CLEANUP_INTERVAL", interval)
            .env("HOLDALL_GENERATIONS__RETENTION", retention)
            .env("HOLDALL_GC__INTERVAL", "1ms")
            .env("HOLDALL_FLUSH__INTERVAL", "1ms");
        let server = launch.start().await;
        server.post("/v1/generations/k/bump", &json!({})).await.expect(200);
        // Long after the bump, by the same tasks' clock: what expires is gone by then.
        server.post("/v1/locks/job/short", &json!({"ttl": "2s"})).await.expect(200);
        eventually("the lock has gone", async || {
            (entries(&server, "locks").await == 0).then_some(())
        })
        .await;
        assert_eq!(server.get("/v1/generations/k").await.expect(200)["generation"], 1);
        // Asked for, it works all the same.
        let cleanup = json!({"retention": "1ms"});
        let cleaned = server.post("/v1/batch/generations/cleanup", &cleanup).await.expect(200);
        assert_eq!(cleaned["removed"], 1);
    }
}

#[tokio::test]
async fn a_push_appears_on_the_page_and_stays_over_a_restart_without_a_gap() {
    let launch = Launch::new().env("HOLDALL_REFRESH__INTERVAL", "20ms");
    let server = launch.start().await;
    push(&server, "shown").await;
    eventually("the series is shown", async || {
        server.get("/metrics").await.text().contains("\nshown 1\n").then_some(())
    })
    .await;
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    // Not eventually: a server that is ready has a whole page.
    let server = launch.env("HOLDALL_REFRESH__INTERVAL", NEVER).start().await;
    let page = server.get("/metrics").await.text();
    assert!(page.contains("\nshown 1\n"), "{page}");
}

#[tokio::test]
async fn lookups_in_the_cache_are_counted_by_namespace_and_reason() {
    let launch = Launch::new()
        .env("HOLDALL_REFRESH__INTERVAL", "20ms")
        .env("HOLDALL_CACHE__MAX_NAMESPACES", "1");
    let server = launch.start().await;
    let none = server.get("/v1/cache/pages/k").await;
    assert_eq!(none.expect_problem(404), "cache_miss");
    let path = "/v1/cache/pages/k?generation=0";
    server.send(server.request(reqwest::Method::PUT, path).body("value")).await.expect(200);
    for _ in 0..3 {
        assert_eq!(server.get("/v1/cache/pages/k").await.body, b"value");
    }
    let keys = json!({"keys": ["a", "b"]});
    server.post("/v1/batch/cache/beyond%20the%20bound/get", &keys).await.expect(200);
    server.post("/v1/generations/k/bump", &json!({})).await.expect(200);
    for line in [
        "holdall_cache_hits_total{cache=\"values\",namespace=\"pages\"} 3",
        "holdall_cache_misses_total{cache=\"values\",namespace=\"pages\",reason=\"absent\"} 1",
        "holdall_cache_misses_total{cache=\"values\",namespace=\"pages\",reason=\"stale\"} 0",
        "holdall_cache_misses_total{cache=\"values\",namespace=\"\",reason=\"absent\"} 2",
        "holdall_store_entries{resource=\"generations\"} 1",
        "holdall_store_entries{resource=\"cache\"} 1",
    ] {
        eventually(line, async || {
            server.get("/metrics").await.text().lines().any(|l| l == line).then_some(())
        })
        .await;
    }
    let report = server.get("/v1/status").await.expect(200);
    let resources = report["resources"].as_array().expect("a list");
    let cache = resources.iter().find(|of| of["resource"] == "cache").expect("the cache");
    let bytes = cache["bytes"].as_i64().expect("bytes");
    assert!(bytes > 5, "{bytes}");
    assert!(
        server
            .get("/metrics")
            .await
            .text()
            .contains(&format!("holdall_store_bytes{{resource=\"cache\"}} {bytes}\n"))
    );
}

#[tokio::test]
async fn the_store_in_memory_leaves_nothing_behind() {
    let launch = Launch::new().env("HOLDALL_STORE__BACKEND", "memory");
    let server = launch.start().await;
    server.post("/v1/locks/job/x", &json!({"ttl": "1h"})).await.expect(200);
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    assert!(!launch.store().exists());
    let server = launch.start().await;
    assert_eq!(server.get("/v1/locks/job/x").await.expect(200)["held"], false);
}
