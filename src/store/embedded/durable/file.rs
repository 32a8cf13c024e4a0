//! The file of the durable data: a journal, and the tables that it is compacted into.
//!
//! A commit appends one entry to the journal, which costs the same however much is held. Later,
//! in small steps, [`Compaction`] moves what the oldest entries say into the tables, where a
//! key has one row. Invariant: tables first, then the journal in its order, is the committed
//! state at every moment, even when a compaction was cut off halfway.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::compaction::Compaction;
use super::journal::Entry;
use super::load::load;
use super::tables::Tables;
use crate::store::StoreResult;
use crate::store::embedded::sqlite::{self, OpenError, SchemaPart, SyncMode, failed_to};

const WHAT: &str = "durable database";

/// The journal's own tables. `compacted` holds the number of the last entry that left it.
const JOURNAL: SchemaPart = SchemaPart {
    name: "journal",
    migrations: &["CREATE TABLE journal (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
         CREATE TABLE compacted (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL)
             STRICT;
         INSERT INTO compacted (one, seq) VALUES (1, 0)"],
};

/// A journal of this size is compacted at leisure; it also bounds what one compaction holds in
/// memory.
const COMPACT_BYTES: usize = 1 << 20;
/// ... and a smaller one when its oldest entry has this age.
const COMPACT_AGE: Duration = Duration::from_secs(2);
/// A journal of this size is compacted although commands are waiting: it is what a start may have
/// to read.
const OVERFULL_BYTES: usize = 256 << 20;

/// So many pages in SQLite's log are written into the file when no command is waiting ...
const LOG_PAGES: usize = 2_000;
/// ... and so many in any case.
const OVERFULL_LOG_PAGES: usize = 16_000;
const PAGE_BYTES: usize = 4096;

/// Rows that closing writes in one transaction.
const CLOSING_ROWS: usize = 10_000;

/// The open file.
#[derive(Debug)]
pub(in crate::store::embedded) struct DurableFile {
    conn: Connection,
    sync: SyncMode,
    /// The connection's setting now: a compaction needs no sync of its own.
    set_to: SyncMode,
    /// The tag and the name of every table.
    tables: Vec<(u8, &'static str)>,
    next_seq: i64,
    compacted_seq: i64,
    /// The size of the entries that are not compacted.
    backlog_bytes: usize,
    backlog_since: Instant,
    /// About how many pages are in SQLite's log.
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
        let parts: Vec<_> = std::iter::once(JOURNAL).chain(tables.schema()).collect();
        let conn = sqlite::open(Some(path), WHAT, &parts, sync)?;
        let extent =
            load(&conn, tables).map_err(|error| OpenError::unreadable(WHAT, path, error))?;
        Ok(Self {
            conn,
            sync,
            set_to: sync,
            tables: tables.names(),
            next_seq: extent.last_seq + 1,
            compacted_seq: extent.compacted_seq,
            backlog_bytes: extent.bytes,
            backlog_since: Instant::now(),
            log_pages: 0,
            compaction: None,
            must_void: false,
        })
    }

    /// Appends an entry: when this returns, it is on disk as far as the sync mode says.
    ///
    /// When that fails, the transaction's pages may stand in SQLite's log all the same: the write can
    /// succeed and only the sync fail. SQLite forgets them, but a restart would find them, and the
    /// failed commit would come true after its callers were told that it failed. So an empty entry
    /// is committed under the same number, which writes over those pages: at once, or, when the
    /// disk does not allow that yet, before the next entry.
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
            .map_err(failed_to("append to the journal"))?;
        if self.backlog_bytes == 0 {
            self.backlog_since = Instant::now();
        }
        // Only now: an entry that failed leaves its number to the next one.
        self.next_seq += 1;
        self.backlog_bytes += bytes.len();
        self.log_pages += 2 + bytes.len() / PAGE_BYTES;
        Ok(())
    }

    /// Returns whether a commit waits for the disk.
    pub(super) fn syncs(&self) -> bool {
        self.sync == SyncMode::Full
    }

    /// Returns whether entries wait to be compacted, or pages to be written into the file.
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

    /// Returns whether compaction must not wait any longer.
    pub(super) fn is_overfull(&self) -> bool {
        self.backlog_bytes >= OVERFULL_BYTES || self.log_pages >= OVERFULL_LOG_PAGES
    }

    /// Compacts at most `rows` rows; when there are none left, runs a WAL checkpoint if SQLite's log
    /// has grown.
    pub(in crate::store::embedded) fn compact_step(&mut self, rows: usize) -> StoreResult<()> {
        // Compaction first, while the log has room: what it writes then shares the WAL checkpoint.
        let checkpoint_may_wait = self.backlog_bytes > 0 && self.log_pages < OVERFULL_LOG_PAGES;
        if self.log_pages > LOG_PAGES && !checkpoint_may_wait {
            return self.checkpoint_wal("PASSIVE");
        }
        if self.backlog_bytes == 0 {
            return Ok(());
        }
        // A compaction promises nothing new: if a power cut takes it, the journal is still there.
        self.set_sync(SyncMode::Normal)?;
        let compaction = match self.compaction.take() {
            Some(begun) => self.compaction.insert(begun),
            None => {
                let read = Compaction::read(&self.conn, self.compacted_seq, COMPACT_BYTES)?;
                self.compaction.insert(read)
            }
        };
        self.log_pages += compaction.write(&self.conn, &self.tables, rows)?;
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
            self.compact_step(CLOSING_ROWS)?;
        }
        self.set_sync(self.sync)?;
        self.checkpoint_wal("TRUNCATE")?;
        self.conn.close().map_err(|(_, error)| failed_to("close the durable database")(error))
    }

    fn checkpoint_wal(&mut self, mode: &str) -> StoreResult<()> {
        self.conn
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
            .map_err(failed_to("write the log into the durable database"))?;
        self.log_pages = 0;
        Ok(())
    }

    fn set_sync(&mut self, sync: SyncMode) -> StoreResult<()> {
        if self.set_to != sync {
            self.conn
                .pragma_update(None, "synchronous", sync.pragma())
                .map_err(failed_to("set the sync mode"))?;
            self.set_to = sync;
        }
        Ok(())
    }

    /// Returns the connection, so that a test can make commits fail.
    #[cfg(test)]
    pub(in crate::store::embedded) fn connection(&self) -> &Connection {
        &self.conn
    }
}
