//! Paged tables as commands use them: registering, reading, changing.
//!
//! Not for readers that are no commands; see `calls.rs`. Invariant: a command that could not read a row
//! fails, whatever it makes of the error.

use std::sync::Arc;

use super::key::KeyText;
use super::pending::PagedPending;
use super::rows::{PagedRows, held_row};
use super::table::{PagedTable, RowKey};
use crate::store::embedded::durable::any_rows::AnyRows;
use crate::store::embedded::durable::tables::Tables;
use crate::store::embedded::durable::transaction::{PURGED_AT_ONCE, Txn};
use crate::store::{Limited, StoreError, StoreResult};

impl Tables {
    /// Registers a paged table. `cache_bytes` bounds what its cache takes in memory; `limit` has the most live rows, and
    /// the failure of a command that would make more, see [`Txn::make_room_for_rows`].
    ///
    /// # Panics
    /// When its tag or its name is another table's.
    #[must_use]
    pub(in crate::store::embedded) fn with_paged<T: PagedTable>(
        self,
        cache_bytes: u64,
        limit: Option<(u64, Limited)>,
    ) -> Self {
        self.with_rows(Box::new(Arc::new(PagedRows::<T>::new(cache_bytes, limit))))
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
    /// Reads rows of a paged table, in the order of `keys`. They need not be read again when they are changed.
    ///
    /// # Errors
    /// When one can't be read: then the command fails.
    pub(in crate::store::embedded) fn read_many<T: PagedTable>(
        &mut self,
        keys: &[RowKey<T>],
    ) -> StoreResult<Vec<Option<Arc<T::Row>>>> {
        self.load(keys)?;
        let now = self.now.steady;
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        let loaded = |key: &RowKey<T>| {
            let current = pending.current(&key.0).filter(|row| row.is_live(now))?;
            Some(Arc::clone(&current.row))
        };
        Ok(keys.iter().map(loaded).collect())
    }

    /// Sets a row of a paged table, which is read before, so that the number of rows stays exact.
    ///
    /// # Errors
    /// As [`Self::read_many`].
    pub(in crate::store::embedded) fn write<T: PagedTable>(
        &mut self,
        key: &RowKey<T>,
        row: T::Row,
    ) -> StoreResult<()> {
        self.change(key, Some(row))
    }

    /// Removes a row of a paged table.
    ///
    /// # Errors
    /// As [`Self::read_many`].
    pub(in crate::store::embedded) fn remove<T: PagedTable>(
        &mut self,
        key: &RowKey<T>,
    ) -> StoreResult<()> {
        self.change(key, None)
    }

    fn change<T: PagedTable>(&mut self, key: &RowKey<T>, row: Option<T::Row>) -> StoreResult<()> {
        self.load(std::slice::from_ref(key))?;
        self.changed = true;
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        pending.change(&key.0, row.map(held_row::<T>));
        Ok(())
    }

    /// Reads those of the rows that the group does not have yet.
    fn load<T: PagedTable>(&mut self, keys: &[RowKey<T>]) -> StoreResult<()> {
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        let missing: Vec<KeyText> =
            keys.iter().filter(|key| !pending.has(&key.0)).map(|key| Arc::clone(&key.0)).collect();
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

    /// Makes sure that a paged table may have `new` more live rows. Rows that have expired are removed for that.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::LimitReached`] when there are as many live rows as there may be; and as
    /// [`Self::read_many`].
    pub(in crate::store::embedded) fn make_room_for_rows<T: PagedTable>(
        &mut self,
        new: usize,
    ) -> StoreResult<()> {
        let rows = self.tables.paged::<T>();
        let Some((max, of)) = rows.limit.filter(|_| new > 0) else { return Ok(()) };
        let mut found_none = 0;
        loop {
            let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
            let committed = i128::from(rows.held.lock().rows());
            let over = committed + i128::from(pending.more) + new as i128 - i128::from(max);
            let Some(over) = usize::try_from(over).ok().filter(|over| *over > 0) else {
                return Ok(());
            };
            // The first step may have gone on from where a purge stopped; the second begins anew.
            if found_none == 2 {
                return Err(StoreError::limit_reached(of));
            }
            // Those that the group has changed come first and are passed over. A few more than are needed, so that
            // this does not come again with each row.
            let wanted = pending.entries.len() + over + PURGED_AT_ONCE;
            let deleted = rows.delete_expired(self.changes, self.now.steady, wanted);
            let deleted = deleted.inspect_err(|error| {
                self.failure = Some(error.clone());
                self.changed = true;
            })?;
            self.changed |= deleted > 0;
            found_none = if deleted == 0 { found_none + 1 } else { 0 };
        }
    }
}
