//! Paged tables as commands use them: registering, reading, changing.
//!
//! Not for readers that are no commands; see `calls.rs`. Invariant: a command that could not read a row
//! fails, whatever it makes of the error.

use std::sync::Arc;

use super::key::{KeyText, key_text};
use super::pending::PagedPending;
use super::rows::{PagedRows, held_row};
use super::table::PagedTable;
use crate::store::StoreResult;
use crate::store::embedded::durable::tables::Tables;
use crate::store::embedded::durable::transaction::Txn;

impl Tables {
    /// Registers a paged table; `cache_bytes` bounds what its cache takes in memory.
    ///
    /// # Panics
    /// When its tag or its name is another table's.
    #[must_use]
    pub(in crate::store::embedded) fn with_paged<T: PagedTable>(self, cache_bytes: u64) -> Self {
        self.with_rows(Box::new(Arc::new(PagedRows::<T>::new(cache_bytes))))
    }

    /// Returns the rows of a paged table.
    ///
    /// # Panics
    /// When it is not registered.
    pub(super) fn paged<T: PagedTable>(&self) -> &Arc<PagedRows<T>> {
        self.of_tag(T::TAG)
    }
}

impl Txn<'_> {
    /// Reads a row of a paged table.
    ///
    /// # Errors
    /// When it can't be read: then the command fails.
    pub(in crate::store::embedded) fn read<T: PagedTable>(
        &mut self,
        key: &T::Key,
    ) -> StoreResult<Option<Arc<T::Row>>> {
        let keys = [key_text(key)];
        self.load::<T>(&keys)?;
        Ok(self.loaded::<T>(&keys[0]))
    }

    /// Reads rows of a paged table, in the order of `keys`. Cheaper than one after the other; they
    /// need not be read again when they are changed.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(in crate::store::embedded) fn read_many<T: PagedTable>(
        &mut self,
        keys: &[T::Key],
    ) -> StoreResult<Vec<Option<Arc<T::Row>>>> {
        let keys: Vec<_> = keys.iter().map(key_text).collect();
        self.load::<T>(&keys)?;
        Ok(keys.iter().map(|key| self.loaded::<T>(key)).collect())
    }

    /// Sets a row of a paged table, which is read before, so that the number of rows stays exact.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(in crate::store::embedded) fn write<T: PagedTable>(
        &mut self,
        key: &T::Key,
        row: T::Row,
    ) -> StoreResult<()> {
        self.change::<T>(key, Some(row))
    }

    /// Removes a row of a paged table.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(in crate::store::embedded) fn remove<T: PagedTable>(
        &mut self,
        key: &T::Key,
    ) -> StoreResult<()> {
        self.change::<T>(key, None)
    }

    fn change<T: PagedTable>(&mut self, key: &T::Key, row: Option<T::Row>) -> StoreResult<()> {
        let key = key_text(key);
        self.load::<T>(std::slice::from_ref(&key))?;
        self.changed = true;
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        pending.change(&key, row.map(held_row::<T>));
        Ok(())
    }

    /// Reads those of the rows that the group does not have yet.
    fn load<T: PagedTable>(&mut self, keys: &[KeyText]) -> StoreResult<()> {
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        let missing: Vec<_> = keys.iter().filter(|key| !pending.has(key)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let stored = self.tables.paged::<T>().stored(&missing);
        let stored = stored.inspect_err(|error| self.failure = Some(error.clone()))?;
        for (key, row) in missing.into_iter().zip(stored) {
            pending.add_stored(key, row);
        }
        Ok(())
    }

    fn loaded<T: PagedTable>(&mut self, key: &str) -> Option<Arc<T::Row>> {
        let now = self.now.steady;
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        let current = pending.current(key).filter(|row| row.is_live(now))?;
        Some(Arc::clone(&current.row))
    }
}
