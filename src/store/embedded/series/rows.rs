//! The series on disk, and how they come and go.
//!
//! The disk follows memory: a flush writes the newest state of every marked series under its
//! slot's number. Keys and samples lie in tables of their own, so that a
//! push of known series rewrites few pages. Values are kept as their bits: SQLite would turn NaN
//! into NULL. Invariant: what is drained is the state of one moment.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction, params};

use super::checksum::{self, SampleRow};
use super::load::load;
use super::purge::PURGED_AT_ONCE;
use super::record::{BuildSlotHasher, State};
use super::table::SeriesTable;
use crate::model::roles::RoleName;
use crate::model::series::Metadata;
use crate::store::embedded::buffered::{BufferedSet, Drained, FlushBatch, LockedSet, Unflushed};
use crate::store::embedded::sqlite::SchemaPart;
use crate::store::{SeriesSettings, StoreResult};

const SCHEMA: SchemaPart = SchemaPart {
    name: "series",
    migrations: &["
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
", "
    ALTER TABLE names ADD COLUMN crc INTEGER;
    ALTER TABLE metadata ADD COLUMN crc INTEGER;
    ALTER TABLE series ADD COLUMN crc INTEGER;
    ALTER TABLE samples ADD COLUMN crc INTEGER;
", "
    CREATE TABLE roles (id INTEGER PRIMARY KEY, name TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
    ALTER TABLE samples ADD COLUMN role INTEGER;
"],
};

/// The series, as the flusher sees them.
pub(in crate::store::embedded) struct SeriesSet(Arc<Mutex<SeriesTable>>);

impl SeriesSet {
    /// Makes an empty set.
    pub(in crate::store::embedded) fn new(settings: SeriesSettings) -> Self {
        Self(Arc::new(Mutex::new(SeriesTable::new(settings))))
    }

    /// Returns the table that the set shows.
    pub(super) fn table(&self) -> Arc<Mutex<SeriesTable>> {
        Arc::clone(&self.0)
    }
}

impl BufferedSet for SeriesSet {
    fn schema(&self) -> SchemaPart {
        SCHEMA
    }

    fn load(&self, conn: &Connection) -> StoreResult<()> {
        load(conn, &mut self.0.lock())
    }

    fn lock(&self) -> Box<dyn LockedSet + '_> {
        loop {
            let mut table = self.0.lock();
            // A deletion by selector that was made must be on disk whole, so it is purged before; in pieces, like
            // everywhere.
            if table.core.deletion.is_made() {
                table.purge_selected(PURGED_AT_ONCE);
                table.trim();
            } else {
                return Box::new(LockedSeries { shared: &self.0, table });
            }
        }
    }

    fn unflushed(&self) -> Unflushed {
        self.0.lock().dirty.unflushed()
    }
}

struct LockedSeries<'a> {
    shared: &'a Arc<Mutex<SeriesTable>>,
    table: MutexGuard<'a, SeriesTable>,
}

impl LockedSet for LockedSeries<'_> {
    fn drain(&mut self) -> Box<dyn FlushBatch> {
        let changes = self.table.drain();
        Box::new(SeriesBatch { table: Arc::clone(self.shared), changes })
    }
}

/// What a flush writes. The table is not locked meanwhile: the changes are a copy.
struct SeriesBatch {
    table: Arc<Mutex<SeriesTable>>,
    changes: DrainedSeries,
}

impl FlushBatch for SeriesBatch {
    fn len(&self) -> usize {
        let DrainedSeries { samples, deleted, forgotten_metadata, .. } = &self.changes;
        samples.len() + deleted.len() + forgotten_metadata.len()
    }

    fn upsert(&self, txn: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut name = txn.prepare_cached("REPLACE INTO names VALUES (?, ?, ?)")?;
        for (id, text) in &self.changes.names {
            name.execute(params![id, text, checksum::name(*id, text)])?;
        }
        let mut metadata = txn.prepare_cached("REPLACE INTO metadata VALUES (?, ?, ?, ?, ?)")?;
        for (id, entry) in &self.changes.metadata {
            let word = entry.metric_type.as_str();
            let crc = checksum::metadata(*id, word, &entry.help, &entry.unit);
            metadata.execute(params![id, word, entry.help, entry.unit, crc])?;
        }
        let mut key = txn.prepare_cached("REPLACE INTO series VALUES (?, ?, ?, ?)")?;
        for (slot, name, labels) in &self.changes.keys {
            key.execute(params![slot, name, labels, checksum::key(*slot, *name, labels)])?;
        }
        let mut role = txn.prepare_cached("REPLACE INTO roles VALUES (?, ?, ?)")?;
        for (number, name) in &self.changes.roles {
            let name = name.as_str();
            role.execute(params![number, name, checksum::role(*number, name)])?;
        }
        let mut sample = txn.prepare_cached("REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?)")?;
        for (slot, row) in &self.changes.samples {
            let SampleRow { value_bits, updated_at_nanos, metadata, role } = row;
            let crc = checksum::sample(*slot, row);
            sample.execute(params![slot, value_bits, updated_at_nanos, metadata, crc, role])?;
        }
        Ok(())
    }

