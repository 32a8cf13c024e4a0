//! Reads of many rows in memory: in pieces, so that the writer never waits for long.
//!
//! For threads that may block. Invariant: the lock of the tables is held for a piece of bounded size.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;

use super::shared::Shared;
use super::table::DurableTable;
use super::tables::Tables;
use crate::clock::Moment;
use crate::store::StoreResult;

/// The most rows of a piece.
const PIECE: usize = 1_000;

/// Reads the committed rows at one moment after the other.
pub(in crate::store::embedded) struct TablesReader(Arc<Shared>);

impl TablesReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Returns the committed rows and the time.
    ///
    /// # Errors
    /// When the store is closed.
    pub(in crate::store::embedded) fn read(
        &self,
    ) -> StoreResult<(RwLockReadGuard<'_, Tables>, Moment)> {
        self.0.read()
    }

    /// Calls `each` with the live rows from `from` on, in the order of their keys, until it returns
    /// `false`. Each row is as it was at some moment during the call.
    ///
    /// # Errors
    /// When the store is closed.
    pub(in crate::store::embedded) fn for_each<T: DurableTable>(
        &self,
        mut from: Bound<T::Key>,
        mut each: impl FnMut(&T::Key, &T::Row) -> bool,
    ) -> StoreResult<()> {
        loop {
            let (tables, now) = self.read()?;
            let mut last = None;
            for (key, row) in tables.rows::<T>().range(from.as_ref(), now.steady).take(PIECE) {
                if !each(key, row) {
                    return Ok(());
                }
                last = Some(key);
            }
            let Some(last) = last.cloned() else { return Ok(()) };
            from = Bound::Excluded(last);
        }
    }

    /// Returns the first `limit` live rows from `from` on whose keys are `within`, as those of
    /// [`Self::for_each`].
    ///
    /// # Errors
    /// When the store is closed.
    pub(in crate::store::embedded) fn page<T: DurableTable>(
        &self,
        from: Bound<T::Key>,
        limit: usize,
        within: impl Fn(&T::Key) -> bool,
    ) -> StoreResult<Vec<(T::Key, T::Row)>> {
        let mut page = Vec::new();
        if limit == 0 {
            return Ok(page);
        }
        self.for_each::<T>(from, |key, row| {
            let is_within = within(key);
            if is_within {
                page.push((key.clone(), row.clone()));
            }
            is_within && page.len() < limit
        })?;
        Ok(page)
    }
}
