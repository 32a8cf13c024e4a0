//! One kind of durable data: its rows as committed, and as a group of commands wants them.
//!
//! Knows neither the disk nor threads. Invariant: what is read through here has not expired,
//! whether or not anything removed it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::time::Timestamp;

/// Defines a table.
pub(in crate::store::embedded) trait Resource:
    Send + Sync + 'static
{
    /// What a row is found by. Its JSON is unambiguous, and the key in the file.
    type Key: Clone + Ord + std::hash::Hash + Serialize + DeserializeOwned + Send + Sync;
    /// A row; in the file, its JSON.
    type Row: Clone + Serialize + DeserializeOwned + Send + Sync;

    /// The SQL table that rows are compacted into.
    const NAME: &'static str;
    /// Names the table in journal entries; never given to another one.
    const TAG: u8;

    /// Returns when a row is over; `None` when never.
    fn expires_at(&self, row: &Self::Row) -> Option<Timestamp>;
}

/// The committed rows of a table.
#[derive(Debug)]
pub(in crate::store::embedded) struct Table<R: Resource> {
    resource: R,
    rows: BTreeMap<R::Key, R::Row>,
    expiry: BTreeSet<(Timestamp, R::Key)>,
}

impl<R: Resource> Table<R> {
    pub(super) fn new(resource: R) -> Self {
        Self { resource, rows: BTreeMap::new(), expiry: BTreeSet::new() }
    }

    /// Reads a row that is live at `now`.
    pub(in crate::store::embedded) fn get(&self, key: &R::Key, now: Timestamp) -> Option<&R::Row> {
        self.rows.get(key).filter(|row| self.is_live(row, now))
    }

    /// Reads the rows from `from` on that are live at `now`, in the order of their keys.
    pub(in crate::store::embedded) fn range(
        &self,
        from: Bound<&R::Key>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&R::Key, &R::Row)> {
        self.rows.range((from, Bound::Unbounded)).filter(move |(_, row)| self.is_live(row, now))
    }

    /// Counts the rows that are live at `now`.
    pub(super) fn count(&self, now: Timestamp) -> u64 {
        (self.rows.len() - self.expired(now).count()) as u64
    }

    /// Returns the keys of the rows that are over at `now`, the first to end first.
    fn expired(&self, now: Timestamp) -> impl Iterator<Item = &R::Key> {
        self.expiry.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    fn is_live(&self, row: &R::Row, now: Timestamp) -> bool {
        self.resource.expires_at(row).is_none_or(|at| now < at)
    }

    /// Sets a row, or removes it.
    pub(super) fn apply(&mut self, key: R::Key, row: Option<R::Row>) {
        let ends = row.as_ref().and_then(|row| self.resource.expires_at(row));
        let before = match row {
            Some(row) => {
                if let Some(at) = ends {
                    self.expiry.insert((at, key.clone()));
                }
                self.rows.insert(key.clone(), row)
            }
            None => self.rows.remove(&key),
        };
        let ended = before.as_ref().and_then(|row| self.resource.expires_at(row));
        if let Some(at) = ended
            && ends != Some(at)
        {
            self.expiry.remove(&(at, key));
        }
    }
}

/// What a group of commands changes in a table; `None` removes the row.
#[derive(Debug)]
pub(in crate::store::embedded) struct Pending<R: Resource> {
    pub(in crate::store::embedded) rows: HashMap<R::Key, Option<R::Row>, RandomState>,
}

impl<R: Resource> Default for Pending<R> {
    fn default() -> Self {
        Self { rows: HashMap::default() }
    }
}

/// A table as a command sees it: the committed rows under what the group has changed so far.
pub(in crate::store::embedded) struct View<'a, R: Resource> {
    pub(super) table: &'a Table<R>,
    pub(super) pending: &'a mut Pending<R>,
    pub(super) now: Timestamp,
    pub(super) changed: bool,
}

impl<R: Resource> View<'_, R> {
    /// Reads a row.
    pub(in crate::store::embedded) fn get(&self, key: &R::Key) -> Option<&R::Row> {
        match self.pending.rows.get(key) {
            Some(row) => row.as_ref().filter(|row| self.table.is_live(row, self.now)),
            None => self.table.get(key, self.now),
        }
    }

    /// Sets a row.
    pub(in crate::store::embedded) fn put(&mut self, key: R::Key, row: R::Row) {
        self.changed = true;
        self.pending.rows.insert(key, Some(row));
    }

    /// Removes a row.
    pub(in crate::store::embedded) fn delete(&mut self, key: R::Key) {
        self.changed = true;
        self.pending.rows.insert(key, None);
    }

    /// Removes at most `limit` rows that are over; gives how many.
    pub(super) fn delete_expired(&mut self, limit: usize) -> usize {
        let mut deleted = 0;
        for key in self.table.expired(self.now).take(limit) {
            if !self.pending.rows.contains_key(key) {
                self.pending.rows.insert(key.clone(), None);
                self.changed = true;
                deleted += 1;
            }
        }
        deleted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Ends;

    impl Resource for Ends {
        type Key = u32;
        type Row = i64;
        const NAME: &'static str = "ends";
        const TAG: u8 = 200;

        fn expires_at(&self, row: &i64) -> Option<Timestamp> {
            Some(Timestamp::from_nanos(*row))
        }
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn what_is_over_is_neither_read_nor_counted() {
        let mut table = Table::new(Ends);
        for key in 0..10 {
            table.apply(key, Some(i64::from(key)));
        }
        assert_eq!(table.count(at(4)), 5);
        assert_eq!(table.get(&4, at(4)), None);
        assert_eq!(table.get(&5, at(4)), Some(&5));
        assert_eq!(table.range(Bound::Unbounded, at(4)).count(), 5);
    }

    #[test]
    fn a_row_that_was_set_again_ends_at_its_new_end_only() {
        let mut table = Table::new(Ends);
        table.apply(1, Some(5));
        table.apply(1, Some(9));
        table.apply(2, Some(5));
        table.apply(2, Some(5));
        assert_eq!(table.count(at(7)), 1);
        table.apply(1, None);
        table.apply(2, None);
        assert_eq!((table.count(at(0)), table.expiry.len()), (0, 0));
    }

    #[test]
    fn a_command_sees_what_the_group_changed_before_it() {
        let mut table = Table::new(Ends);
        table.apply(1, Some(100));
        table.apply(3, Some(1));
        let mut pending = Pending::default();
        let mut view = View { table: &table, pending: &mut pending, now: at(10), changed: false };
        assert_eq!(view.delete_expired(10), 1);
        assert_eq!(view.delete_expired(10), 0);
        view.put(2, 100);
        view.delete(1);
        view.put(4, 10);
        assert_eq!(
            (view.get(&1), view.get(&2), view.get(&3), view.get(&4)),
            (None, Some(&100), None, None)
        );
        assert_eq!(table.get(&1, at(10)), Some(&100));
    }
}