    fn delete(&self, txn: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut key = txn.prepare_cached("DELETE FROM series WHERE slot = ?")?;
        let mut sample = txn.prepare_cached("DELETE FROM samples WHERE slot = ?")?;
        for slot in &self.changes.deleted {
            key.execute([slot])?;
            sample.execute([slot])?;
        }
        let mut metadata = txn.prepare_cached("DELETE FROM metadata WHERE id = ?")?;
        for id in &self.changes.forgotten_metadata {
            metadata.execute([id])?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, failed: bool) {
        let Self { table, changes } = *self;
        let mut table = table.lock();
        if failed {
            table.merge_back(changes);
        } else {
            table.dirty.flushed();
        }
    }
}

/// The newest state of all marked series.
#[derive(Debug)]
pub(super) struct DrainedSeries {
    marks: Arc<Drained<u32, BuildSlotHasher>>,
    names: Vec<(u32, Arc<str>)>,
    metadata: Vec<(u32, Arc<Metadata>)>,
    keys: Vec<(u32, u32, Arc<str>)>,
    roles: Vec<(u8, RoleName)>,
    samples: Vec<(u32, SampleRow)>,
    deleted: Vec<u32>,
    forgotten_metadata: Vec<u32>,
}

impl SeriesTable {
    /// Takes all marks and reads what they stand for now.
    fn drain(&mut self) -> DrainedSeries {
        self.distrust_abandoned();
        let marks = self.dirty.drain();
        let mut slots: Vec<u32> = marks.keys.iter().copied().collect();
        // In the order of the disk's pages.
        slots.sort_unstable();
        let mut drained = DrainedSeries {
            marks,
            names: Vec::new(),
            metadata: Vec::new(),
            keys: Vec::new(),
            roles: self.roles.drain(),
            // Growing it would copy what was copied already, while the table is locked.
            samples: Vec::with_capacity(slots.len()),
            deleted: Vec::new(),
            forgotten_metadata: self.core.metadata.take_forgotten(),
        };
        for slot in slots {
            let record = self.core.slab.get_mut(slot);
            if record.state != State::Live {
                drained.deleted.push(slot);
                record.key_saved = false;
                continue;
            }
            let sample = SampleRow {
                value_bits: record.value.to_bits().cast_signed(),
                updated_at_nanos: record.updated_at_nanos,
                metadata: record.metadata,
                role: Some(record.role),
            };
            drained.samples.push((slot, sample));
            let (name, metadata) = (record.name, record.metadata);
            // Key, name and metadata are written once. They count as saved from here on, before they
            // are: the flush is one transaction, and a failed one takes it back.
            if !std::mem::replace(&mut record.key_saved, true) {
                drained.keys.push((slot, name, Arc::clone(&record.labels)));
                let entry = self.core.names.get_mut(name);
                if !std::mem::replace(&mut entry.saved, true) {
                    drained.names.push((name, Arc::clone(&entry.name)));
                }
            }
            if !self.core.metadata.mark_saved(metadata) {
                let entry = self.core.metadata.get(metadata).cloned();
                drained.metadata.extend(entry.map(|entry| (metadata, entry)));
            }
        }
        drained
    }

    /// Marks again what could not be written.
    ///
    /// Meanwhile a slot or a number may have been given to another series, name or metadata. Then
    /// it counts as unsaved already, and is only written once more.
    fn merge_back(&mut self, drained: DrainedSeries) {
        for (slot, name, _) in drained.keys {
            self.core.slab.get_mut(slot).key_saved = false;
            self.core.names.get_mut(name).saved = false;
        }
        for (id, _) in drained.metadata {
            self.core.metadata.mark_unsaved(id);
        }
        self.core.metadata.restore_forgotten(drained.forgotten_metadata);
        if !drained.roles.is_empty() {
            self.roles.mark_unsaved();
        }
        drop(drained.marks);
        self.dirty.merge_back();
    }

