//! Moves the oldest entries of the journal into the tables, a few rows at a time.
//!
//! Works on what the entries say, not on what is in memory. Invariant: an entry leaves the
//! journal in the transaction that writes the last of the rows it is about.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::file::{corrupt, sql};
use super::journal;
use super::transaction::TABLES;
use crate::store::StoreResult;

/// Some entries from the front of the journal, as the rows that they come to.
#[derive(Debug)]
pub(super) struct Compaction {
    /// By tag and key, since neighbours in a table are cheap to write together.
    rows: BTreeMap<(u8, String), Option<String>>,
    last_seq: i64,
    bytes: usize,
    done: bool,
}

impl Compaction {
    /// Reads the entries behind `after`, about `limit_bytes` of them.
    pub(super) fn read(conn: &Connection, after: i64, limit_bytes: usize) -> StoreResult<Self> {
        let mut compaction = Self { rows: BTreeMap::new(), last_seq: after, bytes: 0, done: false };
        let mut select = conn
            .prepare_cached("SELECT seq, entry FROM journal WHERE seq > ?1 ORDER BY seq")
            .map_err(sql)?;
        let mut entries = select.query([after]).map_err(sql)?;
        while compaction.bytes < limit_bytes
            && let Some(row) = entries.next().map_err(sql)?
        {
            compaction.last_seq = row.get(0).map_err(sql)?;
            let entry = row.get_ref(1).map_err(sql)?.as_blob().map_err(|e| sql(e.into()))?;
            for effect in journal::read(compaction.last_seq, entry).map_err(corrupt)? {
                let row = effect.row.map(str::to_owned);
                compaction.rows.insert((effect.tag, effect.key.to_owned()), row);
            }
            compaction.bytes += entry.len();
        }
        Ok(compaction)
    }

    /// Writes the next `limit` rows, in one transaction; with the last of them, the entries
    /// leave the journal. Gives about how many pages that changed.
    pub(super) fn write(&mut self, conn: &Connection, limit: usize) -> StoreResult<usize> {
        let rest = match self.rows.keys().nth(limit).cloned() {
            Some(key) => self.rows.split_off(&key),
            None => BTreeMap::new(),
        };
        let done = rest.is_empty();
        let outcome = self.write_rows(conn, done);
        let mut rows = rest;
        let pages = match outcome {
            Ok(()) => self.rows.len(),
            Err(error) => {
                self.rows.append(&mut rows);
                return Err(sql(error));
            }
        };
        self.rows = rows;
        self.done = done;
        Ok(pages + usize::from(done) * 16)
    }

    fn write_rows(&self, conn: &Connection, done: bool) -> rusqlite::Result<()> {
        let txn = conn.unchecked_transaction()?;
        for (tag, name) in TABLES {
            let from = (*tag, String::new());
            let mut rows = self.rows.range(from..).take_while(|((of, _), _)| of == tag).peekable();
            if rows.peek().is_none() {
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
        if done {
            txn.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([self.last_seq])?;
            txn.prepare_cached("UPDATE compacted SET seq = ?1")?.execute([self.last_seq])?;
        }
        txn.commit()
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

/// Returns the CRC-32 that stands beside a row. JSON holds no zero byte, so one can part them.
pub(super) fn checksum(tag: u8, key: &str, value: &str) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[tag]);
    hasher.update(key.as_bytes());
    hasher.update(&[0]);
    hasher.update(value.as_bytes());
    i64::from(hasher.finalize())
}
