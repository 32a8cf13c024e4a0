//! Fills the table of series from disk at the start.
//!
//! Invariant: every name, metadata and series keeps the number that it has on disk, so that the
//! next flush writes over the right rows.

use rusqlite::types::Type;
use rusqlite::{Connection, Error};

use super::checksum;
use super::record::{Record, State};
use super::table::SeriesTable;
use crate::model::series::{Metadata, MetricType, SeriesId};
use crate::store::embedded::sqlite::failed_to;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Fills an empty table from disk, every number as it is there. What has expired meanwhile
/// is loaded too: the first access turns it into deletions.
pub(super) fn load(conn: &Connection, table: &mut SeriesTable) -> StoreResult<()> {
    load_names(conn, table)
        .and_then(|()| load_metadata(conn, table))
        .and_then(|()| load_series(conn, table))
        .map_err(|error| match error {
            Error::SqliteFailure(..) => failed_to("read the series")(error),
            // The file is sound, but its rows are not what a flush writes.
            error => StoreError::caused_by(ErrorKind::Corrupt, "the series do not read", error),
        })
}

fn load_names(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT id, name, crc FROM names WHERE id IN (SELECT DISTINCT name FROM series) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text) = (row.get(0)?, row.get_ref(1)?.as_str()?);
        verify("names", row.get(2)?, checksum::name(id, text))?;
        table.core.names.load(id, text);
    }
    Ok(())
}

fn load_metadata(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT id, type, help, unit, crc FROM metadata
         WHERE id IN (SELECT DISTINCT metadata FROM samples) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let word = row.get_ref(1)?.as_str()?;
        let metric_type = MetricType::parse(word).map_err(|error| unfit(1, error.to_string()))?;
        let (id, help, unit) = (row.get(0)?, row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?);
        verify("metadata", row.get(4)?, checksum::metadata(id, word, help, unit))?;
        let (help, unit) = (help.into(), unit.into());
        table.core.metadata.load(id, Metadata { metric_type, help, unit });
    }
    Ok(())
}

fn load_series(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT slot, name, labels, value_bits, updated_at_nanos, metadata, series.crc, samples.crc
         FROM series LEFT JOIN samples USING (slot) ORDER BY slot",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: u32 = row.get(1)?;
        let metadata: u32 = row.get(5)?;
        if !table.core.names.holds(name) || !table.core.metadata.holds(metadata) {
            return Err(unfit(0, "a series has a name or metadata that is missing".to_owned()));
        }
        let (slot, labels) = (row.get(0)?, row.get_ref(2)?.as_str()?);
        let (bits, updated_at_nanos): (i64, i64) = (row.get(3)?, row.get(4)?);
        verify("series", row.get(6)?, checksum::key(slot, name, labels))?;
        let sample = checksum::sample(slot, bits, updated_at_nanos, metadata);
        verify("samples", row.get(7)?, sample)?;
        let value = f64::from_bits(bits.cast_unsigned());
        table.load_one(&Loaded { slot, name, labels, value, updated_at_nanos, metadata });
    }
    Ok(())
}

/// Compares a row's checksum; one that an earlier version wrote has none.
fn verify(table: &str, stored: Option<i64>, crc: i64) -> rusqlite::Result<()> {
    match stored {
        Some(stored) if stored != crc => {
            Err(unfit(0, format!("a row of {table} does not have its checksum")))
        }
        _ => Ok(()),
    }
}

/// Makes the error of a value that no flush has written.
fn unfit(column: usize, why: String) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, why.into())
}

/// A series as it was read from disk.
struct Loaded<'a> {
    slot: u32,
    name: u32,
    labels: &'a str,
    value: f64,
    updated_at_nanos: i64,
    metadata: u32,
}

impl SeriesTable {
    fn load_one(&mut self, loaded: &Loaded<'_>) {
        let entry = self.core.names.get_mut(loaded.name);
        entry.add(loaded.slot);
        let hash = SeriesId::of(&entry.name, loaded.labels).prefix();
        let shared = self.core.labels.find(loaded.labels, &self.core.slab);
        let first = shared.is_none();
        let labels = shared.unwrap_or_else(|| loaded.labels.into());
        let mut record = Record::reserved(loaded.name, labels, hash);
        record.state = State::Live;
        record.value = loaded.value;
        record.updated_at_nanos = loaded.updated_at_nanos;
        record.metadata = loaded.metadata;
        record.key_saved = true;
        self.core.metadata.retain(loaded.metadata);
        self.core.slab.insert_at(loaded.slot, record);
        self.core.index(loaded.slot, hash, first);
        self.held += 1;
        self.bytes += self.core.key_bytes(loaded.slot) + self.core.metadata.bytes(loaded.metadata);
        self.wheel.insert(loaded.slot, &mut self.core);
        let seq = self.log.append(loaded.slot, |_, _| true);
        self.core.slab.get_mut(loaded.slot).seq = seq;
    }
}
