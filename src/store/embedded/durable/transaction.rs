//! What a command works on: the committed rows under what its group has changed so far.
//!
//! Invariant: a command sees all that the commands before it in the group have done, and nothing
//! that has expired.

use std::ops::Bound;

use super::changes::{Changes, Pending};
use super::counters::Counters;
use super::table::{Counter, DurableTable};
use super::tables::Tables;
use crate::clock::Moment;
use crate::store::{StoreError, StoreResult};

/// How many expired rows a command removes at least when a table is full.
pub(super) const PURGED_AT_ONCE: usize = 256;

/// One command's view of the tables.
pub(in crate::store::embedded) struct Txn<'a> {
    /// The time of the group.
    pub(in crate::store::embedded) now: Moment,
    pub(super) tables: &'a Tables,
    pub(super) changes: &'a mut Changes,
    pub(super) changed: bool,
    /// Why the command can't be carried out: a row could not be read. Then it fails, whatever it
    /// returns.
    pub(super) failure: Option<StoreError>,
}

impl<'a> Txn<'a> {
    pub(super) fn new(tables: &'a Tables, changes: &'a mut Changes, now: Moment) -> Self {
        Self { now, tables, changes, changed: false, failure: None }
    }

    /// Reads a row.
    pub(in crate::store::embedded) fn get<T: DurableTable>(&self, key: &T::Key) -> Option<&T::Row> {
        let rows = self.tables.rows::<T>();
        match self.changes.pending::<T>().and_then(|pending| pending.rows.get(key)) {
            Some(row) => row.as_ref().filter(|row| rows.is_live(row, self.now.steady)),
            None => rows.get(key, self.now.steady),
        }
    }

    /// Returns the definition of a table.
    pub(in crate::store::embedded) fn table<T: DurableTable>(&self) -> &T {
        self.tables.rows::<T>().table()
    }

    /// Calls `each` with the rows after `key` until it returns `false`: first with those that the group has not changed, and
    /// then with those that it has set, both in the order of their keys.
    pub(in crate::store::embedded) fn rows_after<T: DurableTable>(
        &self,
        key: &T::Key,
        mut each: impl FnMut(&T::Key, &T::Row) -> bool,
    ) {
        let pending = self.changes.pending::<T>();
        let is_changed =
            |key: &T::Key| pending.is_some_and(|pending| pending.rows.contains_key(key));
        let committed = self.tables.rows::<T>().range(Bound::Excluded(key), self.now.steady);
        let live = committed.filter_map(|(of, row)| Some((of, row?)));
        for (of, row) in live.filter(|(of, _)| !is_changed(of)) {
            if !each(of, row) {
                return;
            }
        }
        let changed = pending.into_iter().flat_map(|pending| &pending.rows);
        let set = changed.filter_map(|(of, row)| Some((of, row.as_ref()?)));
        let mut set: Vec<_> = set.filter(|(of, _)| *of > key).collect();
        set.sort_unstable_by_key(|(of, _)| *of);
        for (of, row) in set {
            if !each(of, row) {
                return;
            }
        }
    }

    /// Sets a row.
    pub(in crate::store::embedded) fn put<T: DurableTable>(&mut self, key: T::Key, row: T::Row) {
        self.set::<T>(key, Some(row));
    }

    /// Removes a row.
    pub(in crate::store::embedded) fn delete<T: DurableTable>(&mut self, key: T::Key) {
        self.set::<T>(key, None);
    }

    fn set<T: DurableTable>(&mut self, key: T::Key, row: Option<T::Row>) {
        self.changed = true;
        let rows = self.tables.rows::<T>();
        let pending = self.changes.pending_mut::<T>();
        let before = match pending.rows.get(&key) {
            Some(row) => row.is_some(),
            None => rows.get_unpurged(&key).is_some(),
        };
        pending.more += i64::from(row.is_some()) - i64::from(before);
        pending.bytes += row.as_ref().map_or(0, T::bytes);
        pending.rows.insert(key, row);
    }

