//! Reads of many rows in memory: in pieces, so that the writer never waits for long.
//!
//! Invariant: the lock of the tables is held for a piece of bounded size.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;

use super::shared::Shared;
use super::table::DurableTable;
use super::tables::Tables;
use crate::clock::Moment;
use crate::store::StoreResult;
use crate::store::embedded::blocking::off_thread;

/// The most rows of a piece, expired ones included.
const PIECE: usize = 1_000;

/// Reads the committed rows at one moment after the other.
#[derive(Clone)]
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
        while let Some(last) = self.piece::<T>(from.as_ref(), &mut each)? {
            from = Bound::Excluded(last);
        }
        Ok(())
    }

    /// Returns the first `limit` live rows from `from` on whose keys are `within`, as those of
    /// [`Self::for_each`]. Each piece is read on a thread that may block, and none once the caller has gone.
    ///
    /// # Errors
    /// When the store is closed.
    pub(in crate::store::embedded) async fn page<T: DurableTable>(
        self,
        mut from: Bound<T::Key>,
        limit: usize,
        within: impl Fn(&T::Key) -> bool + Clone + Send + 'static,
    ) -> StoreResult<Vec<(T::Key, T::Row)>> {
        let mut page = Vec::new();
        while page.len() < limit {
            let (reader, within, left) = (self.clone(), within.clone(), limit - page.len());
            let (rows, last) = off_thread(move || {
                let mut rows = Vec::new();
                let last = reader.piece::<T>(from.as_ref(), |key, row| {
                    let is_within = within(key);
                    if is_within {
                        rows.push((key.clone(), row.clone()));
                    }
                    is_within && rows.len() < left
                })?;
                Ok((rows, last))
            })
            .await?;
            page.extend(rows);
            let Some(last) = last else { break };
            from = Bound::Excluded(last);
        }
        Ok(page)
    }

    /// Calls `each` with the live ones of the next rows, while it returns `true`. Returns the last key that was looked
    /// at; `None` when there are no more, or `each` returned `false`.
    fn piece<T: DurableTable>(
        &self,
        from: Bound<&T::Key>,
        mut each: impl FnMut(&T::Key, &T::Row) -> bool,
    ) -> StoreResult<Option<T::Key>> {
        let (tables, now) = self.read()?;
        let mut last = None;
        for (key, row) in tables.rows::<T>().range(from, now.steady).take(PIECE) {
            if row.is_some_and(|row| !each(key, row)) {
                return Ok(None);
            }
            last = Some(key);
        }
        Ok(last.cloned())
    }
}
