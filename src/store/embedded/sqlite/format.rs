//! What marks a file as ours, and how its parts are reached.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OpenFlags;

/// Marks our files, in SQLite's header: "HOLD".
pub(super) const APPLICATION_ID: i32 = 0x484f_4c44;

/// How long another process (a backup, a shell of the operator) may hold a lock on the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the flags to open a file that exists, on one thread at a time.
pub(super) fn open_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Returns the path of a file that SQLite keeps beside the one at `path`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
