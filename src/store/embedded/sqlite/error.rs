//! How SQLite and the file system fail, as errors of the store.
//!
//! Invariant: every error keeps the one that caused it.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use rusqlite::{Error, ffi};
use thiserror::Error as ThisError;

use crate::store::{ErrorKind, StoreError};

/// Why a store could not be opened. Nothing was changed. The text names the file and says what to do.
#[derive(Debug, ThisError)]
pub enum OpenError {
    /// The file was made by some other program.
    #[error("the {what} {} is not a file of holdall ({why}); it was left as it is. \
             Move it away, or set store.path to another folder", path.display())]
    Foreign {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file can't be read back.
    #[error("the {what} {} is damaged ({why}); it was left as it is. Restore it from a \
             backup, or move it away to start without its data", path.display())]
    Damaged {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file was made by a newer version.
    #[error("the {what} {} was made by a newer version of holdall ({why}); it was left as it is. \
             Start that version, or restore a backup of before the upgrade", path.display())]
    Newer {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What this version does not know.
        why: String,
    },
    /// A file that the last run left is gone.
    #[error("{} is missing: the last run of the server left it, and acknowledged writes may be lost \
             without it; nothing was changed. Put it back, or, to start with what is there, remove \
             {} as well", path.display(), lock.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The file that names it.
        lock: PathBuf,
    },
    /// Another server serves the folder.
    #[error("another holdall serves the folder {}; stop it, or set store.path to another \
             folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The file is read-only for this process.
    #[error("the {what} can't be written: {} is read-only for this server. Make it writable, or \
             set store.path to another folder", path.display())]
    NotWritable {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The operating system or SQLite refused.
    #[error("cannot open {}", path.display())]
    Failed {
        /// The file or folder, or what else was needed.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl OpenError {
    /// Makes the error of something that the operating system or SQLite refused.
    pub(in crate::store::embedded) fn failed(
        path: &Path,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Failed { path: path.to_owned(), source: source.into() }
    }

    /// Makes the error of a file whose content could not be read.
    pub(in crate::store::embedded) fn unreadable(
        what: &'static str,
        path: &Path,
        error: StoreError,
    ) -> Self {
        match error.kind {
            ErrorKind::Corrupt => {
                Self::Damaged { what, path: path.to_owned(), why: error.with_causes() }
            }
            _ => Self::failed(path, error),
        }
    }
}

/// Makes what [`Result::map_err`] needs where SQLite fails; `action` says what could not be done.
pub(in crate::store::embedded) fn failed_to(action: &'static str) -> impl Fn(Error) -> StoreError {
    move |error| StoreError::caused_by(kind(&error), format!("cannot {action}"), error)
}

/// Returns whether another connection had what was needed.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(error, Error::SqliteFailure(failure, _)
        if [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED].contains(&(failure.extended_code & 0xff)))
}

/// Returns whether the operating system failed to sync a file: what was written before may never reach the
/// disk, although it reads back.
pub(in crate::store::embedded) fn is_failed_sync(error: &Error) -> bool {
    matches!(error, Error::SqliteFailure(failure, _)
        if [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&failure.extended_code))
}

/// Makes the error of a file that does not hold what it should.
pub(in crate::store::embedded) fn corrupt(why: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, why)
}

/// Sorts a failure of SQLite by what can be done about it.
pub(super) fn kind(error: &Error) -> ErrorKind {
    match error {
        Error::SqliteFailure(failure, _) => match failure.extended_code & 0xff {
            ffi::SQLITE_FULL => ErrorKind::Full,
            // SQLite reports ENOSPC as FULL for a write, but a quota or a failing sync as this.
            ffi::SQLITE_IOERR if failure.extended_code == ffi::SQLITE_IOERR_WRITE => {
                ErrorKind::Full
            }
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_IOERR | ffi::SQLITE_READONLY => {
                ErrorKind::Unavailable
            }
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        },
        Error::InvalidColumnType(..)
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}
