//! Opens a file of ours, or makes it.
//!
//! A new file is made under another name and then renamed. So a file of ours is never
//! empty or half made, and one that is has been damaged.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::check::CheckedFile;
use super::error::OpenError;
use super::format::{APPLICATION_ID, BUSY_TIMEOUT, open_flags, with_suffix};
use super::schema;
use super::sync::{SyncMode, sync_folder_of};

/// The page cache of each connection. Data is served from memory of our own.
const CACHE_KIB: i64 = 4096;

impl CheckedFile {
    /// Opens the file, or makes it where it is missing, and brings every part of its schema to the newest
    /// version, in a transaction that [`super::WalCheckpoints::make_whole`] commits. A caller that closes the
    /// connection before leaves the file as it was.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(in crate::store::embedded) fn open(&self, sync: SyncMode) -> Result<Connection, OpenError> {
        let open = || -> Result<Connection, Box<dyn Error + Send + Sync>> {
            if !self.exists {
                create(&self.path)?;
            }
            Ok(self.connect(sync)?)
        };
        open().map_err(|error| OpenError::failed(&self.path, error))
    }

    fn connect(&self, sync: SyncMode) -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(&self.path, open_flags())?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // Until the file is served, closing the connection must not write what an earlier process left in the
        // log. A log that is made here goes with the connection.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, self.had_log)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", sync.pragma())?;
        // The engines decide when, see `WalCheckpoints`: SQLite would do it within a commit.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.pragma_update(None, "mmap_size", 0)?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.set_prepared_statement_cache_capacity(64);
        schema::migrate(&conn, &self.parts)?;
        Ok(conn)
    }
}

/// Makes an empty database of ours, whole or not at all.
fn create(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let draft = with_suffix(path, ".new");
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
    Ok(sync_folder_of(path)?)
}
