//! A start after files have gone: it is refused where data would be missing, and only there.

use std::path::Path;

use rusqlite::Connection;

use crate::bad_start::{assert_refused, killed_with_logs, stopped_with_data};
use crate::harness::{Launch, Server};

const DATABASES: [&str; 2] = ["durable.db", "buffered.db"];
const LOGS: [&str; 2] = ["durable.db-wal", "buffered.db-wal"];

fn remove(launch: &Launch, file: &str) {
    std::fs::remove_file(launch.store().join(file)).expect(file);
}

/// Checks that the store has what [`stopped_with_data`] wrote.
async fn assert_has_data(server: &Server) {
    assert_eq!(server.get("/v1/locks/job/kept").await.expect(200)["held"], true);
    assert_eq!(server.get("/v1/series").await.expect(200)["points"][0]["name"], "kept");
}

#[tokio::test]
async fn a_database_that_is_missing_stops_the_start_until_the_lock_file_is_removed_too() {
    for file in DATABASES {
        for launch in [stopped_with_data().await, killed_with_logs().await] {
            remove(&launch, file);
            assert_refused(&launch, file, &["is missing", "lock"]).await;
            // What is left of it, or what was put back, is not for the next start to guess.
            assert_refused(&launch, file, &["is missing"]).await;
            remove(&launch, "lock");
            let _ = std::fs::remove_file(launch.store().join(format!("{file}-wal")));
            launch.start().await;
        }
    }
}

#[tokio::test]
async fn a_log_whose_commits_are_needed_stops_the_start_when_it_is_missing() {
    for log in LOGS {
        let launch = killed_with_logs().await;
        remove(&launch, log);
        assert_refused(&launch, log, &["is missing", "lock"]).await;
        remove(&launch, "lock");
        launch.start().await;
    }
}

#[tokio::test]
async fn after_an_orderly_stop_no_log_is_missed_and_the_databases_alone_are_a_backup() {
    let launch = stopped_with_data().await;
    for log in LOGS {
        assert!(!launch.store().join(log).exists(), "{log}");
    }
    let restored = Launch::new();
    std::fs::create_dir(restored.store()).expect("a folder");
    for file in DATABASES {
        std::fs::copy(launch.store().join(file), restored.store().join(file)).expect(file);
    }
    for launch in [launch, restored] {
        let server = launch.start().await;
        assert_has_data(&server).await;
        // It needs its logs again.
        let launch = server.kill();
        remove(&launch, LOGS[0]);
        assert_refused(&launch, LOGS[0], &["is missing"]).await;
    }
}

#[tokio::test]
async fn a_refused_start_leaves_an_empty_log_that_the_next_start_needs() {
    // The server is killed before it writes anything.
    let launch = stopped_with_data().await.start().await.kill();
    let path = launch.store().join("buffered.db");
    let mut bytes = std::fs::read(&path).expect("readable");
    let name = bytes.windows(4).position(|four| four == b"kept").expect("the name of a series");
    bytes[name] = b'w';
    std::fs::write(&path, &bytes).expect("written");
    for _ in 0..2 {
        assert_refused(&launch, "buffered.db", &["damaged"]).await;
    }
    bytes[name] = b'k';
    std::fs::write(&path, &bytes).expect("written");
    assert_has_data(&launch.start().await).await;
}

#[tokio::test]
async fn a_lock_file_that_does_not_read_is_named() {
    for at in [0, 8, 60] {
        let launch = stopped_with_data().await;
        let path = launch.store().join("lock");
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[at] ^= 0x80;
        std::fs::write(&path, bytes).expect("written");
        assert_refused(&launch, path.to_str().expect("UTF-8"), &["damaged"]).await;
        remove(&launch, "lock");
        assert_has_data(&launch.start().await).await;
    }
}

fn run_sql(folder: &Path, file: &str, sql: &str) {
    let database = Connection::open(folder.join(file)).expect("the database opens");
    database.execute_batch(sql).expect("SQL");
    database.close().expect("the database closes");
}

#[tokio::test]
async fn a_refused_start_migrates_nothing() {
    // Both files need a migration, and the damage is found when the rows of the second are read.
    let launch = stopped_with_data().await;
    let earlier = "DROP TABLE checkpoints; DELETE FROM schema_versions WHERE name = 'checkpoints'";
    run_sql(&launch.store(), "durable.db", earlier);
    let earlier = ["names", "metadata", "series", "samples"]
        .map(|table| format!("ALTER TABLE {table} DROP COLUMN crc;"))
        .concat()
        + "ALTER TABLE samples DROP COLUMN role; DROP TABLE roles;";
    let version = "UPDATE schema_versions SET version = 1 WHERE name = 'series'";
    run_sql(&launch.store(), "buffered.db", &format!("{earlier} {version}; DELETE FROM names"));
    assert_refused(&launch, "buffered.db", &["damaged", "missing"]).await;
    run_sql(&launch.store(), "buffered.db", "INSERT INTO names SELECT name, 'kept' FROM series");
    assert_has_data(&launch.start().await).await;
}
