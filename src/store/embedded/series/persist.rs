//! The series on disk: `buffered.db`, and how they come and go.
//!
//! The disk follows memory: a flush writes the newest state of every marked series in one
//! transaction, under the slot's number. Keys and samples lie in tables of their own, so that a
//! push of known series rewrites few pages. Values are kept as their bits: SQLite would turn NaN
//! into NULL. Invariant: a transaction holds the state of one moment.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::record::{BuildSlotHasher, Record, State};
use super::table::SeriesTable;
use crate::model::series::{Metadata, MetricType, SeriesId};
use crate::store::embedded::buffered::dirty::Drained;
use crate::store::embedded::sqlite::store_error;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The schema of `buffered.db`, a migration each.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
    CREATE TABLE metadata (
        id INTEGER PRIMARY KEY, type TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL
    ) STRICT;
    CREATE TABLE series (slot INTEGER PRIMARY KEY, name INTEGER NOT NULL, labels TEXT NOT NULL) STRICT;
    CREATE TABLE samples (
        slot INTEGER PRIMARY KEY,
        value_bits INTEGER NOT NULL,
        updated_at_nanos INTEGER NOT NULL,
        metadata INTEGER NOT NULL
    ) STRICT;
"];

/// What a flush is about to write, read from memory at one moment.
#[derive(Debug, Default)]
pub(super) struct FlushBatch {
    pub(super) marks: Option<Drained<u32, BuildSlotHasher>>,
    names: Vec<(u32, Arc<str>)>,
    metadata: Vec<(u32, Arc<Metadata>)>,
    keys: Vec<(u32, u32, Arc<str>)>,
    samples: Vec<SampleRow>,
    deleted: Vec<u32>,
}

#[derive(Debug)]
struct SampleRow {
    slot: u32,
    value_bits: u64,
    updated_at_nanos: i64,
    metadata: u32,
}

impl SeriesTable {
    /// Takes all marks and reads what they stand for now.
    pub(super) fn begin_flush(&mut self) -> FlushBatch {
        let marks = self.dirty.drain();
        let mut slots: Vec<u32> = marks.keys.iter().copied().collect();
        // In the order of the disk's pages.
        slots.sort_unstable();
        let mut batch = FlushBatch { marks: Some(marks), ..FlushBatch::default() };
        for slot in slots {
            let record = self.core.slab.get_mut(slot);
            if record.state != State::Live {
                batch.deleted.push(slot);
                record.key_saved = false;
                continue;
            }
            batch.samples.push(SampleRow {
                slot,
                value_bits: record.value.to_bits(),
                updated_at_nanos: record.updated_at_nanos,
                metadata: record.metadata,
            });
            let (name, metadata) = (record.name, record.metadata);
            if !std::mem::replace(&mut record.key_saved, true) {
                batch.keys.push((slot, name, Arc::clone(&record.labels)));
                let entry = self.core.names.get_mut(name);
                if !std::mem::replace(&mut entry.saved, true) {
                    batch.names.push((name, Arc::clone(&entry.name)));
                }
            }
            if !self.core.metadata.mark_saved(metadata) {
                let entry = self.core.metadata.get(metadata).cloned();
                batch.metadata.extend(entry.map(|entry| (metadata, entry)));
            }
        }
        batch
    }

    /// Marks again what could not be written.
    pub(super) fn undo_flush(&mut self, batch: FlushBatch) {
        for (slot, name, _) in batch.keys {
            self.core.slab.get_mut(slot).key_saved = false;
            self.core.names.get_mut(name).saved = false;
        }
        for (id, _) in batch.metadata {
            self.core.metadata.mark_unsaved(id);
        }
        if let Some(marks) = batch.marks {
            self.dirty.merge_back(marks);
        }
    }
}

impl FlushBatch {
    /// Returns how many series the batch writes or deletes.
    pub(super) fn len(&self) -> usize {
        self.samples.len() + self.deleted.len()
    }

    /// Writes the batch in one transaction.
    pub(super) fn write(&self, connection: &mut Connection) -> StoreResult<()> {
        self.try_write(connection).map_err(|error| store_error(&error))
    }

    fn try_write(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        {
            let mut name = transaction.prepare_cached("REPLACE INTO names VALUES (?, ?)")?;
            for (id, text) in &self.names {
                name.execute(params![id, text])?;
            }
            let mut metadata =
                transaction.prepare_cached("REPLACE INTO metadata VALUES (?, ?, ?, ?)")?;
            for (id, entry) in &self.metadata {
                let word = entry.metric_type.as_str();
                metadata.execute(params![id, word, entry.help, entry.unit])?;
            }
            let mut key = transaction.prepare_cached("REPLACE INTO series VALUES (?, ?, ?)")?;
            for (slot, name, labels) in &self.keys {
                key.execute(params![slot, name, labels])?;
            }
            let mut sample =
                transaction.prepare_cached("REPLACE INTO samples VALUES (?, ?, ?, ?)")?;
            for row in &self.samples {
                sample.execute(params![
                    row.slot,
                    row.value_bits.cast_signed(),
                    row.updated_at_nanos,
                    row.metadata
                ])?;
            }
            let mut no_key = transaction.prepare_cached("DELETE FROM series WHERE slot = ?")?;
            let mut no_sample = transaction.prepare_cached("DELETE FROM samples WHERE slot = ?")?;
            for slot in &self.deleted {
                no_key.execute([slot])?;
                no_sample.execute([slot])?;
            }
        }
        transaction.commit()
    }
}

/// Fills an empty table from disk, every number as it stands there. What has expired meanwhile
/// is taken too: the first access turns it into deletions.
pub(super) fn load(connection: &Connection, table: &mut SeriesTable) -> StoreResult<()> {
    load_names(connection, table)
        .and_then(|()| load_metadata(connection, table))
        .and_then(|()| load_series(connection, table))
        .map_err(|error| match error {
            rusqlite::Error::SqliteFailure(..) => store_error(&error),
            other => StoreError::new(ErrorKind::Corrupt, format!("buffered.db: {other}")),
        })
}

fn load_names(connection: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT id, name FROM names WHERE id IN (SELECT DISTINCT name FROM series) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        table.core.names.load(row.get(0)?, row.get_ref(1)?.as_str()?);
    }
    Ok(())
}

fn load_metadata(connection: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT id, type, help, unit FROM metadata
         WHERE id IN (SELECT DISTINCT metadata FROM samples) ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let word = row.get_ref(1)?.as_str()?;
        let metric_type = MetricType::parse(word).ok_or(rusqlite::Error::InvalidQuery)?;
        let help = row.get_ref(2)?.as_str()?.into();
        let unit = row.get_ref(3)?.as_str()?.into();
        table.core.metadata.load(row.get(0)?, Metadata { metric_type, help, unit });
    }
    Ok(())
}

fn load_series(connection: &Connection, table: &mut SeriesTable) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT slot, name, labels, value_bits, updated_at_nanos, metadata
         FROM series LEFT JOIN samples USING (slot) ORDER BY slot",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: u32 = row.get(1)?;
        let metadata: u32 = row.get(5)?;
        if !table.core.names.holds(name) || !table.core.metadata.holds(metadata) {
            return Err(rusqlite::Error::QueryReturnedNoRows);
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
