//! The file of the durable data: a journal, and the tables that it is compacted into.
//!
//! A commit appends one entry to the journal, which costs the same however much is held. Later commits
//! carry small pieces of a [`Compaction`] with them, which moves what the oldest entries say into the
//! tables, where a key has one row. Invariant: tables first, then the journal in its order, is the committed
//! state at every moment, even when a compaction was cut off halfway.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::compaction::{Compaction, Piece};
use super::journal::Entry;
use super::load::load;
use super::paged::Readers;
use super::table::TableForm;
use super::tables::Tables;
use crate::store::StoreResult;
use crate::store::embedded::sqlite::{
    self, CheckedFile, Missing, OpenError, SchemaPart, SyncMode, WalCheckpoints, failed_to,
};

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
/// Closing begins transactions for this long. A stop does not wait for a long journal: the next start reads it.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// The open file.
#[derive(Debug)]
pub(in crate::store::embedded) struct DurableFile {
    conn: Connection,
    wal: WalCheckpoints,
    sync: SyncMode,
    /// How every table stands in the file.
    tables: Vec<TableForm>,
    /// The connections that read the rows of paged tables.
    readers: Arc<Readers>,
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
    /// The sync of a commit failed, and the log was not copied since.
    sync_failed: bool,
    closing_time: Duration,
}

impl DurableFile {
    /// Looks at the file at `path` without changing it.
    pub(super) fn check(
        path: &Path,
        tables: &Tables,
        missing: Missing,
    ) -> Result<CheckedFile, OpenError> {
        let parts = std::iter::once(JOURNAL).chain(tables.schema()).collect();
        CheckedFile::look_at(path, WHAT, parts, missing)
    }

    /// Opens the file, and reads all that it holds into `tables`.
    pub(super) fn open(
        file: &CheckedFile,
        sync: SyncMode,
        tables: &mut Tables,
    ) -> Result<Self, OpenError> {
        let conn = file.open(sync)?;
        let readers = Arc::new(Readers::new(file.path()));
        let extent = load(&conn, &readers, tables).map_err(|error| file.unreadable(error))?;
        Ok(Self {
            conn,
            wal: WalCheckpoints::of(file)?,
            sync,
            tables: tables.forms(),
            readers,
            next_seq: extent.last_seq + 1,
            compacted_seq: extent.compacted_seq,
            backlog_bytes: extent.bytes,
            backlog_since: Instant::now(),
            log_pages: 0,
            compaction: None,
            must_void: false,
            sync_failed: false,
            closing_time: CLOSING_TIME,
        })
    }

    /// Commits what opening the file has changed, and brings to disk what an earlier process left in the log.
    pub(super) fn make_whole(&self) -> StoreResult<()> {
        self.wal.make_whole(&self.conn)
    }

    /// Appends an entry, and moves up to `rows` rows of the journal into the tables in the same
    /// transaction, so that one sync covers both. When this returns, all of it is on disk as far as
    /// the sync mode says.
    ///
    /// When that fails, the transaction's pages may stand in SQLite's log all the same: the write can
    /// succeed and only the sync fail. SQLite forgets them, but a restart would find them, and the
    /// failed commit would come true after its callers were told that it failed. So an empty entry
    /// is committed under the same number, which writes over those pages: at once, or, when the
    /// disk does not allow that yet, before the next entry.
    pub(super) fn append(&mut self, entry: Entry, rows: usize) -> StoreResult<()> {
        self.void()?;
        self.commit(Some(entry), rows).inspect_err(|_| {
            self.must_void = true;
            // Where this fails as well, it is tried again before the next entry.
            drop(self.void());
        })
    }

    /// Compacts at most `rows` rows, in a transaction of their own.
    pub(in crate::store::embedded) fn compact(&mut self, rows: usize) -> StoreResult<()> {
        self.void()?;
        self.commit(None, rows)
    }

    /// Writes over what a failed transaction may have left.
    ///
    /// After a failed sync, the log is copied into the file first, and so begins anew. Then nothing is
    /// written behind pages that are perhaps not on disk, nor to the blocks that failed.
    fn void(&mut self) -> StoreResult<()> {
        if self.sync_failed {
            self.checkpoint()?;
            self.sync_failed = false;
        }
        if self.must_void {
            self.commit(Some(Entry::new()), 0)?;
            self.must_void = false;
        }
        Ok(())
    }

    /// Runs one transaction: an entry, a piece of a compaction, or both.
    ///
    /// In `full`, each of them is synced before the next one begins: at most one transaction is not on
    /// disk at any moment, and it is one that nobody was told of.
    fn commit(&mut self, entry: Option<Entry>, rows: usize) -> StoreResult<()> {
        self.wal.check_present()?;
        let bytes = entry.map(|entry| entry.seal(self.next_seq));
        let piece = if rows > 0 { self.next_piece(rows)? } else { None };
        self.write(bytes.as_deref(), piece.as_ref()).map_err(|error| {
            if sqlite::is_failed_sync(&error) {
                (self.sync_failed, self.must_void) = (true, true);
            }
            failed_to("commit")(error)
        })?;
        // Only now: what failed leaves its number to the next entry, and its rows to the next piece.
        if let Some(bytes) = bytes {
            if self.backlog_bytes == 0 {
                self.backlog_since = Instant::now();
            }
            self.next_seq += 1;
            self.backlog_bytes += bytes.len();
            self.log_pages += 2 + bytes.len() / PAGE_BYTES;
        }
        if let Some(piece) = piece {
            self.note_written(piece);
        }
        Ok(())
    }

