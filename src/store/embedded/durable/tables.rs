//! All tables of the durable data, as committed.
//!
//! Knows no resource: tables are registered, and found again by the tag of their definition.
//! Invariant: a table that is registered stays at its place, so that a tag finds it without a
//! search.

use std::any::Any;
use std::sync::Arc;

use rusqlite::Connection;

use super::any_rows::AnyRows;
use super::changes::Changes;
use super::counters::Counters;
use super::journal::Effect;
use super::memory_rows::MemoryRows;
use super::paged::{ROW_COUNTS, Readers};
use super::table::{Counter, DurableTable, TableForm};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::sqlite::{SchemaPart, corrupt};
use crate::store::{ResourceStatus, StoreResult};

/// The committed rows of every table.
pub(in crate::store::embedded) struct Tables {
    /// By tag.
    tables: Vec<Option<Box<dyn AnyRows>>>,
}

impl Tables {
    /// Makes a set that holds nothing but the counters.
    pub(in crate::store::embedded) fn new() -> Self {
        Self { tables: Vec::new() }.with(Counters)
    }

    /// Registers a table.
    ///
    /// # Panics
    /// When its tag or its name is another table's.
    #[must_use]
    pub(in crate::store::embedded) fn with<T: DurableTable>(self, table: T) -> Self {
        self.with_rows(Box::new(MemoryRows::new(table)))
    }

    /// Registers the rows of a table of whatever kind.
    pub(super) fn with_rows(mut self, rows: Box<dyn AnyRows>) -> Self {
        let (at, name) = (usize::from(rows.tag()), rows.name());
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, || None);
        }
        let is_new = self.tables[at].is_none() && self.all().all(|other| other.name() != name);
        assert!(is_new, "the tag or the name of the table {name} is another's");
        self.tables[at] = Some(rows);
        self
    }

    /// Returns the committed rows of one table.
    ///
    /// # Panics
    /// When it is not registered.
    pub(in crate::store::embedded) fn rows<T: DurableTable>(&self) -> &MemoryRows<T> {
        self.of_tag(T::TAG)
    }

    /// Returns the rows of the table with this tag. `R` is how a table of its kind holds them.
    pub(super) fn of_tag<R: Any>(&self, tag: u8) -> &R {
        self.tables
            .get(usize::from(tag))
            .and_then(Option::as_ref)
            .and_then(|rows| rows.as_any().downcast_ref())
            .expect("every table that is used is registered")
    }

    /// Returns the value of a counter; 0 when it was never set.
    pub(in crate::store::embedded) fn counter(&self, counter: &Counter) -> i64 {
        // Counters never expire.
        self.rows::<Counters>().get(counter, SteadyTime::from_nanos(0)).copied().unwrap_or(0)
    }

    /// Prepares every table for a new epoch.
    ///
    /// The counters are not written down: the next start sets them anew, at least as high.
    pub(super) fn begin_epoch(&mut self, now: Timestamp) {
        let last = |counter: &Counter| self.counter(counter);
        let counters: Vec<_> = self.all().flat_map(|rows| rows.begin_epoch(&last, now)).collect();
        let mut changes = Changes::default();
        let pending = changes.pending_mut::<Counters>();
        pending.rows.extend(counters.into_iter().map(|(counter, value)| (counter, Some(value))));
        self.publish(changes, 0);
    }

    /// Makes the changes of a group visible; `seq` is the number of its journal entry.
    pub(super) fn publish(&mut self, changes: Changes, seq: i64) {
        for (rows, pending) in self.tables.iter_mut().zip(changes.into_tables()) {
            if let (Some(rows), Some(pending)) = (rows, pending) {
                rows.apply(pending, seq);
            }
        }
    }

    /// Prepares every table to be read from the file, in whose tables the journal is up to entry
    /// number `compacted_seq`.
    pub(super) fn attach(
        &mut self,
        conn: &Connection,
        readers: &Arc<Readers>,
        compacted_seq: i64,
    ) -> StoreResult<()> {
        let mut tables = self.tables.iter_mut().flatten();
        tables.try_for_each(|rows| rows.attach(conn, readers, compacted_seq))
    }

    /// Tells every table that the changes up to entry number `seq` are in its SQL table.
    pub(super) fn compacted(&mut self, seq: i64) {
        self.tables.iter_mut().flatten().for_each(|rows| rows.compacted(seq));
    }

    /// Applies a change that was read from the file over `conn`: from the journal's entry number `seq`, or,
    /// with 0, from a table.
    pub(super) fn replay(
        &mut self,
        conn: &Connection,
        effect: &Effect<'_>,
        seq: i64,
    ) -> StoreResult<()> {
        let rows = self.tables.get_mut(usize::from(effect.tag)).and_then(Option::as_mut);
        match rows {
            Some(rows) => rows.replay(conn, effect, seq),
            None => Err(corrupt(format!("a change of the unknown table {}", effect.tag))),
        }
    }

    /// Removes at most `limit` expired rows of each table; returns how many.
    pub(super) fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize> {
        let mut deleted = 0;
        for rows in self.all() {
            deleted += rows.delete_expired(changes, now, limit)?;
        }
        Ok(deleted)
    }

    /// Returns the schema of every table.
    pub(super) fn schema(&self) -> impl Iterator<Item = SchemaPart> {
        let any_paged = self.all().any(|rows| rows.form().end_of.is_some());
        self.all().map(|rows| rows.schema()).chain(any_paged.then_some(ROW_COUNTS))
    }

    /// Returns how every table stands in the file.
    pub(super) fn forms(&self) -> Vec<TableForm> {
        self.all().map(|rows| rows.form()).collect()
    }

    /// Reports how many live rows each table holds.
    pub(super) fn status(&self, now: SteadyTime) -> Vec<ResourceStatus> {
        self.all().filter(|rows| rows.tag() != Counters::TAG).map(|rows| rows.status(now)).collect()
    }

    fn all(&self) -> impl Iterator<Item = &dyn AnyRows> {
        self.tables.iter().flatten().map(|rows| &**rows)
    }
}
