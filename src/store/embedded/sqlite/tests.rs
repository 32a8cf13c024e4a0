//! Files that are made, recovered, refused, and locked.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::schema;
use super::{CheckedFile, FolderLock, Missing, OpenError, SchemaPart, SyncMode};

const SCHEMA: &[SchemaPart] = &[SchemaPart {
    name: "t",
    migrations: &["CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT) STRICT"],
}];

/// Writes more pages than SQLite's cache has.
const REWRITES: &[&str] = &[
    SCHEMA[0].migrations[0],
    "ALTER TABLE t ADD COLUMN w TEXT; UPDATE t SET w = hex(zeroblob(2000))",
];

fn open_file(path: &Path) -> Result<Connection, OpenError> {
    open(path, SCHEMA)
}

fn open(path: &Path, parts: &[SchemaPart]) -> Result<Connection, OpenError> {
    let conn = open_uncommitted(path, parts)?;
    schema::commit(&conn).expect("commits");
    Ok(conn)
}

fn open_uncommitted(path: &Path, parts: &[SchemaPart]) -> Result<Connection, OpenError> {
    let file = CheckedFile::look_at(path, "test database", parts.to_vec(), Missing::Nothing)?;
    file.check_pages()?;
    file.open(SyncMode::Normal)
}

fn fill(conn: &Connection) {
    for k in 0..2000 {
        conn.execute("INSERT INTO t VALUES (?1, 'some text that fills pages')", [k])
            .expect("inserts");
    }
}

fn folder_bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("reads")
        .map(|entry| entry.expect("reads").path())
        .map(|path| (path.clone(), fs::read(path).expect("reads")))
        .collect();
    files.sort();
    files
}

fn refused_untouched(folder: &Path, path: &Path) -> OpenError {
    let before = folder_bytes(folder);
    let error = open_file(path).expect_err("must be refused");
    assert!(before == folder_bytes(folder), "changed by: {error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn what_was_written_is_there_again() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    fill(&open_file(&path).expect("opens"));
    let conn = open_file(&path).expect("opens again");
    let n: i64 = conn.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).expect("reads");
    assert_eq!(n, 2000);
}

#[test]
fn a_log_left_by_a_killed_server_is_recovered() {
    let folder = tempfile::tempdir().expect("tempdir");
    let copy = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    let conn = open_file(&path).expect("opens");
    fill(&conn);
    for (file, bytes) in folder_bytes(folder.path()) {
        let name = file.file_name().expect("a name");
        fs::write(copy.path().join(name), bytes).expect("copies");
    }
    drop(conn);
    assert!(copy.path().join("t.db-wal").exists());
    let conn = open_file(&copy.path().join("t.db")).expect("opens the copy");
    let n: i64 = conn.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).expect("reads");
    assert_eq!(n, 2000);
}

#[test]
fn foreign_files_are_refused_untouched() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    fs::write(&path, vec![b'x'; 5000]).expect("writes");
    assert!(matches!(refused_untouched(folder.path(), &path), OpenError::Foreign { .. }));
    fs::remove_file(&path).expect("removes");
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE x (y)").expect("creates");
    drop(other);
    assert!(matches!(refused_untouched(folder.path(), &path), OpenError::Foreign { .. }));
}

#[test]
fn damaged_files_are_refused_untouched() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    fill(&open_file(&path).expect("opens"));
    let whole = fs::read(&path).expect("reads");

    let mut broken = whole.clone();
    broken[4096..].fill(0xa5);
    for bytes in [broken, whole[..whole.len() / 2].to_vec(), whole[..50].to_vec(), Vec::new()] {
        fs::write(&path, bytes).expect("writes");
        assert!(matches!(refused_untouched(folder.path(), &path), OpenError::Damaged { .. }));
    }
}

#[test]
fn newer_files_are_refused_untouched_even_when_only_the_log_says_so() {
    for newer in [
        "PRAGMA user_version = 2",
        "UPDATE schema_versions SET version = 2",
        "INSERT INTO schema_versions VALUES ('a table of a later version', 1)",
    ] {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("t.db");
        let conn = open_file(&path).expect("opens");
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets");
        conn.execute_batch(newer).expect("sets");
        drop(conn);
        let refused = || refused_untouched(folder.path(), &path);
        assert!(matches!(refused(), OpenError::Newer { .. }), "{newer}");
        Connection::open(&path)
            .and_then(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .expect("writes the log into the file");
        assert!(matches!(refused(), OpenError::Newer { .. }), "{newer}");
    }
}

#[test]
fn each_part_of_a_schema_is_migrated_on_its_own() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    drop(open_file(&path).expect("opens"));
    let parts = [
        SchemaPart { name: "t", migrations: &["not run again", "ALTER TABLE t ADD COLUMN w TEXT"] },
        SchemaPart { name: "u", migrations: &["CREATE TABLE u (k INTEGER PRIMARY KEY) STRICT"] },
    ];
    for _ in 0..2 {
        let conn = open(&path, &parts).expect("opens");
        conn.execute_batch("SELECT w FROM t; SELECT k FROM u").expect("both are there");
    }
    assert!(matches!(open_file(&path), Err(OpenError::Newer { .. })));
}

#[test]
fn a_migration_that_is_not_committed_changes_nothing() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    fill(&open_file(&path).expect("opens"));
    let before = folder_bytes(folder.path());
    let parts = [SchemaPart { name: "t", migrations: REWRITES }];
    let conn = open_uncommitted(&path, &parts).expect("opens");
    conn.execute_batch("SELECT w FROM t").expect("it is seen");
    drop(conn);
    assert!(before == folder_bytes(folder.path()));
    drop(open(&path, &parts).expect("opens"));
    assert!(before != folder_bytes(folder.path()));
}

#[test]
fn a_log_without_its_file_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("t.db");
    fs::write(folder.path().join("t.db-wal"), b"something").expect("writes");
    assert!(matches!(refused_untouched(folder.path(), &path), OpenError::Damaged { .. }));
}

#[test]
fn a_folder_is_made_with_all_above_it() {
    let above = tempfile::tempdir().expect("tempdir");
    let folder = above.path().join("one").join("two");
    for _ in 0..2 {
        drop(FolderLock::take(&folder).expect("takes"));
    }
    // No run has begun, so no file is left.
    assert_eq!(fs::read_dir(&folder).expect("is there").count(), 0);
}

#[test]
fn a_folder_is_served_once() {
    let folder = tempfile::tempdir().expect("tempdir");
    let first = FolderLock::take(folder.path()).expect("takes");
    assert!(matches!(FolderLock::take(folder.path()), Err(OpenError::Locked { .. })));
    drop(first);
    FolderLock::take(folder.path()).expect("takes again");
}

#[test]
fn a_folder_is_free_although_a_copy_of_its_lock_is_open() {
    let folder = tempfile::tempdir().expect("tempdir");
    let lock = FolderLock::take(folder.path()).expect("takes");
    // As in a process that is being started.
    let copy = lock.file.try_clone().expect("a copy");
    drop(lock);
    FolderLock::take(folder.path()).expect("takes again");
    drop(copy);
}
