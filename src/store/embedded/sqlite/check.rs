//! Looks at a file of unknown origin before it is served.
//!
//! Invariant: no byte of the file, nor of its write-ahead log, is changed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::{OpenError, is_busy, kind};
use super::folder::FolderLock;
use super::format::{APPLICATION_ID, BUSY_TIMEOUT, open_flags, with_suffix};
use super::schema::{self, SchemaPart};
use super::wal::{self, Missing};
use crate::store::ErrorKind;

/// Where SQLite's header holds the application id (<https://sqlite.org/fileformat.html>).
const APPLICATION_ID_AT: usize = 68;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file that was found to be sound, or to be missing.
#[derive(Debug)]
pub(in crate::store::embedded) struct CheckedFile {
    pub(super) path: PathBuf,
    pub(super) what: &'static str,
    pub(super) parts: Vec<SchemaPart>,
    pub(super) exists: bool,
    /// There was a log before any connection was opened. One that SQLite makes, and that stays empty, goes with the
    /// connection that is closed last.
    pub(super) had_log: bool,
    /// Names the file, and its log, to the next run.
    pub(super) lock: Option<Arc<FolderLock>>,
}

impl CheckedFile {
    /// Looks at the file at `path`, whose schema is `parts`. Whether each page is whole is for [`Self::check_pages`].
    ///
    /// # Errors
    /// When this version can't serve the file, or when its log lacks more than `missing`.
    pub(in crate::store::embedded) fn look_at(
        path: &Path,
        what: &'static str,
        parts: Vec<SchemaPart>,
        missing: Missing,
    ) -> Result<Self, OpenError> {
        let exists = path.try_exists().map_err(|error| OpenError::failed(path, error))?;
        let had_log = with_suffix(path, "-wal").try_exists();
        let had_log = had_log.map_err(|error| OpenError::failed(path, error))?;
        let this = Self { path: path.to_owned(), what, parts, exists, had_log, lock: None };
        if exists {
            this.check(missing)?
        } else {
            this.check_absence()?
        }
        Ok(this)
    }

    /// Lets the lock file of the folder say that the log is needed, until all of it is in the file.
    pub(in crate::store::embedded) fn named_by(self, lock: &Arc<FolderLock>) -> Self {
        Self { lock: Some(Arc::clone(lock)), ..self }
    }

    /// Returns the paths of the file and of its log.
    pub(in crate::store::embedded) fn with_log(&self) -> [PathBuf; 2] {
        [self.path.clone(), with_suffix(&self.path, "-wal")]
    }

    /// Makes the error of a file whose content could not be read.
    pub(in crate::store::embedded) fn unreadable(
        &self,
        error: crate::store::StoreError,
    ) -> OpenError {
        OpenError::unreadable(self.what, &self.path, error)
    }

    /// Returns the path.
    pub(in crate::store::embedded) fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self, missing: Missing) -> Result<(), OpenError> {
        let Self { path, what, .. } = self;
        check_header(path, what)?;
        let log = with_suffix(path, "-wal");
        check_writable(path, what)?;
        // Before SQLite sees the log: it would silently leave out what stands behind a damaged frame.
        wal::verify(&log, missing)
            .map_err(|error| OpenError::failed(&log, error))?
            .map_err(|why| self.damaged(why))?;
        let outcome = inspect(path, &self.parts);
        if !self.had_log && fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
            // SQLite makes an empty log when it opens a file in WAL mode.
            fs::remove_file(&log).map_err(|error| OpenError::failed(&log, error))?;
        }
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(OpenError::Newer { what, path: path.clone(), why }),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Asks SQLite whether each page of the file is whole. Reads all of it, and may run while the file is loaded.
    ///
    /// # Errors
    /// When one is not.
    pub(in crate::store::embedded) fn check_pages(&self) -> Result<(), OpenError> {
        if !self.exists {
            return Ok(());
        }
        let verdict = || -> rusqlite::Result<String> {
            let conn = Connection::open_with_flags(&self.path, open_flags())?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, self.had_log)?;
            conn.pragma_query_value(None, "quick_check", |row| row.get(0))
        };
        match verdict() {
            Ok(verdict) if verdict == "ok" => Ok(()),
            Ok(verdict) => Err(self.damaged(verdict)),
            Err(error) => Err(self.refused(error)),
        }
    }

    fn refused(&self, error: rusqlite::Error) -> OpenError {
        match kind(&error) {
            ErrorKind::Corrupt => self.damaged(error.to_string()),
            _ => OpenError::failed(&self.path, error),
        }
    }

    /// Refuses a log that was left alone: its file held data.
    fn check_absence(&self) -> Result<(), OpenError> {
        for log in ["-wal", "-journal"].map(|suffix| with_suffix(&self.path, suffix)) {
            if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
                let why = format!("it is missing, but its log {} is there", log.display());
                return Err(self.damaged(why));
            }
        }
        Ok(())
    }

    fn damaged(&self, why: String) -> OpenError {
        OpenError::Damaged { what: self.what, path: self.path.clone(), why }
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

/// SQLite would open a read-only file, and fail later with an error that does not say why.
fn check_writable(path: &Path, what: &'static str) -> Result<(), OpenError> {
    for file in [path.to_owned(), with_suffix(path, "-wal")] {
        if file.exists()
            && let Err(source) = OpenOptions::new().write(true).open(&file)
        {
            return Err(OpenError::NotWritable { what, path: file, source });
        }
    }
    Ok(())
}

/// Returns what in the file's schema is newer than `parts`.
fn inspect(path: &Path, parts: &[SchemaPart]) -> rusqlite::Result<Option<String>> {
    // An exclusive connection keeps the log's index in its own memory instead of a file. Where another
    // process has the file open, that file is there already.
    match inspect_as("EXCLUSIVE", Duration::ZERO, path, parts) {
        Err(error) if is_busy(&error) => inspect_as("NORMAL", BUSY_TIMEOUT, path, parts),
        outcome => outcome,
    }
}

fn inspect_as(
    locking_mode: &str,
    timeout: Duration,
    path: &Path,
    parts: &[SchemaPart],
) -> rusqlite::Result<Option<String>> {
    let conn = Connection::open_with_flags(path, open_flags())?;
    conn.busy_timeout(timeout)?;
    // Without a WAL checkpoint at its end, it leaves both the file and the log alone.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", locking_mode)?;
    schema::newer(&conn, parts)
}
