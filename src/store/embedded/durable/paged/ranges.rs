//! Reads of neighbouring rows: of some ranges at once by everybody but the writer, and of one by a command.
//!
//! Not in pages: a caller bounds how many rows its ranges can have. Invariant: what one call reads is the committed
//! state of one moment; a command sees what its group has changed as well.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::held::{Held, HeldRow};
use super::key::KeyText;
use super::pending::PagedPending;
use super::readers::Snapshot;
use super::rows::{PagedRows, held_row};
use super::sql;
use super::table::{KeyRange, PagedTable, RowKey};
use crate::clock::Clock;
use crate::model::time::SteadyTime;
use crate::store::StoreResult;
use crate::store::embedded::blocking::off_thread;
use crate::store::embedded::durable::store::DurableStore;
use crate::store::embedded::durable::transaction::Txn;

/// Changes that are pinned, in the order of their keys.
type PinnedRows<T> = Vec<(KeyText, Option<HeldRow<<T as PagedTable>::Row>>)>;

impl DurableStore {
    /// Reads the live rows of each range in the order of their keys, and folds them with `each`, on a thread that may
    /// block.
    ///
    /// # Errors
    /// When a row can't be read, or the store is closed.
    pub(in crate::store::embedded) async fn fold_ranges<T: PagedTable, R>(
        &self,
        ranges: Vec<KeyRange<T>>,
        each: impl Fn(&mut R, &T::Row) + Send + 'static,
    ) -> StoreResult<Vec<R>>
    where
        R: Default + Send + 'static,
    {
        let rows = Arc::clone(self.read()?.0.paged::<T>());
        let clock = Arc::clone(&self.shared.clock);
        let permit = match rows.readers.get() {
            Some(readers) => Some(readers.permit().await?),
            None => None,
        };
        off_thread(move || {
            let folded = rows.fold(&*clock, &ranges, each);
            drop(permit);
            folded
        })
        .await
    }
}

impl<T: PagedTable> PagedRows<T> {
    fn fold<R: Default>(
        &self,
        clock: &dyn Clock,
        ranges: &[KeyRange<T>],
        each: impl Fn(&mut R, &T::Row),
    ) -> StoreResult<Vec<R>> {
        let look = |held: &Held<T::Row>| -> Vec<PinnedRows<T>> {
            let of_range = |range: &KeyRange<T>| {
                let pinned = held.pinned_within(&range.first.0, &range.last.0);
                pinned.map(|(key, row)| (Arc::clone(key), row.cloned())).collect()
            };
            ranges.iter().map(of_range).collect()
        };
        let Some(readers) = self.readers.get() else {
            let pinned = look(&self.held.lock());
            let now = clock.read().steady;
            let fold = |pinned| fold_pinned::<T, R>(pinned, now, &each);
            return Ok(pinned.into_iter().map(fold).collect());
        };
        readers.with(|conn| {
            let (snapshot, pinned, _) = self.meet(conn, Snapshot::take(conn)?, look)?;
            let now = clock.read().steady;
            let both = ranges.iter().zip(pinned);
            both.map(|(range, pinned)| fold_range(&snapshot, range, pinned, now, &each)).collect()
        })
    }

    /// Returns the keys of the first `limit` committed rows of a range, live or not. Only for the writer's thread.
    fn keys_within(&self, range: &KeyRange<T>, limit: usize) -> StoreResult<BTreeSet<KeyText>> {
        let (first, last) = (&*range.first.0, &*range.last.0);
        let held = self.held.lock();
        let pinned: Vec<_> = held.pinned_within(first, last).collect();
        // The file may still have those that are removed.
        let removed: BTreeSet<_> = pinned
            .iter()
            .filter(|(_, row)| row.is_none())
            .map(|(key, _)| Arc::clone(key))
            .collect();
        let there = pinned.iter().filter(|(_, row)| row.is_some()).map(|(key, _)| Arc::clone(key));
        let mut keys: BTreeSet<_> = there.take(limit).collect();
        drop(held);
        if let Some(readers) = self.readers.get() {
            let most = limit + removed.len();
            let in_file = readers.with(|conn| sql::keys_within::<T>(conn, first, last, most))?;
            keys.extend(in_file.into_iter().filter(|key| !removed.contains(key)));
        }
        Ok(keys)
    }
}

fn fold_pinned<T: PagedTable, R: Default>(
    pinned: PinnedRows<T>,
    now: SteadyTime,
    each: &impl Fn(&mut R, &T::Row),
) -> R {
    let mut folded = R::default();
    for row in pinned.into_iter().filter_map(|(_, row)| row).filter(|row| row.is_live(now)) {
        each(&mut folded, &row.row);
    }
    folded
}

/// Folds the rows of the file, with the pinned changes over them.
fn fold_range<T: PagedTable, R: Default>(
    snapshot: &Snapshot<'_>,
    range: &KeyRange<T>,
    pinned: PinnedRows<T>,
    now: SteadyTime,
    each: &impl Fn(&mut R, &T::Row),
) -> StoreResult<R> {
    let mut folded = R::default();
    let mut add = |row: Option<HeldRow<T::Row>>| {
        if let Some(row) = row.filter(|row| row.is_live(now)) {
            each(&mut folded, &row.row);
        }
    };
    let mut pinned = pinned.into_iter().peekable();
    sql::scan_within::<T>(snapshot.conn(), &range.first.0, &range.last.0, |key, row| {
        while let Some((_, change)) = pinned.next_if(|(before, _)| *before < key) {
            add(change);
        }
        match pinned.next_if(|(changed, _)| *changed == key) {
            Some((_, change)) => add(change),
            None => add(Some(held_row::<T>(row))),
        }
        true
    })?;
    pinned.for_each(|(_, change)| add(change));
    Ok(folded)
}

impl Txn<'_> {
    /// Returns the keys of the first rows of a range, `limit` at most. Some of the rows may have expired.
    ///
    /// # Errors
    /// When they can't be read: then the command fails.
    pub(in crate::store::embedded) fn keys_within<T: PagedTable>(
        &mut self,
        range: &KeyRange<T>,
        limit: usize,
    ) -> StoreResult<Vec<RowKey<T>>> {
        let pending = self.changes.of_tag::<PagedPending<T>>(T::TAG);
        let within = |key: &KeyText| range.first.0 <= *key && *key <= range.last.0;
        let changed: Vec<_> = pending
            .changes()
            .filter(|(key, _)| within(key))
            .map(|(key, row)| (Arc::clone(key), row.is_some()))
            .collect();
        let committed = self.tables.paged::<T>().keys_within(range, limit + changed.len());
        let mut keys = committed.inspect_err(|error| self.failure = Some(error.clone()))?;
        for (key, is_there) in changed {
            if is_there {
                keys.insert(key);
            } else {
                keys.remove(&key);
            }
        }
        Ok(keys.into_iter().take(limit).map(RowKey::from_text).collect())
    }
}
