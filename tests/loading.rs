//! A server that is still reading its files: live at once, ready only when it can serve.

use rusqlite::Connection;

use crate::harness::Launch;

/// Holds a database so that no other process can read it, as a slow disk would.
fn hold(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).expect("the database opens");
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").expect("set");
    connection.execute_batch("BEGIN EXCLUSIVE").expect("no other process has it");
    connection
}

#[tokio::test]
async fn a_server_that_loads_is_live_but_not_ready() {
    let launch = Launch::new();
    let server = launch.start().await;
    server.try_push("loaded", 1.0).await.expect("a response").expect(200);
    server.terminate().await;
    let held = hold(&launch.store().join("buffered.db"));
    let server = launch.listening().await;
    for path in ["/livez", "/-/healthy"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in ["/readyz", "/-/ready", "/v1/series", "/v1/status"] {
        server.get(path).await.expect_problem(503);
    }
    // A page without the series would tell Prometheus that they have ended.
    assert_eq!(server.get("/metrics").await.expect_problem(503), "starting");
    let locks = server.post("/v1/locks/job/x", &serde_json::json!({"ttl": "1s"})).await;
    assert_eq!(locks.expect_problem(503), "starting");
    drop(held);
    server.until_ready().await;
    let series = server.get("/v1/series").await.expect(200);
    assert_eq!(series["points"].as_array().map(Vec::len), Some(1));
    // Not eventually: a server that is ready has a complete page.
    let page = server.get("/metrics").await.text();
    assert!(page.contains("\nloaded 1\n"), "{page}");
}