    /// Returns what comes next in the running compaction, or in a new one; `None` without a backlog.
    fn next_piece(&mut self, rows: usize) -> StoreResult<Option<Piece>> {
        if self.backlog_bytes == 0 {
            return Ok(None);
        }
        if self.compaction.is_none() {
            let begun = Compaction::read(&self.conn, self.compacted_seq, COMPACT_BYTES)?;
            self.compaction = Some(begun);
        }
        Ok(self.compaction.as_ref().map(|compaction| compaction.next_piece(rows)))
    }

    fn write(&self, entry: Option<&[u8]>, piece: Option<&Piece>) -> rusqlite::Result<()> {
        let insert = |entry: &[u8]| {
            self.conn
                .prepare_cached("INSERT INTO journal (seq, entry) VALUES (?1, ?2)")?
                .execute(params![self.next_seq, entry])
        };
        let (Some(piece), Some(compaction)) = (piece, &self.compaction) else {
            // A single statement is a transaction by itself, and costs less than three.
            return entry.map_or(Ok(()), |entry| insert(entry).map(drop));
        };
        let txn = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        entry.map_or(Ok(0), insert)?;
        compaction.write(&txn, &self.tables, piece)?;
        txn.commit()
    }

    fn note_written(&mut self, piece: Piece) {
        let Some(compaction) = &mut self.compaction else { return };
        self.log_pages += compaction.written(piece);
        if compaction.is_done() {
            self.compacted_seq = compaction.last_seq();
            self.backlog_bytes = self.backlog_bytes.saturating_sub(compaction.bytes());
            self.backlog_since = Instant::now();
            self.compaction = None;
            if self.compacted_seq + 1 == self.next_seq {
                self.backlog_bytes = 0;
            }
        }
    }

    /// Returns the number of the last entry.
    pub(super) fn last_seq(&self) -> i64 {
        self.next_seq - 1
    }

    /// Returns the number of the last entry that is in the tables, as are all before it.
    pub(super) fn compacted_seq(&self) -> i64 {
        self.compacted_seq
    }

    /// Returns whether a commit waits for the disk.
    pub(super) fn syncs(&self) -> bool {
        self.sync == SyncMode::Full
    }

    /// Returns whether entries wait to be compacted, or pages to be written into the file.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog_bytes > 0 || self.log_pages > LOG_PAGES
    }

    /// Returns whether rows should be compacted.
    pub(super) fn wants_compaction(&self) -> bool {
        self.compaction.is_some()
            || self.backlog_bytes >= COMPACT_BYTES
            || (self.backlog_bytes > 0 && self.backlog_since.elapsed() >= COMPACT_AGE)
    }

    /// Returns whether compaction must not wait any longer.
    pub(super) fn is_overfull(&self) -> bool {
        self.backlog_bytes >= OVERFULL_BYTES
    }

    /// Returns whether SQLite's log should be written into the file. Compaction comes first, while the
    /// log has room: what it writes then shares the WAL checkpoint.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let may_wait = self.backlog_bytes > 0 && self.log_pages < OVERFULL_LOG_PAGES;
        self.log_pages > LOG_PAGES && !may_wait
    }

    /// Writes SQLite's log into the file.
    pub(super) fn checkpoint(&mut self) -> StoreResult<()> {
        self.wal.run(&self.conn)?;
        self.log_pages = 0;
        Ok(())
    }

    /// Compacts what the time allows, and leaves one file without a log.
    pub(super) fn close(mut self) -> StoreResult<()> {
        self.void()?;
        let begun = Instant::now();
        while self.backlog_bytes > 0 && begun.elapsed() < self.closing_time {
            self.compact(CLOSING_ROWS)?;
        }
        self.readers.close();
        self.wal.close(self.conn)
    }

    /// Lets every commit carry a piece of a compaction with it until the journal is empty.
    #[cfg(test)]
    pub(in crate::store::embedded) fn overfill(&mut self) {
        self.backlog_bytes += OVERFULL_BYTES;
    }

    /// Lets closing leave the journal as it is.
    #[cfg(test)]
    pub(in crate::store::embedded) fn close_at_once(&mut self) {
        self.closing_time = Duration::ZERO;
    }

    /// Returns the connection, so that a test can make commits fail.
    #[cfg(test)]
    pub(in crate::store::embedded) fn connection(&self) -> &Connection {
        &self.conn
    }
}
