//! Databases that the server must not touch stop the start with a clear word, and stay as they are.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Exit, Launch, Server};

const FILES: [&str; 2] = ["durable.db", "buffered.db"];

/// Reads every file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a file"))
        })
        .collect()
}

/// Returns a folder with both databases, as an orderly stop leaves them.
pub(crate) async fn stopped_with_data() -> Launch {
    let server = Server::start().await;
    server.post("/v1/locks/job/kept", &json!({"ttl": "1h"})).await.expect(200);
    server.try_push("kept", 1.0).await.expect("the server responds").expect(200);
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    launch
}

/// Starts the server, which has to refuse, say `words`, and leave the databases alone.
pub(crate) async fn assert_refused(launch: &Launch, file: &str, words: &[&str]) {
    let before = contents(&launch.store());
    let Exit { code, log } = launch.expect_exit().await;
    assert_eq!(code, Some(1), "{file}: {log}");
    for word in words.iter().chain(&[file]) {
        assert!(log.contains(word), "{file}: no {word:?} in {log}");
    }
    let after = contents(&launch.store());
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "{name} was changed");
    }
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.is_empty(), "{new:?} appeared");
}

/// Returns a folder as `kill -9` leaves it, with a log of many commits beside each database.
pub(crate) async fn killed_with_logs() -> Launch {
    let server = Server::start().await;
    for number in 0..40 {
        let path = format!("/v1/generations/key-{number}/bump");
        server.post(&path, &json!({})).await.expect(200);
        server.try_push("progress", f64::from(number)).await.expect("responds").expect(200);
        server.post("/v1/admin/flush", &json!({})).await.expect(200);
    }
    server.kill()
}

#[tokio::test]
async fn a_damaged_log_is_not_touched() {
    const FRAME: usize = 24 + 4096;
    for file in FILES {
        // In the header, and in the first, a middle and the last but two frames.
        for at in [20, 32 + 100, 32 + 9 * FRAME + 100, usize::MAX] {
            let launch = killed_with_logs().await;
            let log = launch.store().join(format!("{file}-wal"));
            let mut bytes = std::fs::read(&log).expect("a log");
            let at = at.min(bytes.len() - 3 * FRAME);
            bytes[at] ^= 4;
            std::fs::write(&log, bytes).expect("the log is spoiled");
            assert_refused(&launch, file, &["damaged", "log"]).await;
        }
    }
}

#[tokio::test]
async fn a_log_without_its_end_starts_without_what_is_missing() {
    let launch = killed_with_logs().await;
    let log = launch.store().join("durable.db-wal");
    let bytes = std::fs::read(&log).expect("a log");
    std::fs::write(&log, &bytes[..bytes.len() - 100]).expect("the log is cut");
    let server = launch.start().await;
    let first = server.get("/v1/generations/key-0").await.expect(200);
    assert_eq!(first["generation"], 1);
    server.post("/v1/locks/job/one", &json!({"ttl": "1h"})).await.expect(200);
}

#[tokio::test]
async fn a_flipped_bit_in_a_row_is_not_served() {
    for (file, sql) in [
        ("buffered.db", "UPDATE samples SET value_bits = value_bits + 1"),
        ("buffered.db", "UPDATE series SET labels = 'other=\"1\"'"),
        ("durable.db", "UPDATE locks SET value = replace(value, '1', '2')"),
    ] {
        let launch = stopped_with_data().await;
        let database = Connection::open(launch.store().join(file)).expect("the database opens");
        database.execute_batch(sql).expect("SQL");
        database.close().expect("the database closes");
        assert_refused(&launch, file, &["damaged", "checksum"]).await;
    }
}

