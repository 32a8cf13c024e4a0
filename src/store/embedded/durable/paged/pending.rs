//! What a group of commands has read of a paged table, and what it changes.
//!
//! Not what is committed. Invariant: a row is read before it is changed, so that the number of rows
//! stays exact.

use std::any::Any;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::held::{HeldRow, entry_bytes};
use super::key::KeyText;
use super::table::PagedTable;
use crate::store::embedded::durable::changes::AnyPending;
use crate::store::embedded::durable::journal::Entry;

/// What a group has read of a table, and what it changes.
pub(super) struct PagedPending<T: PagedTable> {
    pub(super) entries: HashMap<KeyText, PendingRow<T::Row>, RandomState>,
    /// How many more rows there are than are committed.
    pub(super) more: i64,
    bytes: usize,
}

/// One row, as it is committed and as the group leaves it.
pub(super) struct PendingRow<R> {
    pub(super) stored: Option<HeldRow<R>>,
    /// `None` when the group only reads it.
    pub(super) changed_to: Option<Option<HeldRow<R>>>,
}

impl<R> PendingRow<R> {
    fn current(&self) -> Option<&HeldRow<R>> {
        self.changed_to.as_ref().unwrap_or(&self.stored).as_ref()
    }

    /// Returns whether anything is to be written: what was made and removed in one group is not.
    pub(super) fn is_effective(&self) -> bool {
        self.changed_to.as_ref().is_some_and(|to| to.is_some() || self.stored.is_some())
    }
}

impl<T: PagedTable> Default for PagedPending<T> {
    fn default() -> Self {
        Self { entries: HashMap::default(), more: 0, bytes: 0 }
    }
}

impl<T: PagedTable> PagedPending<T> {
    /// Returns whether the group has read or changed the row.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Adds a row that was read.
    pub(super) fn add_stored(&mut self, key: KeyText, stored: Option<HeldRow<T::Row>>) {
        self.bytes += entry_bytes(&key, stored.as_ref());
        self.entries.insert(key, PendingRow { stored, changed_to: None });
    }

    /// Returns a row that the group has, as it leaves it; it may have expired.
    pub(super) fn current(&self, key: &str) -> Option<&HeldRow<T::Row>> {
        self.entries.get(key).and_then(PendingRow::current)
    }

    /// Returns the rows that the group sets or removes, as it leaves them.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&KeyText, Option<&HeldRow<T::Row>>)> {
        self.entries.iter().filter_map(|(key, row)| Some((key, row.changed_to.as_ref()?.as_ref())))
    }

    /// Sets or removes a row that the group has read.
    pub(super) fn change(&mut self, key: &KeyText, row: Option<HeldRow<T::Row>>) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes += entry_bytes(key, row.as_ref());
            self.more += i64::from(row.is_some()) - i64::from(entry.current().is_some());
            entry.changed_to = Some(row);
        }
    }

    /// Removes a row that is committed, unless the group has changed it; returns whether it did.
    pub(super) fn delete_unless_changed(&mut self, key: &KeyText, stored: HeldRow<T::Row>) -> bool {
        if !self.has(key) {
            self.add_stored(Arc::clone(key), Some(stored));
        }
        let is_new = self.entries.get(key).is_some_and(|entry| entry.changed_to.is_none());
        if is_new {
            self.change(key, None);
        }
        is_new
    }
}

impl<T: PagedTable> AnyPending for PagedPending<T> {
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
        self.entries.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        let effective = self.entries.iter().filter(|(_, row)| row.is_effective());
        for (key, row) in effective {
            let row = row.current().map(|held| &*held.row);
            entry.push_with_key_text(T::TAG, key, row)?;
        }
        Ok(())
    }
}
