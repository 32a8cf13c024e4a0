//! Fills the table of series from disk at the start.
//!
//! Invariant: every name, metadata and series keeps the number that it has on disk, so that the
//! next flush writes over the right rows.

use std::collections::HashMap;

use rusqlite::types::Type;
use rusqlite::{Connection, Error};

use super::checksum::{self, SampleRow};
use super::record::{Record, State};
use super::roles::NO_ROLE;
use super::table::SeriesTable;
use crate::model::roles::RoleName;
use crate::model::series::{Metadata, MetricType, SeriesId};
use crate::store::embedded::sqlite::failed_to;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How many series go from one thread to the other at once, and how often they may before the other has taken them.
const BATCH_ROWS: usize = 1024;
const MOST_BATCHES: usize = 8;

/// Fills an empty table from disk, every number as it is there. What has expired meanwhile
/// is loaded too: the first access turns it into deletions.
pub(super) fn load(conn: &Connection, table: &mut SeriesTable) -> StoreResult<()> {
    load_names(conn, table)
        .and_then(|()| load_metadata(conn, table))
        .and_then(|()| read_roles(conn))
        .and_then(|roles| load_series(conn, table, &roles))
        .inspect(|()| {
            table.core.names.index_loaded();
            table.core.metadata.index_loaded();
        })
        .map_err(|error| match error {
            Error::SqliteFailure(..) => failed_to("read the series")(error),
            // The file is sound, but its rows are not what a flush writes.
            error => StoreError::caused_by(ErrorKind::Corrupt, "the series do not read", error),
        })
}

fn load_names(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("SELECT id, name, crc FROM names ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text) = (row.get(0)?, row.get_ref(1)?.as_str()?);
        verify("names", row.get(2)?, checksum::name(id, text))?;
        table.core.names.load(id, text);
    }
    Ok(())
}

fn load_metadata(conn: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement =
        conn.prepare("SELECT id, type, help, unit, crc FROM metadata ORDER BY id")?;
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

/// Reads the roles. Only those that series have are loaded, with the series.
fn read_roles(conn: &Connection) -> rusqlite::Result<HashMap<u8, RoleName>> {
    let mut roles = HashMap::new();
    let mut statement = conn.prepare("SELECT id, name, crc FROM roles")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, name) = (row.get(0)?, row.get_ref(1)?.as_str()?);
        verify("roles", row.get(2)?, checksum::role(number, name))?;
        roles.insert(number, RoleName::parse(name).map_err(|error| unfit(1, error.to_string()))?);
    }
    Ok(roles)
}

/// Reads the series on this thread, and fills the table on another one: each takes about as long.
fn load_series(
    conn: &Connection,
    table: &mut SeriesTable,
    roles: &HashMap<u8, RoleName>,
) -> rusqlite::Result<()> {
    let (send, receive) = std::sync::mpsc::sync_channel::<Batch>(MOST_BATCHES);
    std::thread::scope(|scope| {
        let fill =
            scope.spawn(move || receive.iter().try_for_each(|batch| table.load(&batch, roles)));
        // A batch that does not fit ends that thread, and with it the reading.
        let read = read_series(conn, |batch| send.send(batch).is_ok());
        drop(send);
        fill.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(read)
    })
}

/// Reads all series in the order of their slots, until `take` refuses a batch.
fn read_series(conn: &Connection, take: impl Fn(Batch) -> bool) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT slot, name, labels, value_bits, updated_at_nanos, metadata, series.crc, samples.crc, role
         FROM series LEFT JOIN samples USING (slot) ORDER BY slot",
    )?;
    let mut rows = statement.query([])?;
    let mut batch = Batch::default();
    while let Some(row) = rows.next()? {
        let (slot, name, metadata) = (row.get(0)?, row.get(1)?, row.get(5)?);
        let labels = row.get_ref(2)?.as_str()?;
        verify("series", row.get(6)?, checksum::key(slot, name, labels))?;
        let (value_bits, updated_at_nanos) = (row.get(3)?, row.get(4)?);
        let sample = SampleRow { value_bits, updated_at_nanos, metadata, role: row.get(8)? };
        verify("samples", row.get(7)?, checksum::sample(slot, &sample))?;
        let labels_bytes = labels.len();
        batch.labels.push_str(labels);
        batch.rows.push(Loaded { slot, name, labels_bytes, sample });
        if batch.rows.len() == BATCH_ROWS && !take(std::mem::take(&mut batch)) {
            return Ok(());
        }
    }
    take(batch);
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

/// Series on their way from the disk into the table.
#[derive(Default)]
struct Batch {
    rows: Vec<Loaded>,
    /// The labels of all of them, one behind the other.
    labels: String,
}

/// A series as it was read from disk.
struct Loaded {
    slot: u32,
    name: u32,
    labels_bytes: usize,
    sample: SampleRow,
}

impl SeriesTable {
    fn load(&mut self, batch: &Batch, roles: &HashMap<u8, RoleName>) -> rusqlite::Result<()> {
        let mut rest = &*batch.labels;
        for loaded in &batch.rows {
            let core = &self.core;
            if !core.names.holds(loaded.name) || !core.metadata.holds(loaded.sample.metadata) {
                let why = "a series has a name or metadata that is missing";
                return Err(unfit(0, why.to_owned()));
            }
            let role = loaded.sample.role.unwrap_or(NO_ROLE);
            if role != NO_ROLE && self.roles.get(role).is_none() {
                let missing = || unfit(8, "a series has a role that is missing".to_owned());
                self.roles.load(role, roles.get(&role).ok_or_else(missing)?.clone());
            }
            let (labels, behind) = rest.split_at(loaded.labels_bytes);
            rest = behind;
            self.load_one(loaded, labels);
        }
        Ok(())
    }

    fn load_one(&mut self, loaded: &Loaded, labels: &str) {
        let entry = self.core.names.get_mut(loaded.name);
        entry.add(loaded.slot);
        let hash = SeriesId::of(&entry.name, labels).prefix();
        let shared = self.core.labels.find(labels, &self.core.slab);
        let first = shared.is_none();
        let labels = shared.unwrap_or_else(|| labels.into());
        let mut record = Record::reserved(loaded.name, labels, hash);
        record.state = State::Live;
        let SampleRow { value_bits, updated_at_nanos, metadata, role } = loaded.sample;
        record.value = f64::from_bits(value_bits.cast_unsigned());
        record.updated_at_nanos = updated_at_nanos;
        record.metadata = metadata;
        record.role = role.unwrap_or(NO_ROLE);
        record.key_saved = true;
        self.core.metadata.retain(metadata);
        self.core.slab.insert_at(loaded.slot, record);
        self.core.index(loaded.slot, hash, first);
        self.held += 1;
        self.bytes += self.core.key_bytes(loaded.slot) + self.core.metadata.bytes(metadata);
        self.wheel.insert(loaded.slot, &mut self.core);
        let seq = self.log.append(loaded.slot, |_, _| true);
        self.core.slab.get_mut(loaded.slot).seq = seq;
    }
}
