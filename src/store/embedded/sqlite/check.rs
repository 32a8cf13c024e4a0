//! Looks at a file of unknown origin before it is served.
//!
//! Invariant: no byte of the file, nor of its write-ahead log, is changed.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::{OpenError, kind};
use super::format::{APPLICATION_ID, BUSY_TIMEOUT, open_flags, with_suffix};
use super::schema::{self, SchemaPart};
use crate::store::ErrorKind;

/// Where SQLite's header holds the application id (<https://sqlite.org/fileformat.html>).
const APPLICATION_ID_AT: usize = 68;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Refuses a file that this version can't serve.
pub(super) fn check(
    path: &Path,
    what: &'static str,
    parts: &[SchemaPart],
) -> Result<(), OpenError> {
    check_header(path, what)?;
    let log = with_suffix(path, "-wal");
    let had_log = log.try_exists().unwrap_or(true);
    let outcome = inspect(path, parts);
    if !had_log && fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
        // SQLite makes an empty log when it opens a file in WAL mode.
        fs::remove_file(&log).map_err(|error| OpenError::failed(&log, error))?;
    }
    let damaged = |why| OpenError::Damaged { what, path: path.to_owned(), why };
    match outcome {
        Ok(Inspection { newer: Some(why), .. }) => {
            Err(OpenError::Newer { what, path: path.to_owned(), why })
        }
        Ok(Inspection { verdict, .. }) if verdict == "ok" => Ok(()),
        Ok(Inspection { verdict, .. }) => Err(damaged(verdict)),
        Err(error) if kind(&error) == ErrorKind::Corrupt => Err(damaged(error.to_string())),
        Err(error) => Err(OpenError::failed(path, error)),
    }
}

fn check_header(path: &Path, what: &'static str) -> Result<(), OpenError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header))
        .map_err(|error| OpenError::failed(path, error))?;
    if header.len() < HEADER_BYTES {
        let why = format!("it ends after {} bytes", header.len());
        return Err(OpenError::Damaged { what, path: path.to_owned(), why });
    }
    let foreign =
        |why: &str| OpenError::Foreign { what, path: path.to_owned(), why: why.to_owned() };
    if !header.starts_with(MAGIC) {
        return Err(foreign("it does not begin as an SQLite file"));
    }
    if header[APPLICATION_ID_AT..APPLICATION_ID_AT + 4] != APPLICATION_ID.to_be_bytes() {
        return Err(foreign("its application id is another one"));
    }
    Ok(())
}

struct Inspection {
    newer: Option<String>,
    /// What SQLite's own check says.
    verdict: String,
}

/// Reads the versions of the schema, and asks SQLite whether the file is whole.
fn inspect(path: &Path, parts: &[SchemaPart]) -> rusqlite::Result<Inspection> {
    let conn = Connection::open_with_flags(path, open_flags())?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // An exclusive connection keeps the log's index in its own memory instead of a file, and
    // without a WAL checkpoint at its end it leaves both the file and the log alone.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let newer = schema::newer(&conn, parts)?;
    let verdict = conn.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    Ok(Inspection { newer, verdict })
}
