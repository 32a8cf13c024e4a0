//! Opens the SQLite files of the embedded backend, and says how SQLite fails.
//!
//! Not a layer over SQLite: who opens a file speaks SQL to it. Invariant: a file that is
//! not ours, is damaged, or was made by a newer version is refused with every byte of it left as it
//! was, while what a killed server left behind (a log that was not folded in) is recovered.
//!
//! A new file is made under another name and then renamed. So a file of ours is never
//! empty or half made, and one that is has been damaged.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use thiserror::Error;

use crate::store::{ErrorKind, StoreError};

/// Marks our files, in SQLite's header: "HOLD".
const APPLICATION_ID: i32 = 0x484f_4c44;

/// Where SQLite's header holds the application id (<https://sqlite.org/fileformat.html>).
const APPLICATION_ID_AT: usize = 68;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The page cache of each connection. Data is served from memory of our own.
const CACHE_KIB: i64 = 4096;

/// How long another process (a backup, somebody's shell) may hold a lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// When a durable write counts as on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// After `fsync`: it survives a power cut.
    Full,
    /// After the operating system has it: it survives `kill -9`.
    Normal,
}

/// Why a store could not be opened. Nothing was changed. The text names the file and says what to do.
#[derive(Debug, Error)]
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
    #[error("the {what} {} was made by a newer version of holdall (its schema is {found}, this \
             version knows {known}); it was left as it is. Start that version, or restore \
             a backup of before the upgrade", path.display())]
    Newer {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// Another server serves the folder.
    #[error("another holdall serves the folder {}; stop it, or set store.path to another \
             folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system or SQLite refused.
    #[error("cannot open {}: {why}", path.display())]
    Failed {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        why: String,
    },
}

/// Keeps a folder for this server alone, for as long as the value lives; also ended by the
/// end of the process, however it comes.
#[derive(Debug)]
pub(super) struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Makes the folder where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another server has it, [`OpenError::Failed`] otherwise.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| failed(folder, &error);
        make_durably(folder).map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file alone would not do: a process that another thread is just starting has
        // a copy of it until it runs its program, and the lock lives as long as any copy is open.
        // Where this fails, closing has to do.
        drop(self.file.unlock());
    }
}

/// Makes a folder, and those above it, so that a power cut can't take the folder with all that was
/// acknowledged in it.
fn make_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing.iter().rev() {
        // The parent of a relative name is written as nothing.
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Opens the file at `path`, or a database in memory when there is none, and brings its schema to
/// the newest version: `migrations[n]` leads from version n to n + 1.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(
    path: Option<&Path>,
    what: &'static str,
    migrations: &[&str],
    sync: SyncMode,
) -> Result<Connection, OpenError> {
    let Some(path) = path else {
        let memory = Path::new(":memory:");
        let conn = Connection::open_in_memory().map_err(|error| failed(memory, &error))?;
        migrate(&conn, migrations).map_err(|error| failed(memory, &error))?;
        return Ok(conn);
    };
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if path.try_exists().map_err(|error| failed(path, &error))? {
        check(path, what, known)?;
    } else {
        create(path, what)?;
    }
    serve(path, migrations, sync).map_err(|error| failed(path, &error))
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
    let make = || -> Result<(), Box<dyn std::error::Error>> {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let conn = Connection::open(&draft)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.close().map_err(|(_, error)| error)?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|error| failed(path, &error))
}

/// Looks at a file of unknown origin without changing it.
fn check(path: &Path, what: &'static str, known: i64) -> Result<(), OpenError> {
    check_header(path, what)?;
    let log = with_suffix(path, "-wal");
    let had_log = log.try_exists().unwrap_or(true);
    let outcome = check_content(path);
    if !had_log && fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
        // SQLite makes an empty log when it opens a file in WAL mode.
        fs::remove_file(&log).map_err(|error| failed(&log, &error))?;
    }
    let damaged = |why| OpenError::Damaged { what, path: path.to_owned(), why };
    match outcome {
        Ok((found, _)) if found > known => {
            Err(OpenError::Newer { what, path: path.to_owned(), found, known })
        }
        Ok((_, verdict)) if verdict == "ok" => Ok(()),
        Ok((_, verdict)) => Err(damaged(verdict)),
        Err(error) if is_damage(&error) => Err(damaged(error.to_string())),
        Err(error) => Err(failed(path, &error)),
    }
}

fn check_header(path: &Path, what: &'static str) -> Result<(), OpenError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header))
        .map_err(|error| failed(path, &error))?;
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

/// Reads the schema's version and SQLite's own verdict. An exclusive connection keeps the log's
/// index in its own memory, and one that may not fold in the log at its end leaves both
/// files alone.
fn check_content(path: &Path) -> rusqlite::Result<(i64, String)> {
    let conn = Connection::open_with_flags(path, open_flags())?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let version = schema_version(&conn)?;
    let verdict = conn.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    Ok((version, verdict))
}

fn serve(path: &Path, migrations: &[&str], sync: SyncMode) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, open_flags())?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let sync = match sync {
        SyncMode::Full => "FULL",
        SyncMode::Normal => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", sync)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.set_prepared_statement_cache_capacity(64);
    migrate(&conn, migrations)?;
    Ok(conn)
}

fn migrate(conn: &Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let at = usize::try_from(schema_version(conn)?).unwrap_or(0);
    for (version, sql) in migrations.iter().enumerate().skip(at) {
        let txn = conn.unchecked_transaction()?;
        txn.execute_batch(sql)?;
        txn.pragma_update(None, "user_version", i64::try_from(version + 1).unwrap_or(i64::MAX))?;
        txn.commit()?;
    }
    Ok(())
}

fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn open_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, error: &dyn ToString) -> OpenError {
    OpenError::Failed { path: path.to_owned(), why: error.to_string() }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    store_error(error).kind == ErrorKind::Corrupt
}

/// Sorts a failure of SQLite by what can be done about it.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    let kind = match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.extended_code & 0xff {
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
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    };
    StoreError::new(kind, format!("sqlite: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[&str] = &["CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT) STRICT"];

    fn open_file(path: &Path) -> Result<Connection, OpenError> {
        open(Some(path), "test database", SCHEMA, SyncMode::Normal)
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
    fn newer_files_are_refused_untouched_also_when_only_the_log_says_so() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("t.db");
        let conn = open_file(&path).expect("opens");
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets");
        conn.pragma_update(None, "user_version", 2).expect("sets");
        drop(conn);
        assert!(matches!(
            refused_untouched(folder.path(), &path),
            OpenError::Newer { found: 2, known: 1, .. }
        ));
        Connection::open(&path)
            .and_then(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .expect("folds in the log");
        assert!(matches!(refused_untouched(folder.path(), &path), OpenError::Newer { .. }));
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
        assert!(folder.join("lock").exists());
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
}