#[tokio::test]
async fn a_database_that_can_not_be_written_is_not_touched() {
    for file in FILES {
        let launch = stopped_with_data().await;
        let path = launch.store().join(file);
        // Root may write any file, but none that is mounted read-only.
        let script = format!(
            "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"",
            path.display()
        );
        let launch = launch
            .wrapper(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"])
            .wrapper(&[&script, "sh"]);
        assert_refused(&launch, file, &["read-only"]).await;
    }
}

#[tokio::test]
async fn a_program_that_reads_the_databases_stops_neither_the_start_nor_commits() {
    let launch = stopped_with_data().await;
    let readers = FILES.map(|file| {
        let reader = Connection::open(launch.store().join(file)).expect("the database opens");
        reader.execute_batch("BEGIN").expect("begins");
        let query = "SELECT count(*) FROM schema_versions";
        reader.query_row(query, [], |row| row.get::<_, i64>(0)).expect("reads");
        reader
    });
    let server = launch.start().await;
    server.post("/v1/locks/job/one", &json!({"ttl": "1h"})).await.expect(200);
    server.try_push("kept", 2.0).await.expect("the server responds").expect(200);
    server.post("/v1/admin/flush", &json!({})).await.expect(200);
    let server = server.kill().start().await;
    assert_eq!(server.get("/v1/locks/job/one").await.expect(200)["held"], true);
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    drop(readers);
    let server = launch.start().await;
    assert_eq!(server.get("/v1/locks/job/one").await.expect(200)["held"], true);
}

#[tokio::test]
async fn a_folder_that_is_deleted_fails_writes_and_readiness() {
    let launch = Launch::new();
    let server = launch.start().await;
    server.get("/readyz").await.expect(200);
    std::fs::remove_dir_all(launch.store()).expect("deletes");
    server.get("/readyz").await.expect_problem(503);
    server.post("/v1/locks/job/one", &json!({"ttl": "1h"})).await.expect_problem(503);
    server.try_push("kept", 1.0).await.expect("the server responds").expect(200);
    server.post("/v1/admin/flush", &json!({})).await.expect_problem(503);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_touched() {
    for file in FILES {
        let launch = stopped_with_data().await;
        let database = Connection::open(launch.store().join(file)).expect("the database opens");
        database.pragma_update(None, "user_version", 9999).expect("the version is set");
        database.close().expect("the database closes");
        assert_refused(&launch, file, &["newer version"]).await;
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_not_touched() {
    for file in FILES {
        let launch = Launch::new();
        std::fs::create_dir_all(launch.store()).expect("the folder is made");
        let database = Connection::open(launch.store().join(file)).expect("the database opens");
        database
            .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
            .expect("SQL");
        database.close().expect("the database closes");
        assert_refused(&launch, file, &["not a file of holdall"]).await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_not_touched() {
    for file in FILES {
        let launch = Launch::new();
        std::fs::create_dir_all(launch.store()).expect("the folder is made");
        std::fs::write(launch.store().join(file), "dear diary, ".repeat(1000)).expect("written");
        assert_refused(&launch, file, &[]).await;
    }
}

#[tokio::test]
async fn a_damaged_database_is_not_touched() {
    for file in FILES {
        let launch = stopped_with_data().await;
        let path = launch.store().join(file);
        let mut bytes = std::fs::read(&path).expect("the database is readable");
        // The head stays, so that it looks like ours; every page behind it is spoiled.
        bytes[4096..].fill(0xA5);
        std::fs::write(&path, bytes).expect("the database is spoiled");
        assert_refused(&launch, file, &["damaged"]).await;
    }
}

#[tokio::test]
async fn a_database_that_was_cut_off_is_not_touched() {
    for file in FILES {
        let launch = stopped_with_data().await;
        let path = launch.store().join(file);
        let bytes = std::fs::read(&path).expect("the database is readable");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("the database is cut");
        assert_refused(&launch, file, &["damaged"]).await;
    }
}

#[tokio::test]
async fn two_servers_never_share_a_folder() {
    let launch = Launch::new();
    let first = launch.start().await;
    first.post("/v1/locks/job/one", &json!({"ttl": "1h"})).await.expect(200);
    let Exit { code, log } = launch.expect_exit().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another holdall serves the folder"), "{log}");
    first.get("/v1/locks/job/one").await.expect(200);
    // A folder whose server was killed is free again.
    let launch = first.kill();
    let again = launch.start().await;
    assert_eq!(again.get("/v1/locks/job/one").await.expect(200)["held"], true);
}

#[tokio::test]
async fn a_server_that_does_not_start_was_never_ready() {
    let launch = Launch::new();
    std::fs::create_dir_all(launch.store()).expect("the folder is made");
    std::fs::write(launch.store().join("durable.db"), "no database at all").expect("written");
    let exit = launch.expect_exit().await;
    assert!(!exit.log.contains("\"ready\""), "{}", exit.log);
}

#[tokio::test]
async fn a_folder_that_can_not_be_made_stops_the_start() {
    let launch = Launch::new();
    std::fs::write(launch.store(), "a file where the folder should be").expect("written");
    let Exit { code, log } = launch.expect_exit().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the store can't be opened"), "{log}");
}