    /// Makes sure that the table may have `new` more live rows. Rows that have expired are removed for
    /// that.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::LimitReached`] when there are as many live rows as there may be.
    pub(in crate::store::embedded) fn make_room<T: DurableTable>(
        &mut self,
        new: usize,
    ) -> StoreResult<()> {
        let rows = self.tables.rows::<T>();
        let Some((limit, of)) = rows.limit() else { return Ok(()) };
        let pending = self.changes.pending_mut::<T>();
        let over = |pending: &Pending<T>| {
            let rows = i128::from(rows.len() as u64) + i128::from(pending.more) + new as i128;
            usize::try_from(rows - i128::from(limit)).unwrap_or(0)
        };
        while new > 0 && over(pending) > 0 {
            // Those that the group has removed come first and are passed over. A few more than are
            // needed, so that this does not come again with each row.
            let wanted = pending.rows.len() + over(pending) + PURGED_AT_ONCE;
            if rows.delete_expired(pending, self.now.steady, wanted) == 0 {
                return Err(StoreError::limit_reached(of));
            }
            self.changed = true;
        }
        Ok(())
    }

    /// Returns the value of a counter; 0 when it was never set.
    pub(in crate::store::embedded) fn counter(&self, counter: &Counter) -> i64 {
        self.get::<Counters>(counter).copied().unwrap_or(0)
    }

    /// Sets a counter.
    pub(in crate::store::embedded) fn set_counter(&mut self, counter: Counter, value: i64) {
        self.put::<Counters>(counter, value);
    }

    /// Raises a counter by one; returns its new value.
    pub(in crate::store::embedded) fn next(&mut self, counter: Counter) -> i64 {
        let value = self.counter(&counter) + 1;
        self.set_counter(counter, value);
        value
    }

    /// Removes at most `limit` expired rows of each table; returns how many.
    pub(super) fn delete_expired(&mut self, limit: usize) -> usize {
        match self.tables.delete_expired(self.changes, self.now.steady, limit) {
            Ok(deleted) => {
                self.changed |= deleted > 0;
                deleted
            }
            Err(error) => {
                // Another table's rows may have been removed before.
                self.changed = true;
                self.failure = Some(error);
                0
            }
        }
    }

    /// Returns why the command could not be carried out, if that is so.
    pub(super) fn failure(self) -> Option<StoreError> {
        self.failure
    }

    /// Returns whether the command changed anything.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{SteadyTime, Timestamp};

    #[derive(Debug)]
    struct Ends;

    impl DurableTable for Ends {
        type Key = u32;
        type Row = i64;
        const NAME: &'static str = "ends";
        const TAG: u8 = 200;
        const MIGRATIONS: &'static [&'static str] = &[];

        fn expires_at(&self, row: &i64) -> Option<SteadyTime> {
            Some(SteadyTime::from_nanos(*row))
        }
    }

    #[test]
    fn a_command_sees_what_the_group_changed_before_it() {
        let now = Moment { steady: SteadyTime::from_nanos(10), system: Timestamp::from_nanos(0) };
        let mut tables = Tables::new().with(Ends);
        let mut changes = Changes::default();
        let mut txn = Txn::new(&tables, &mut changes, now);
        txn.put::<Ends>(1, 100);
        txn.put::<Ends>(3, 1);
        tables.publish(changes, 1);

        let mut changes = Changes::default();
        let mut txn = Txn::new(&tables, &mut changes, now);
        assert_eq!((txn.delete_expired(10), txn.delete_expired(10)), (1, 0));
        txn.put::<Ends>(2, 100);
        txn.delete::<Ends>(1);
        txn.put::<Ends>(4, 10);
        let rows: Vec<_> = (1..=4).map(|key| txn.get::<Ends>(&key).copied()).collect();
        assert_eq!(rows, [None, Some(100), None, None]);
        assert_eq!(tables.rows::<Ends>().get(&1, now.steady), Some(&100));
    }

    #[test]
    #[should_panic(expected = "the tag or the name of the table ends is another's")]
    fn a_table_whose_tag_is_taken_is_not_registered() {
        drop(Tables::new().with(Ends).with(Ends));
    }
}
