//! Opens a file of ours, or makes it.
//!
//! A new file is made under another name and then renamed. So a file of ours is never
//! empty or half made, and one that is has been damaged.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::Connection;

use super::check::check;
use super::error::OpenError;
use super::format::{APPLICATION_ID, BUSY_TIMEOUT, open_flags, with_suffix};
use super::schema::{self, SchemaPart};
use crate::model::settings::one_of;

/// The page cache of each connection. Data is served from memory of our own.
const CACHE_KIB: i64 = 4096;

/// When a durable write counts as on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum SyncMode {
    /// After `fsync`: it survives a power cut.
    Full,
    /// After the operating system has it: it survives `kill -9`.
    Normal,
}

impl TryFrom<String> for SyncMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text, &[("full", Self::Full), ("normal", Self::Normal)])
    }
}

impl SyncMode {
    /// Returns the value of SQLite's `synchronous`.
    pub(in crate::store::embedded) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// Opens the file at `path`, or a database in memory when there is none, and brings every part of
/// its schema to the newest version.
///
/// # Errors
/// See [`OpenError`].
pub(in crate::store::embedded) fn open(
    path: Option<&Path>,
    what: &'static str,
    parts: &[SchemaPart],
    sync: SyncMode,
) -> Result<Connection, OpenError> {
    let Some(path) = path else {
        let memory = Path::new(":memory:");
        let failed = |error| OpenError::failed(memory, error);
        let conn = Connection::open_in_memory().map_err(failed)?;
        schema::migrate(&conn, parts).map_err(failed)?;
        return Ok(conn);
    };
    if path.try_exists().map_err(|error| OpenError::failed(path, error))? {
        check(path, what, parts)?;
    } else {
        create(path, what)?;
    }
    connect(path, parts, sync).map_err(|error| OpenError::failed(path, error))
}

/// Makes an empty database of ours, whole or not at all.
fn create(path: &Path, what: &'static str) -> Result<(), OpenError> {
    for log in [with_suffix(path, "-wal"), with_suffix(path, "-journal")] {
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            let why = format!("it is missing, but its log {} is there", log.display());
            return Err(OpenError::Damaged { what, path: path.to_owned(), why });
        }
    }
    let draft = with_suffix(path, ".new");
    let make = || -> Result<(), Box<dyn Error + Send + Sync>> {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let conn = Connection::open(&draft)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.close().map_err(|(_, error)| error)?;
        // The content must be on disk before the name: a power cut must not leave an empty file
        // under the name of a whole one.
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|error| OpenError::failed(path, error))
}

fn connect(path: &Path, parts: &[SchemaPart], sync: SyncMode) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, open_flags())?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", sync.pragma())?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.set_prepared_statement_cache_capacity(64);
    schema::migrate(&conn, parts)?;
    Ok(conn)
}
