//! The file of the durable data: a journal, and the tables that it is compacted into.
//!
//! A commit appends one entry to the journal, which costs the same however much is held. Later,
//! in small steps, [`Compaction`] moves what the oldest entries say into the tables, where a
//! key has one row. Invariant: tables first, then the journal in its order, gives the
//! committed state at every moment, also with a compaction cut off half way.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use super::compaction::{self, Compaction};
use super::journal::{self, Effect, Entry};
use super::transaction::{TABLES, Tables};
use crate::store::embedded::sqlite::SyncMode;
use crate::store::embedded::sqlite::{self, OpenError};
use crate::store::{ErrorKind, StoreError, StoreResult};

const WHAT: &str = "durable database";

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE journal (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
    CREATE TABLE compacted (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
    INSERT INTO compacted (one, seq) VALUES (1, 0);
    CREATE TABLE counters (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE locks (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE leases (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE checkpoints (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE generations (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
",
];

/// A journal of this size is compacted at leisure; it also bounds what one compaction holds in memory.
const COMPACT_BYTES: usize = 1 << 20;
/// ... and a smaller one when its oldest entry has this age.
const COMPACT_AGE: Duration = Duration::from_secs(2);
/// A journal of this size is compacted at the cost of the commands that wait: it is what a start
/// may have to read.
const OVERFULL_BYTES: usize = 256 << 20;

/// So many pages in SQLite's log are brought into the file when nobody waits ...
const LOG_PAGES: usize = 2_000;
/// ... and so many in any case.
const OVERFULL_LOG_PAGES: usize = 16_000;
const PAGE_BYTES: usize = 4096;

/// The open file.
#[derive(Debug)]
pub(super) struct DurableFile {
    conn: Connection,
    sync: SyncMode,
    /// What the connection is set to now: compacting needs no sync of its own.
    set_to: SyncMode,
    next_seq: i64,
    compacted_seq: i64,
    backlog_bytes: usize,
    backlog_since: Instant,
    log_pages: usize,
    compaction: Option<Compaction>,
    /// A commit failed, and nothing was written over what it may have left in the log.
    must_void: bool,
}

impl DurableFile {
    /// Opens the file, and reads all that it holds into `tables`.
    pub(super) fn open(
        path: &Path,
        sync: SyncMode,
        tables: &mut Tables,
    ) -> Result<Self, OpenError> {
        let conn = sqlite::open(Some(path), WHAT, MIGRATIONS, sync)?;
        let (compacted_seq, last_seq, backlog_bytes) = load(&conn, tables).map_err(|error| {
            let (path, why) = (path.to_owned(), error.detail);
            match error.kind {
                ErrorKind::Corrupt => OpenError::Damaged { what: WHAT, path, why },
                _ => OpenError::Failed { path, why },
            }
        })?;
        Ok(Self {
            conn,
            sync,
            set_to: sync,
            next_seq: last_seq + 1,
            compacted_seq,
            backlog_bytes,
            backlog_since: Instant::now(),
            log_pages: 0,
            compaction: None,
            must_void: false,
        })
    }

    /// Appends an entry: when this returns, it is on the disk as far as the sync mode says.
    ///
    /// Where that fails, a part of it may still stand in SQLite's log, and a restart would
    /// find it. So an empty entry is written over it at once, or else before the next one.
    pub(super) fn append(&mut self, entry: Entry) -> StoreResult<()> {
        if self.must_void {
            self.write(Entry::new())?;
            self.must_void = false;
        }
        self.write(entry).inspect_err(|_| {
            self.must_void = self.write(Entry::new()).is_err();
        })
    }

    fn write(&mut self, entry: Entry) -> StoreResult<()> {
        self.set_sync(self.sync)?;
        let bytes = entry.seal(self.next_seq);
        self.conn
            .prepare_cached("INSERT INTO journal (seq, entry) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![self.next_seq, bytes]))
            .map_err(sql)?;
        if self.backlog_bytes == 0 {
            self.backlog_since = Instant::now();
        }
        self.next_seq += 1;
        self.backlog_bytes += bytes.len();
        self.log_pages += 2 + bytes.len() / PAGE_BYTES;
        Ok(())
    }

    /// Returns whether a commit waits for the disk.
    pub(super) fn syncs(&self) -> bool {
        self.sync == SyncMode::Full
    }

    /// Returns whether entries wait to be compacted, or pages to be written out.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog_bytes > 0 || self.log_pages > LOG_PAGES
    }

    /// Returns whether a compaction may begin or go on at leisure.
    pub(super) fn is_due(&self) -> bool {
        self.compaction.is_some()
            || self.log_pages > LOG_PAGES
            || self.backlog_bytes >= COMPACT_BYTES
            || (self.backlog_bytes > 0 && self.backlog_since.elapsed() >= COMPACT_AGE)
    }

    /// Returns whether compacting must not wait any more.
    pub(super) fn is_overfull(&self) -> bool {
        self.backlog_bytes >= OVERFULL_BYTES || self.log_pages >= OVERFULL_LOG_PAGES
    }

    /// Compacts at most `rows` rows; when there are none left to compact, brings SQLite's log into the
    /// file where it has grown.
    pub(super) fn compact_step(&mut self, rows: usize) -> StoreResult<()> {
        let may_wait = self.backlog_bytes > 0 && self.log_pages < OVERFULL_LOG_PAGES;
        if self.log_pages > LOG_PAGES && !may_wait {
            return self.write_out("PASSIVE");
        }
        if self.backlog_bytes == 0 {
            return Ok(());
        }
        // A compaction promises nothing new: if a power cut takes it, the journal is still there.
        self.set_sync(SyncMode::Normal)?;
        let compaction = match self.compaction.take() {
            Some(compaction) => self.compaction.insert(compaction),
            None => self.compaction.insert(Compaction::read(
                &self.conn,
                self.compacted_seq,
                COMPACT_BYTES,
            )?),
        };
        self.log_pages += compaction.write(&self.conn, rows)?;
        if compaction.is_done() {
            self.compacted_seq = compaction.last_seq();
            self.backlog_bytes = self.backlog_bytes.saturating_sub(compaction.bytes());
            self.backlog_since = Instant::now();
            self.compaction = None;
            if self.compacted_seq + 1 == self.next_seq {
                self.backlog_bytes = 0;
            }
        }
        Ok(())
    }

    /// Compacts all, and leaves one file without a log.
    pub(super) fn close(mut self) -> StoreResult<()> {
        while self.backlog_bytes > 0 {
            self.compact_step(10_000)?;
        }
        self.set_sync(self.sync)?;
        self.write_out("TRUNCATE")?;
        self.conn.close().map_err(|(_, error)| sql(error))
    }

    fn write_out(&mut self, mode: &str) -> StoreResult<()> {
        self.conn
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
            .map_err(sql)?;
        self.log_pages = 0;
        Ok(())
    }

    fn set_sync(&mut self, sync: SyncMode) -> StoreResult<()> {
        if self.set_to != sync {
            let name = match sync {
                SyncMode::Full => "FULL",
                SyncMode::Normal => "NORMAL",
            };
            self.conn.pragma_update(None, "synchronous", name).map_err(sql)?;
            self.set_to = sync;
        }
        Ok(())
    }

    /// Returns the connection, so that a test can make commits fail.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
pub(super) fn sql(error: rusqlite::Error) -> StoreError {
    sqlite::store_error(&error)
}

pub(super) fn corrupt(why: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, why)
}

fn load(conn: &Connection, tables: &mut Tables) -> StoreResult<(i64, i64, usize)> {
    // Done at leisure instead: SQLite would do it within a commit.
    conn.pragma_update(None, "wal_autocheckpoint", 0).map_err(sql)?;
    // Where what follows fails, the files stay as they are.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    load_tables(conn, tables)?;
    let place = load_journal(conn, tables)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
    Ok(place)
}

fn load_tables(conn: &Connection, tables: &mut Tables) -> StoreResult<()> {
    for (tag, name) in TABLES {
        let mut select =
            conn.prepare(&format!("SELECT key, value, crc FROM {name}")).map_err(sql)?;
        let mut rows = select.query([]).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let text = |n| row.get_ref(n)?.as_str().map_err(rusqlite::Error::from);
            let (key, value) = (text(0).map_err(sql)?, text(1).map_err(sql)?);
            if compaction::checksum(*tag, key, value) != row.get::<_, i64>(2).map_err(sql)? {
                return Err(corrupt(format!("a row of {name} does not have its checksum")));
            }
            tables
                .replay(&Effect { tag: *tag, key, row: Some(value) })
                .map_err(|why| corrupt(format!("a row of {name} does not read: {why}")))?;
        }
    }
    Ok(())
}

/// Returns the last entry that was compacted, the last that there is, and how many bytes lie between.
fn load_journal(conn: &Connection, tables: &mut Tables) -> StoreResult<(i64, i64, usize)> {
    let compacted_seq: i64 =
        conn.query_row("SELECT seq FROM compacted", [], |row| row.get(0)).map_err(sql)?;
    let mut select = conn.prepare("SELECT seq, entry FROM journal ORDER BY seq").map_err(sql)?;
    let mut rows = select.query([]).map_err(sql)?;
    let mut last_seq = compacted_seq;
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(sql)? {
        let seq: i64 = row.get(0).map_err(sql)?;
        if seq != last_seq + 1 {
            return Err(corrupt(format!("journal entry {} is missing", last_seq + 1)));
        }
        let entry = row.get_ref(1).map_err(sql)?.as_blob().map_err(|e| sql(e.into()))?;
        for effect in journal::read(seq, entry).map_err(corrupt)? {
            tables
                .replay(&effect)
                .map_err(|why| corrupt(format!("journal entry {seq} does not read: {why}")))?;
        }
        last_seq = seq;
        bytes += entry.len();
    }
    Ok((compacted_seq, last_seq, bytes))
}
