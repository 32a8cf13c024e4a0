//! Reads of paged tables by everybody but the writer.
//!
//! What is in memory is returned at once; else a thread that may block reads the file. No lock is
//! held meanwhile. Invariant: a read returns the committed state of one moment, which lies between its
//! call and its return.

use std::ops::Bound;
use std::sync::Arc;

use super::held::{Held, HeldRow, Look};
use super::key::{KeyText, key_text, read_key};
use super::readers::{Readers, Snapshot};
use super::rows::{PagedRows, held_row};
use super::sql;
use super::table::{PagedTable, RowKey};
use crate::clock::Clock;
use crate::model::time::SteadyTime;
use crate::store::StoreResult;
use crate::store::embedded::blocking::off_thread;
use crate::store::embedded::durable::store::DurableStore;
use crate::store::embedded::sqlite::corrupt;

/// How many rows one page looks at, live or not. So its cost is bounded, and what it holds of them.
const MAX_SCANNED: usize = 4_000;

/// How large a page may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::embedded) struct PageLimits {
    /// At least 1.
    pub(in crate::store::embedded) rows: usize,
    /// Ends a page at the row that exceeds it.
    pub(in crate::store::embedded) bytes: usize,
}

/// Some rows in the order of their keys.
pub(in crate::store::embedded) struct RowsPage<T: PagedTable> {
    pub(in crate::store::embedded) rows: Vec<(T::Key, Arc<T::Row>)>,
    /// The key after which the next page begins; `None` when no row follows. A page may be empty
    /// although more rows follow.
    pub(in crate::store::embedded) next: Option<T::Key>,
}

impl DurableStore {
    /// Reads rows of a paged table, in the order of `keys`.
    ///
    /// # Errors
    /// When a row can't be read, or the store is closed.
    pub(in crate::store::embedded) async fn read_paged<T: PagedTable>(
        &self,
        keys: &[RowKey<T>],
    ) -> StoreResult<Vec<Option<Arc<T::Row>>>> {
        let keys: Vec<_> = keys.iter().map(|key| Arc::clone(&key.0)).collect();
        let (rows, held) = {
            let (tables, now) = self.read()?;
            let rows = Arc::clone(tables.paged::<T>());
            let held = rows.look(&keys, now.steady);
            (rows, held)
        };
        let (None, Some(readers)) = (&held, rows.readers.get().cloned()) else {
            return Ok(held.unwrap_or_default());
        };
        let clock = Arc::clone(&self.shared.clock);
        let permit = readers.permit().await?;
        off_thread(move || {
            let read = rows.read(&readers, &*clock, &keys);
            drop(permit);
            read
        })
        .await
    }

    /// Reads the rows of a paged table from `from` on, in the order of their keys.
    ///
    /// # Errors
    /// As [`Self::read_paged`].
    pub(in crate::store::embedded) async fn read_page<T: PagedTable>(
        &self,
        from: Bound<&T::Key>,
        limits: PageLimits,
    ) -> StoreResult<RowsPage<T>> {
        let from = from.map(key_text);
        let rows = Arc::clone(self.read()?.0.paged::<T>());
        let clock = Arc::clone(&self.shared.clock);
        let permit = match rows.readers.get() {
            Some(readers) => Some(readers.permit().await?),
            None => None,
        };
        off_thread(move || {
            let page = rows.page(&*clock, as_text(&from), limits);
            drop(permit);
            page
        })
        .await
    }
}

fn as_text(bound: &Bound<KeyText>) -> Bound<&str> {
    bound.as_ref().map(|text| &**text)
}

impl<T: PagedTable> PagedRows<T> {
    /// Returns rows when all of them are known without the file.
    fn look(&self, keys: &[KeyText], now: SteadyTime) -> Option<Vec<Option<Arc<T::Row>>>> {
        let held = self.held.lock();
        keys.iter()
            .map(|key| match held.look(key) {
                Look::Known(row) => Some(live::<T>(row, now)),
                Look::Unknown => None,
            })
            .collect()
    }

    fn read(
        &self,
        readers: &Readers,
        clock: &dyn Clock,
        keys: &[KeyText],
    ) -> StoreResult<Vec<Option<Arc<T::Row>>>> {
        readers.with(|conn| {
            let look = |held: &Held<T::Row>| -> Vec<Look<T::Row>> {
                keys.iter().map(|key| held.look(key)).collect()
            };
            let snapshot = Snapshot::take(conn)?;
            let (snapshot, looks, unpinned_seq) = self.meet(conn, snapshot, look)?;
            // Of the moment at which memory was looked at, or a bit later.
            let now = clock.read().steady;
            // Neighbours lie on the same pages.
            let mut order: Vec<_> = keys.iter().zip(looks).enumerate().collect();
            order.sort_by_key(|(_, (key, _))| *key);
            let mut found: Vec<_> = keys.iter().map(|_| None).collect();
            for (at, (key, look)) in order {
                let row = match look {
                    Look::Known(row) => row,
                    Look::Unknown => {
                        let row = sql::read_row::<T>(snapshot.conn(), key)?.map(held_row::<T>);
                        if let Some(row) = &row {
                            self.held.lock().cache(Arc::clone(key), row.clone(), unpinned_seq);
                        }
                        row
                    }
                };
                found[at] = live::<T>(row, now);
            }
            Ok(found)
        })
    }

