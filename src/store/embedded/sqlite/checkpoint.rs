//! Writes SQLite's log into the database file, and stays right when the disk fails meanwhile.
//!
//! After a failed sync, what it should have written may be clean in the kernel and never reach the disk.
//! Invariant: a page is in the log until a sync of the database file, begun after the page was written
//! there, has succeeded.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::check::CheckedFile;
use super::error::{OpenError, failed_to, is_failed_sync};
use super::folder::FolderLock;
use super::sync::sync_folder_of;
use super::{schema, wal};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The write-ahead log of a file, as its one writer sees it.
#[derive(Debug)]
pub(in crate::store::embedded) struct WalCheckpoints {
    log: PathBuf,
    /// Says that the log is needed.
    lock: Option<Arc<FolderLock>>,
    /// The file and its log, to see whether they are still in the folder. Closed after the connection: closing
    /// any descriptor of a file ends the locks that the process has on it.
    files: [File; 2],
    /// A sync failed, so parts of the log may be clean in the kernel, and not on disk.
    is_doubtful: bool,
    /// The last WAL checkpoint left something in the log, since a reader was in the way.
    is_partial: bool,
    /// Why the log must stay as it is until the next start.
    stopped: Option<String>,
}

impl WalCheckpoints {
    /// For a database that is open.
    ///
    /// # Errors
    /// When it is not there.
    pub(in crate::store::embedded) fn of(database: &CheckedFile) -> Result<Self, OpenError> {
        let [path, log] = database.with_log();
        let open = |path: &Path| File::open(path).map_err(|error| OpenError::failed(path, error));
        let (files, lock) = ([open(&path)?, open(&log)?], database.lock.clone());
        Ok(Self { log, lock, files, is_doubtful: false, is_partial: false, stopped: None })
    }

    /// Returns an error when the file or its log was deleted: what is written now is lost.
    ///
    /// # Errors
    /// As said.
    pub(in crate::store::embedded) fn check_present(&self) -> StoreResult<()> {
        for file in &self.files {
            let links = file.metadata().map(|metadata| metadata.nlink());
            let why = match links {
                Ok(0) => "the database was deleted while it was in use",
                Ok(_) => continue,
                Err(_) => "the database can't be looked at",
            };
            return Err(StoreError::new(ErrorKind::Unavailable, why));
        }
        Ok(())
    }

    /// Commits what opening the database has changed. Then brings to disk what an earlier process left in the
    /// log: it may be in the kernel's memory only, and what is written from now on relies on it. From here on,
    /// only [`Self::close`] lets SQLite delete the log.
    ///
    /// # Errors
    /// When the disk fails.
    pub(in crate::store::embedded) fn make_whole(&self, conn: &Connection) -> StoreResult<()> {
        schema::commit(conn)
            .and_then(|()| {
                conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
            })
            .map_err(failed_to("update the schema of the database"))?;
        self.write_over()
    }

    fn write_over(&self) -> StoreResult<()> {
        wal::make_whole(&self.log).and_then(|()| sync_folder_of(&self.log)).map_err(|error| {
            StoreError::caused_by(ErrorKind::Unavailable, "cannot sync the log", error)
        })
    }

    /// Copies the log into the file, and closes it. Without other readers, the log is gone then.
    ///
    /// # Errors
    /// When the disk fails. The log stays, for the next start.
    pub(in crate::store::embedded) fn close(mut self, conn: Connection) -> StoreResult<()> {
        let outcome = self.run(&conn).and_then(|()| self.let_go());
        // Where that failed, SQLite would try again, without knowing what failed before.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, outcome.is_err())
            .map_err(failed_to("close the database"))?;
        outcome?;
        conn.close().map_err(|(_, error)| failed_to("close the database")(error))
    }

    /// Lets the next start do without the log, which is about to be deleted. Where a reader was in the way, that
    /// reader's program copies the rest and deletes it.
    fn let_go(&self) -> StoreResult<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        lock.let_go(&self.log).map_err(|error| {
            StoreError::caused_by(ErrorKind::Unavailable, "cannot write the lock file", error)
        })
    }

    /// Copies as [`Self::run`] does, if the log has grown to so many frames that are not copied.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(in crate::store::embedded) fn run_above(
        &mut self,
        conn: &Connection,
        frames: i64,
    ) -> StoreResult<()> {
        let (in_log, copied) =
            frames_of(conn, "NOOP").map_err(failed_to("read the state of the log"))?;
        if in_log - copied > frames { self.run(conn) } else { Ok(()) }
    }

    /// Copies as much of the log as readers allow. When that was all of it, the next commit begins
    /// the log anew.
    ///
    /// # Errors
    /// When the disk fails. What is in the log stays there, and this may be called again.
    pub(in crate::store::embedded) fn run(&mut self, conn: &Connection) -> StoreResult<()> {
        if let Some(why) = &self.stopped {
            return Err(StoreError::new(ErrorKind::Unavailable, why.clone()));
        }
        if self.is_doubtful {
            // SQLite is about to rely on it: it copies only what it has synced.
            self.write_over()?;
            self.is_doubtful = false;
        }
        match frames_of(conn, "PASSIVE") {
            Ok((in_log, copied)) => {
                self.is_partial = copied < in_log;
                Ok(())
            }
            Err(error) => {
                self.is_doubtful |= is_failed_sync(&error);
                if self.is_doubtful && self.is_partial {
                    // SQLite counts what a partial checkpoint has copied as done, although only the end of a
                    // whole one syncs the file. That sync has failed, and the next would not copy those pages
                    // again. A start does, as long as the log has them.
                    let why = "a sync of the database failed; restart the server to write its log into it";
                    self.stopped = Some(why.to_owned());
                }
                Err(failed_to("write the log into the database")(error))
            }
        }
    }
}

/// Runs a WAL checkpoint; returns how many frames the log has, and how many of them are copied.
fn frames_of(conn: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    conn.query_row(&pragma, [], |row| Ok((row.get(1)?, row.get(2)?)))
}
