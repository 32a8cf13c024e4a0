//! Compaction: moves the oldest entries of the journal into the tables, a few rows at a time.
//!
//! Works on what the entries say, not on what is in memory. Invariant: an entry leaves the
//! journal in the transaction that writes the last of the rows it is about.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::journal;
use super::paged;
use super::table::{TableForm, checksum};
use crate::store::StoreResult;
use crate::store::embedded::sqlite::{corrupt, failed_to};

/// Deleting the entries and the other ends of a compaction change about so many pages.
const PAGES_AT_THE_END: usize = 16;

/// The tag of a table, and a key in it.
type RowKey = (u8, String);

/// Some entries from the front of the journal, as the rows that they come to.
#[derive(Debug)]
pub(super) struct Compaction {
    /// Neighbours in a table are cheap to write together.
    rows: BTreeMap<RowKey, Option<String>>,
    last_seq: i64,
    bytes: usize,
    done: bool,
}

impl Compaction {
    /// Reads the entries after number `after`, about `limit_bytes` of them.
    pub(super) fn read(conn: &Connection, after: i64, limit_bytes: usize) -> StoreResult<Self> {
        let failed = || failed_to("read the journal");
        let mut this = Self { rows: BTreeMap::new(), last_seq: after, bytes: 0, done: false };
        let mut select = conn
            .prepare_cached("SELECT seq, entry FROM journal WHERE seq > ?1 ORDER BY seq")
            .map_err(failed())?;
        let mut entries = select.query([after]).map_err(failed())?;
        while this.bytes < limit_bytes
            && let Some(row) = entries.next().map_err(failed())?
        {
            this.last_seq = row.get(0).map_err(failed())?;
            let entry = row.get_ref(1).and_then(|entry| Ok(entry.as_blob()?)).map_err(failed())?;
            // A later entry replaces what an earlier one says about the same key.
            for effect in journal::read(this.last_seq, entry).map_err(corrupt)? {
                let row = effect.row.map(str::to_owned);
                this.rows.insert((effect.tag, effect.key.to_owned()), row);
            }
            this.bytes += entry.len();
        }
        Ok(this)
    }

    /// Returns the next `limit` rows.
    pub(super) fn next_piece(&self, limit: usize) -> Piece {
        Piece { until: self.rows.keys().nth(limit).cloned() }
    }

    /// Writes a piece into the tables, within the transaction that is open; with the last one, the
    /// entries leave the journal. [`Self::written`] follows once it is committed.
    ///
    /// A crash between two pieces leaves newer rows in the tables than the compacted entries say,
    /// which does no harm: the journal still has these entries, and a start applies them again.
    pub(super) fn write(
        &self,
        txn: &Connection,
        tables: &[TableForm],
        piece: &Piece,
    ) -> rusqlite::Result<()> {
        for form in tables {
            let TableForm { tag, name, .. } = form;
            let from = (*tag, String::new());
            let is_in = |key: &RowKey| {
                key.0 == *tag && piece.until.as_ref().is_none_or(|until| key < until)
            };
            let mut rows = self.rows.range(from..).take_while(|(key, _)| is_in(key)).peekable();
            if rows.peek().is_none() {
                continue;
            }
            if form.end_of.is_some() {
                let rows = rows.map(|((_, key), row)| (&**key, row.as_deref()));
                paged::write_rows(txn, form, rows)?;
                continue;
            }
            let mut put = txn.prepare_cached(&format!(
                "INSERT INTO {name} (key, value, crc) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, crc = excluded.crc"
            ))?;
            let mut delete = txn.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?1"))?;
            for ((_, key), row) in rows {
                match row {
                    Some(row) => put.execute(params![key, row, checksum(*tag, key, row)])?,
                    None => delete.execute([key])?,
                };
            }
        }
        if piece.is_last() {
            txn.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([self.last_seq])?;
            txn.prepare_cached("UPDATE compacted SET seq = ?1")?.execute([self.last_seq])?;
        }
        Ok(())
    }

    /// Notes that a piece is committed. Returns about how many pages that changed.
    pub(super) fn written(&mut self, piece: Piece) -> usize {
        let before = self.rows.len();
        self.done = piece.is_last();
        self.rows = piece.until.map(|until| self.rows.split_off(&until)).unwrap_or_default();
        before - self.rows.len() + if self.done { PAGES_AT_THE_END } else { 0 }
    }

    /// Returns whether all is written.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Returns the number of the last entry.
    pub(super) fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// Returns the size of the entries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The rows of a compaction that one transaction writes.
#[derive(Debug)]
pub(super) struct Piece {
    /// The first row behind them; `None` when they are the last.
    until: Option<RowKey>,
}

impl Piece {
    fn is_last(&self) -> bool {
        self.until.is_none()
    }
}
