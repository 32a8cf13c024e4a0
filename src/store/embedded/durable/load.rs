//! Reads the file of the durable data at the start: the tables, then the journal in its order. Of a
//! paged table, only what the journal says about it.
//!
//! Invariant: where anything does not read, the file is left as it was.

use std::sync::Arc;

use rusqlite::Connection;

use super::journal::{self, Effect};
use super::paged::Readers;
use super::table::{TableForm, checksum};
use super::tables::Tables;
use crate::store::embedded::sqlite::{corrupt, failed_to};
use crate::store::{StoreError, StoreResult};

/// Where the journal begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct JournalExtent {
    /// The last entry that is in the tables.
    pub(super) compacted_seq: i64,
    /// The last entry.
    pub(super) last_seq: i64,
    /// The size of the entries in between.
    pub(super) bytes: usize,
}

/// Reads all rows into `tables`.
pub(super) fn load(
    conn: &Connection,
    readers: &Arc<Readers>,
    tables: &mut Tables,
) -> StoreResult<JournalExtent> {
    let compacted_seq: i64 = conn
        .query_row("SELECT seq FROM compacted", [], |row| row.get(0))
        .map_err(failed_to("read the journal"))?;
    tables.attach(conn, readers, compacted_seq)?;
    for form in tables.forms() {
        if form.end_of.is_none() {
            load_table(conn, tables, form)?;
        }
    }
    load_journal(conn, tables, compacted_seq)
}

fn load_table(conn: &Connection, tables: &mut Tables, form: TableForm) -> StoreResult<()> {
    let TableForm { tag, name, .. } = form;
    let failed = || failed_to("read a table");
    let mut select =
        conn.prepare(&format!("SELECT key, value, crc FROM {name}")).map_err(failed())?;
    let mut rows = select.query([]).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let (key, value) = (text(0).map_err(failed())?, text(1).map_err(failed())?);
        if checksum(tag, key, value) != row.get::<_, i64>(2).map_err(failed())? {
            return Err(corrupt(format!("a row of {name} does not have its checksum")));
        }
        tables
            .replay(conn, &Effect { tag, key, row: Some(value) }, 0)
            .map_err(|error| unreadable(&format!("a row of {name}"), &error))?;
    }
    Ok(())
}

fn load_journal(
    conn: &Connection,
    tables: &mut Tables,
    compacted_seq: i64,
) -> StoreResult<JournalExtent> {
    let failed = || failed_to("read the journal");
    let mut select =
        conn.prepare("SELECT seq, entry FROM journal ORDER BY seq").map_err(failed())?;
    let mut rows = select.query([]).map_err(failed())?;
    let mut extent = JournalExtent { compacted_seq, last_seq: compacted_seq, bytes: 0 };
    while let Some(row) = rows.next().map_err(failed())? {
        let seq: i64 = row.get(0).map_err(failed())?;
        if seq != extent.last_seq + 1 {
            return Err(corrupt(format!("journal entry {} is missing", extent.last_seq + 1)));
        }
        let entry = row.get_ref(1).and_then(|entry| Ok(entry.as_blob()?)).map_err(failed())?;
        for effect in journal::read(seq, entry).map_err(corrupt)? {
            tables
                .replay(conn, &effect, seq)
                .map_err(|error| unreadable(&format!("journal entry {seq}"), &error))?;
        }
        extent.last_seq = seq;
        extent.bytes += entry.len();
    }
    Ok(extent)
}

/// Says what does not read. The kind stays, since a paged table may fail to read its file.
fn unreadable(what: &str, error: &StoreError) -> StoreError {
    StoreError::new(error.kind, format!("{what} does not read: {}", error.with_causes()))
}
