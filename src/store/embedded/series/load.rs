//! Fills the table of series from disk at the start.
//!
//! Invariant: every name, metadata and series keeps the number that it has on disk, so that the
//! next flush writes over the right rows.

use rusqlite::types::Type;
use rusqlite::{Connection, Error};

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
        "SELECT id, name FROM names WHERE id IN (SELECT DISTINCT name FROM series) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        table.core.names.load(row.get(0)?, row.get_ref(1)?.as_str()?);
    }
    Ok(())
}

fn load_metadata(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT id, type, help, unit FROM metadata
         WHERE id IN (SELECT DISTINCT metadata FROM samples) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let word = row.get_ref(1)?.as_str()?;
        let metric_type = MetricType::parse(word).map_err(|error| unfit(1, error.to_string()))?;
        let help = row.get_ref(2)?.as_str()?.into();
        let unit = row.get_ref(3)?.as_str()?.into();
        table.core.metadata.load(row.get(0)?, Metadata { metric_type, help, unit });
    }
    Ok(())
}

fn load_series(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT slot, name, labels, value_bits, updated_at_nanos, metadata
         FROM series LEFT JOIN samples USING (slot) ORDER BY slot",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: u32 = row.get(1)?;
        let metadata: u32 = row.get(5)?;
        if !table.core.names.holds(name) || !table.core.metadata.holds(metadata) {
            return Err(unfit(0, "a series has a name or metadata that is missing".to_owned()));
        }
        let bits: i64 = row.get(3)?;
        table.load_one(&Loaded {
            slot: row.get(0)?,
            name,
            labels: row.get_ref(2)?.as_str()?,
            value: f64::from_bits(bits.cast_unsigned()),
            updated_at_nanos: row.get(4)?,
            metadata,
        });
    }
    Ok(())
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
        self.live += 1;
        self.wheel.insert(loaded.slot, &mut self.core);
        let seq = self.log.append(loaded.slot, |_, _| true);
        self.core.slab.get_mut(loaded.slot).seq = seq;
    }
}