    /// Looks at memory with a snapshot of the file that has all changes that memory does not have.
    ///
    /// The snapshot comes first. What was committed after it is pinned, unless compaction has written
    /// it meanwhile and memory has let it go: then both begin anew. What the snapshot has of
    /// changes that are pinned as well is as old as these, or older.
    pub(super) fn meet<'a, L>(
        &self,
        conn: &'a rusqlite::Connection,
        mut snapshot: Snapshot<'a>,
        look: impl Fn(&Held<T::Row>) -> L,
    ) -> StoreResult<(Snapshot<'a>, L, i64)> {
        loop {
            {
                let held = self.held.lock();
                if held.unpinned_seq() <= snapshot.compacted_seq {
                    return Ok((snapshot, look(&held), held.unpinned_seq()));
                }
            }
            drop(snapshot);
            snapshot = Snapshot::take(conn)?;
        }
    }

    fn page(
        &self,
        clock: &dyn Clock,
        from: Bound<&str>,
        limits: PageLimits,
    ) -> StoreResult<RowsPage<T>> {
        let look = |held: &Held<T::Row>| held.pinned_from(from, MAX_SCANNED);
        let Some(readers) = self.readers.get() else {
            let pinned = look(&self.held.lock());
            let mut page = Page::<T>::new(limits, clock.read().steady);
            pinned.into_iter().all(|(key, row)| page.add(key, row));
            return page.end();
        };
        readers.with(|conn| {
            let (snapshot, pinned, _) = self.meet(conn, Snapshot::take(conn)?, look)?;
            let mut page = Page::<T>::new(limits, clock.read().steady);
            merge(&snapshot, from, pinned, &mut page)?;
            page.end()
        })
    }
}

/// Adds the rows of the file to a page, with the pinned changes over them.
fn merge<T: PagedTable>(
    snapshot: &Snapshot<'_>,
    from: Bound<&str>,
    pinned: Vec<(KeyText, Option<HeldRow<T::Row>>)>,
    page: &mut Page<T>,
) -> StoreResult<()> {
    let mut pinned = pinned.into_iter().peekable();
    let first = match from {
        Bound::Included(first) | Bound::Excluded(first) => first,
        Bound::Unbounded => "",
    };
    sql::scan::<T>(snapshot.conn(), first, |key, row| {
        if from == Bound::Excluded(&key) {
            return true;
        }
        while let Some((before, change)) = pinned.next_if(|(before, _)| *before < key) {
            if !page.add(before, change) {
                return false;
            }
        }
        match pinned.next_if(|(changed, _)| *changed == key) {
            Some((_, change)) => page.add(key, change),
            None => page.add(key, Some(held_row::<T>(row))),
        }
    })?;
    // Where the page has room, the file has no more rows. As many changes as a page looks at were
    // taken, so none is missing before its end.
    while page.has_room()
        && let Some((key, change)) = pinned.next()
    {
        page.add(key, change);
    }
    Ok(())
}

/// A page that is being read.
struct Page<T: PagedTable> {
    limits: PageLimits,
    now: SteadyTime,
    rows: Vec<(KeyText, Arc<T::Row>)>,
    bytes: usize,
    scanned: usize,
    last: Option<KeyText>,
}

impl<T: PagedTable> Page<T> {
    fn new(limits: PageLimits, now: SteadyTime) -> Self {
        Self { limits, now, rows: Vec::new(), bytes: 0, scanned: 0, last: None }
    }

    /// Adds the next row, or that there is none under the key; returns whether there is more room.
    fn add(&mut self, key: KeyText, row: Option<HeldRow<T::Row>>) -> bool {
        self.scanned += 1;
        if let Some(row) = row.filter(|row| row.is_live(self.now)) {
            self.bytes += key.len() + row.bytes;
            self.rows.push((Arc::clone(&key), row.row));
        }
        self.last = Some(key);
        self.has_room()
    }

    fn has_room(&self) -> bool {
        self.rows.len() < self.limits.rows
            && self.bytes < self.limits.bytes
            && self.scanned < MAX_SCANNED
    }

    fn end(self) -> StoreResult<RowsPage<T>> {
        let key = |text: &KeyText| {
            let why = || corrupt(format!("a key of {} does not read", T::NAME));
            read_key::<T::Key>(text).ok_or_else(why)
        };
        let full = !self.has_room();
        let next = self.last.as_ref().filter(|_| full).map(key).transpose()?;
        let rows = self.rows.into_iter().map(|(text, row)| Ok((key(&text)?, row)));
        Ok(RowsPage { rows: rows.collect::<StoreResult<_>>()?, next })
    }
}

fn live<T: PagedTable>(row: Option<HeldRow<T::Row>>, now: SteadyTime) -> Option<Arc<T::Row>> {
    row.filter(|row| row.is_live(now)).map(|row| row.row)
}
