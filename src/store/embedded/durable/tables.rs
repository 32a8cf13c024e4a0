//! All tables of the durable data, as committed, and what a group of commands changes in them.
//!
//! Knows no resource: tables are registered, and found again by the tag of their definition.
//! Invariant: a table that is registered stays at its place, so that a tag finds it without a
//! search.

use std::any::Any;

use super::counters::Counters;
use super::journal::{Effect, Entry};
use super::memory_rows::{MemoryRows, Pending};
use super::table::{Counter, DurableTable, schema};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::ResourceStatus;
use crate::store::embedded::sqlite::SchemaPart;

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
    pub(in crate::store::embedded) fn with<T: DurableTable>(mut self, table: T) -> Self {
        let at = usize::from(T::TAG);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, || None);
        }
        let is_new = self.tables[at].is_none() && self.all().all(|other| other.name() != T::NAME);
        assert!(is_new, "the tag or the name of the table {} is another's", T::NAME);
        self.tables[at] = Some(Box::new(MemoryRows::new(table)));
        self
    }

    /// Returns the committed rows of one table.
    ///
    /// # Panics
    /// When it is not registered.
    pub(in crate::store::embedded) fn rows<T: DurableTable>(&self) -> &MemoryRows<T> {
        self.tables
            .get(usize::from(T::TAG))
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

    /// Makes the changes of a group visible, which are entry number `seq` of the journal.
    pub(super) fn publish(&mut self, changes: Changes, seq: i64) {
        for (rows, pending) in self.tables.iter_mut().zip(changes.tables) {
            if let (Some(rows), Some(pending)) = (rows, pending) {
                rows.apply(pending, seq);
            }
        }
    }

    /// Tells every table that the changes up to entry number `seq` are in its SQL table.
    pub(super) fn compacted(&mut self, seq: i64) {
        self.tables.iter_mut().flatten().for_each(|rows| rows.compacted(seq));
    }

    /// Applies a change that was read from the file: from entry number `seq` of the journal, or, where
    /// that is 0, from the SQL table.
    pub(super) fn replay(&mut self, effect: &Effect<'_>, seq: i64) -> Result<(), String> {
        let rows = self.tables.get_mut(usize::from(effect.tag)).and_then(Option::as_mut);
        let Some(rows) = rows else {
            return Err(format!("a change of the unknown table {}", effect.tag));
        };
        rows.replay(effect, seq).map_err(|error| error.to_string())
    }

    /// Removes at most `limit` expired rows of each table; returns how many.
    pub(super) fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> usize {
        self.all().map(|rows| rows.delete_expired(changes, now, limit)).sum()
    }

    /// Returns the schema of every table.
    pub(super) fn schema(&self) -> impl Iterator<Item = SchemaPart> {
        self.all().map(|rows| rows.schema())
    }

    /// Returns the tag and the name of every table.
    pub(super) fn names(&self) -> Vec<(u8, &'static str)> {
        self.all().map(|rows| (rows.tag(), rows.name())).collect()
    }

    /// Reports how many live rows each table holds.
    pub(super) fn status(&self, now: SteadyTime) -> Vec<ResourceStatus> {
        self.all()
            .filter(|rows| rows.tag() != Counters::TAG)
            .map(|rows| ResourceStatus::counted(rows.name(), rows.count(now)))
            .collect()
    }

    fn all(&self) -> impl Iterator<Item = &dyn AnyRows> {
        self.tables.iter().flatten().map(|rows| &**rows)
    }
}

/// What a group changes in every table.
#[derive(Default)]
pub(in crate::store::embedded) struct Changes {
    /// By tag; only those that the group touches.
    tables: Vec<Option<Box<dyn AnyPending>>>,
}

impl Changes {
    /// Returns what changes in one table; `None` when nothing does.
    pub(in crate::store::embedded) fn pending<T: DurableTable>(&self) -> Option<&Pending<T>> {
        self.tables.get(usize::from(T::TAG))?.as_ref()?.as_any().downcast_ref()
    }

    /// Returns what changes in one table, to be added to.
    pub(super) fn pending_mut<T: DurableTable>(&mut self) -> &mut Pending<T> {
        let at = usize::from(T::TAG);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, || None);
        }
        self.tables[at]
            .get_or_insert_with(|| Box::new(Pending::<T>::default()))
            .as_any_mut()
            .downcast_mut()
            .expect("registering has made sure that no tables share a tag")
    }

    /// Counts the rows that change.
    pub(super) fn len(&self) -> usize {
        self.tables.iter().flatten().map(|pending| pending.len()).sum()
    }

    /// Writes the changes into an entry of the journal.
    pub(super) fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        self.tables.iter().flatten().try_for_each(|pending| pending.encode(entry))
    }
}

/// The rows of some table.
trait AnyRows: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn tag(&self) -> u8;
    fn name(&self) -> &'static str;
    fn schema(&self) -> SchemaPart;
    fn begin_epoch(&self, last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)>;
    fn apply(&mut self, pending: Box<dyn AnyPending>, seq: i64);
    fn compacted(&mut self, seq: i64);
    fn replay(&mut self, effect: &Effect<'_>, seq: i64) -> serde_json::Result<()>;
    fn delete_expired(&self, changes: &mut Changes, now: SteadyTime, limit: usize) -> usize;
    fn count(&self, now: SteadyTime) -> u64;
}

impl<T: DurableTable> AnyRows for MemoryRows<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn tag(&self) -> u8 {
        T::TAG
    }

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn schema(&self) -> SchemaPart {
        schema::<T>()
    }

    fn begin_epoch(&self, last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        T::begin_epoch(last, now)
    }

    fn apply(&mut self, pending: Box<dyn AnyPending>, _: i64) {
        let pending = pending.into_any().downcast::<Pending<T>>();
        for (key, row) in pending.expect("changes lie at the tag of their table").rows {
            self.set(key, row);
        }
    }

    /// All rows stay in memory, on disk or not.
    fn compacted(&mut self, _: i64) {}

    fn replay(&mut self, effect: &Effect<'_>, _: i64) -> serde_json::Result<()> {
        let (key, row) = effect.decode()?;
        self.set(key, row);
        Ok(())
    }

    fn delete_expired(&self, changes: &mut Changes, now: SteadyTime, limit: usize) -> usize {
        let mut expired = self.expired(now).take(limit).peekable();
        if expired.peek().is_none() {
            return 0;
        }
        let pending = changes.pending_mut::<T>();
        let before = pending.rows.len();
        for key in expired {
            // What the group has written already stands: it may be a new row under that key.
            pending.rows.entry(key.clone()).or_insert(None);
        }
        pending.rows.len() - before
    }

    fn count(&self, now: SteadyTime) -> u64 {
        MemoryRows::count(self, now)
    }
}

/// What changes in some table.
trait AnyPending: Send {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn len(&self) -> usize;
    fn encode(&self, entry: &mut Entry) -> serde_json::Result<()>;
}

impl<T: DurableTable> AnyPending for Pending<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        self.rows.iter().try_for_each(|(key, row)| entry.push(T::TAG, key, row.as_ref()))
    }
}
