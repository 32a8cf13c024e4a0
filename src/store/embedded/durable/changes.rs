//! What a group of commands changes in every table, before it is committed.
//!
//! Knows no resource, and not what is committed. Invariant: when a group fails, dropping its
//! changes is all that has to be done.

use std::any::Any;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::journal::Entry;
use super::table::DurableTable;

/// What a group changes in every table.
#[derive(Default)]
pub(in crate::store::embedded) struct Changes {
    /// By tag; only those that the group touches.
    tables: Vec<Option<Box<dyn AnyPending>>>,
}

impl Changes {
    /// Returns what changes in one table; `None` when nothing does.
    pub(in crate::store::embedded) fn pending<T: DurableTable>(&self) -> Option<&Pending<T>> {
        self.pending_of_tag(T::TAG)
    }

    /// Returns what changes in one table, to be added to.
    pub(super) fn pending_mut<T: DurableTable>(&mut self) -> &mut Pending<T> {
        self.of_tag(T::TAG)
    }

    /// Returns what changes in the table with this tag; `None` when nothing does. `P` is as for [`Self::of_tag`].
    pub(super) fn pending_of_tag<P: AnyPending>(&self, tag: u8) -> Option<&P> {
        self.tables.get(usize::from(tag))?.as_ref()?.as_any().downcast_ref()
    }

    /// Returns what changes in the table with this tag, to be added to. `P` is what a table of its
    /// kind keeps here.
    pub(super) fn of_tag<P: AnyPending + Default>(&mut self, tag: u8) -> &mut P {
        let at = usize::from(tag);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, || None);
        }
        self.tables[at]
            .get_or_insert_with(|| Box::new(P::default()))
            .as_any_mut()
            .downcast_mut()
            .expect("registering has made sure that no tables share a tag")
    }

    /// Returns the changes of each table, by its tag.
    pub(super) fn into_tables(self) -> Vec<Option<Box<dyn AnyPending>>> {
        self.tables
    }

    /// Counts the rows that change, and those that were read from a file for that.
    pub(super) fn len(&self) -> usize {
        self.tables.iter().flatten().map(|pending| pending.len()).sum()
    }

    /// Returns what these rows take in memory, as far as their tables count it.
    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().flatten().map(|pending| pending.bytes()).sum()
    }

    /// Writes the changes into an entry of the journal.
    pub(super) fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        self.tables.iter().flatten().try_for_each(|pending| pending.encode(entry))
    }
}

/// What a group of commands changes in a table; `None` removes the row.
#[derive(Debug)]
pub(in crate::store::embedded) struct Pending<T: DurableTable> {
    pub(in crate::store::embedded) rows: HashMap<T::Key, Option<T::Row>, RandomState>,
    /// How many more rows there are than are committed.
    pub(super) more: i64,
    /// What all rows that the group has set take in memory, as their table counts it.
    pub(super) bytes: usize,
}

impl<T: DurableTable> Default for Pending<T> {
    fn default() -> Self {
        Self { rows: HashMap::default(), more: 0, bytes: 0 }
    }
}

/// What changes in some table.
pub(super) trait AnyPending: Send + 'static {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// Counts its rows, see [`Changes::len`].
    fn len(&self) -> usize;
    /// Returns what its rows take in memory; 0 where they are small enough not to be counted.
    fn bytes(&self) -> usize {
        0
    }
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

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        self.rows.iter().try_for_each(|(key, row)| entry.push(T::TAG, key, row.as_ref()))
    }
}