    /// Counts nothing as saved that a flush was to write which never ended, and so never failed.
    fn distrust_abandoned(&mut self) {
        let Some(abandoned) = self.dirty.abandoned() else { return };
        self.roles.mark_unsaved();
        for slot in &abandoned.keys {
            let record = self.core.slab.get_mut(*slot);
            record.key_saved = false;
            if record.state == State::Live {
                let (name, metadata) = (record.name, record.metadata);
                self.core.names.get_mut(name).saved = false;
                self.core.metadata.mark_unsaved(metadata);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roles::NO_ROLE;
    use super::super::table::Now;
    use super::*;
    use crate::model::batch::PointBatch;
    use crate::model::series::MetricType;
    use crate::model::time::{SteadyTime, Timestamp};
    use crate::store::{SeriesWriter, StoreSettings};

    #[test]
    fn what_an_abandoned_flush_took_out_is_written_whole_by_the_next_one() {
        let set = SeriesSet::new(StoreSettings::for_tests().series);
        let mut batch = PointBatch::default();
        let metadata = batch.add_metadata(Metadata {
            metric_type: MetricType::Gauge,
            help: "help".into(),
            unit: "".into(),
        });
        batch.push("m", "a=\"1\"", 1.0, None, Some(metadata));
        let at = Timestamp::from_nanos(1);
        let now = Now { stamp: at, expiry: at, steady: SteadyTime::from_nanos(1) };
        let role = RoleName::parse("leader").expect("valid");
        let writer = SeriesWriter { role: Some(role.clone()), ..SeriesWriter::anybody() };
        set.0.lock().upsert(&batch, &writer, now).expect("there is room");
        // The flush panics before it writes anything, so it never says how it ended.
        drop(set.lock().drain());

        let mut conn = Connection::open_in_memory().expect("opens");
        SCHEMA.migrations.iter().for_each(|sql| conn.execute_batch(sql).expect("runs"));
        let next = set.lock().drain();
        let txn = conn.transaction().expect("begins");
        next.upsert(&txn).expect("writes");
        txn.commit().expect("commits");
        next.finish(false);
        let loaded = SeriesSet::new(StoreSettings::for_tests().series);
        loaded.load(&conn).expect("every series has its key, its name, its metadata and its role");
        let loaded = loaded.0.lock();
        assert_eq!((loaded.held, loaded.roles.get(1)), (1, Some(&role)));
    }

    #[test]
    fn a_deletion_by_selector_is_drained_whole_also_while_it_is_purged() {
        const MANY: usize = 3 * PURGED_AT_ONCE;
        let set = SeriesSet::new(StoreSettings::for_tests().series);
        let mut batch = PointBatch::default();
        for i in 0..MANY {
            batch.push("m", &format!("i=\"{i:05}\""), 1.0, None, None);
        }
        let at = Timestamp::from_nanos(1);
        let now = Now { stamp: at, expiry: at, steady: SteadyTime::from_nanos(1) };
        set.0.lock().upsert(&batch, &SeriesWriter::anybody(), now).expect("there is room");
        let first = set.lock().drain();
        assert_eq!(first.len(), MANY);
        first.finish(false);
        {
            let mut table = set.0.lock();
            let slots = 0..u32::try_from(MANY).expect("few");
            let found: Vec<_> = slots.map(|slot| (table.core.key(slot), slot)).collect();
            table.core.select(&found);
            table.core.deletion.make(now.steady);
            table.purge_some(now);
            assert!(table.held > 0, "the purge has only begun");
        }
        let second = set.lock().drain();
        assert_eq!(second.len(), MANY);
        second.finish(false);
        assert_eq!(set.0.lock().held, 0);
    }

    /// Runs some of the migrations, and writes one series as the first two versions did.
    fn file_of_an_earlier_version() -> Connection {
        let conn = Connection::open_in_memory().expect("opens");
        SCHEMA.migrations[..2].iter().for_each(|sql| conn.execute_batch(sql).expect("runs"));
        let row = SampleRow { value_bits: 7, updated_at_nanos: 8, metadata: u32::MAX, role: None };
        let rows = [
            format!("INSERT INTO names VALUES (0, 'm', {})", checksum::name(0, "m")),
            format!("INSERT INTO series VALUES (0, 0, '', {})", checksum::key(0, 0, "")),
            format!(
                "INSERT INTO samples VALUES (0, 7, 8, {}, {})",
                row.metadata,
                checksum::sample(0, &row)
            ),
        ];
        rows.iter().for_each(|sql| assert_eq!(conn.execute(sql, []).expect("is written"), 1));
        SCHEMA.migrations[2..].iter().for_each(|sql| conn.execute_batch(sql).expect("runs"));
        conn
    }

    #[test]
    fn series_of_an_earlier_version_have_no_role() {
        let set = SeriesSet::new(StoreSettings::for_tests().series);
        set.load(&file_of_an_earlier_version()).expect("reads");
        let table = set.0.lock();
        assert_eq!((table.held, table.core.slab.get(0).role), (1, NO_ROLE));
    }

    #[test]
    fn a_role_that_is_missing_or_altered_stops_the_start() {
        let row =
            SampleRow { value_bits: 7, updated_at_nanos: 8, metadata: u32::MAX, role: Some(2) };
        let load = |crc: i64| {
            let conn = file_of_an_earlier_version();
            let role = format!("INSERT INTO roles VALUES (2, 'r', {crc})");
            let sample =
                format!("UPDATE samples SET role = 2, crc = {}", checksum::sample(0, &row));
            for sql in [role, sample] {
                assert_eq!(conn.execute(&sql, []).expect("is written"), 1);
            }
            (SeriesSet::new(StoreSettings::for_tests().series), conn)
        };
        let crc = checksum::role(2, "r");
        let (set, conn) = load(crc);
        set.load(&conn).expect("reads");
        assert_eq!(set.0.lock().roles.get(2).map(RoleName::as_str), Some("r"));
        let (set, conn) = load(crc + 1);
        assert!(set.load(&conn).is_err());
        for sql in
            ["DELETE FROM roles", "UPDATE samples SET role = 3", "UPDATE samples SET role = NULL"]
        {
            let (set, conn) = load(crc);
            assert_eq!(conn.execute(sql, []).expect("is written"), 1, "{sql}");
            assert!(set.load(&conn).is_err(), "{sql}");
        }
    }
}
