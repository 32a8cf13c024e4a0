//! The rows of one table, all of them in memory, as committed.
//!
//! Knows neither the disk nor threads. Invariant: what is read through here has not expired,
//! whether or not it was purged.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rusqlite::Connection;

use super::any_rows::AnyRows;
use super::changes::{AnyPending, Changes, Pending};
use super::journal::Effect;
use super::table::{Counter, DurableTable, TableForm};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::sqlite::{SchemaPart, corrupt};
use crate::store::{Limited, ResourceStatus, StoreResult};

/// The committed rows of a table.
#[derive(Debug)]
pub(in crate::store::embedded) struct MemoryRows<T: DurableTable> {
    table: T,
    rows: BTreeMap<T::Key, T::Row>,
    /// The rows that have an end, by it.
    ends: BTreeSet<(SteadyTime, T::Key)>,
}

impl<T: DurableTable> MemoryRows<T> {
    pub(super) fn new(table: T) -> Self {
        Self { table, rows: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// Returns the definition of the table.
    pub(in crate::store::embedded) fn table(&self) -> &T {
        &self.table
    }

    /// Reads a row that is live at `now`.
    pub(in crate::store::embedded) fn get(&self, key: &T::Key, now: SteadyTime) -> Option<&T::Row> {
        self.rows.get(key).filter(|row| self.is_live(row, now))
    }

    /// Reads a row, live or not.
    pub(in crate::store::embedded) fn get_unpurged(&self, key: &T::Key) -> Option<&T::Row> {
        self.rows.get(key)
    }

    /// Reads the rows from `from` on, in the order of their keys. Those that have expired at `now` come as keys alone,
    /// so that whoever reads a bounded number of rows counts them as well.
    pub(in crate::store::embedded) fn range(
        &self,
        from: Bound<&T::Key>,
        now: SteadyTime,
    ) -> impl Iterator<Item = (&T::Key, Option<&T::Row>)> {
        let rows = self.rows.range((from, Bound::Unbounded));
        rows.map(move |(key, row)| (key, self.is_live(row, now).then_some(row)))
    }

    /// Counts the rows, live or not.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the most live rows that there may be, and the failure of a command that would make more.
    pub(super) fn limit(&self) -> Option<(u64, Limited)> {
        self.table.limit()
    }

    /// Removes at most `limit` expired rows, within a group; returns how many. What the group has
    /// written already stands: it may be a new row under that key.
    pub(super) fn delete_expired(
        &self,
        pending: &mut Pending<T>,
        now: SteadyTime,
        limit: usize,
    ) -> usize {
        let before = pending.rows.len();
        for key in self.expired(now).take(limit) {
            pending.rows.entry(key.clone()).or_insert_with(|| {
                pending.more -= 1;
                None
            });
        }
        pending.rows.len() - before
    }

    /// Counts the rows that are live at `now`.
    pub(super) fn count(&self, now: SteadyTime) -> u64 {
        (self.rows.len() - self.expired(now).count()) as u64
    }

    /// Returns the keys of the rows that have expired at `now`, in the order of their ends.
    pub(super) fn expired(&self, now: SteadyTime) -> impl Iterator<Item = &T::Key> {
        self.ends.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Returns whether a row of this table is live at `now`.
    pub(super) fn is_live(&self, row: &T::Row, now: SteadyTime) -> bool {
        self.table.expires_at(row).is_none_or(|at| now < at)
    }

    /// Sets a row, or removes it.
    pub(super) fn set(&mut self, key: T::Key, row: Option<T::Row>) {
        let end = row.as_ref().and_then(|row| self.table.expires_at(row));
        let before = match row {
            Some(row) => {
                if let Some(at) = end {
                    self.ends.insert((at, key.clone()));
                }
                self.rows.insert(key.clone(), row)
            }
            None => self.rows.remove(&key),
        };
        // Where the end did not move, its entry was just written again and must stay.
        let end_before = before.as_ref().and_then(|row| self.table.expires_at(row));
        if let Some(at) = end_before
            && end != Some(at)
        {
            self.ends.remove(&(at, key));
        }
    }
}

impl<T: DurableTable> AnyRows for MemoryRows<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn tag(&self) -> u8 {
        T::TAG
    }

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn schema(&self) -> SchemaPart {
        SchemaPart { name: T::NAME, migrations: T::MIGRATIONS }
    }

    fn form(&self) -> TableForm {
        TableForm { tag: T::TAG, name: T::NAME, end_of: None }
    }

    fn begin_epoch(&self, last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        T::begin_epoch(last, now)
    }

    fn apply(&mut self, pending: Box<dyn AnyPending>, _: i64) {
        let pending = pending.into_any().downcast::<Pending<T>>();
        for (key, row) in pending.expect("changes lie at the tag of their table").rows {
            self.set(key, row);
        }
        self.table.published();
    }

    fn replay(&mut self, _: &Connection, effect: &Effect<'_>, _: i64) -> StoreResult<()> {
        let (key, row) = effect.decode().map_err(|error| corrupt(error.to_string()))?;
        self.set(key, row);
        Ok(())
    }

    fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize> {
        if self.expired(now).next().is_none() {
            return Ok(0);
        }
        Ok(MemoryRows::delete_expired(self, changes.pending_mut::<T>(), now, limit))
    }

    fn status(&self, now: SteadyTime) -> ResourceStatus {
        let status = ResourceStatus::counted(T::NAME, self.count(now));
        self.limit().map_or(status, |(limit, _)| status.limited(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn at(nanos: i64) -> SteadyTime {
        SteadyTime::from_nanos(nanos)
    }

    #[test]
    fn expired_rows_are_neither_read_nor_counted() {
        let mut rows = MemoryRows::new(Ends);
        for key in 0..10 {
            rows.set(key, Some(i64::from(key)));
        }
        assert_eq!(rows.count(at(4)), 5);
        assert_eq!(rows.get(&4, at(4)), None);
        assert_eq!(rows.get(&5, at(4)), Some(&5));
        let live = rows.range(Bound::Unbounded, at(4)).filter_map(|(key, row)| row.map(|_| key));
        assert!(live.eq(&[5, 6, 7, 8, 9]));
    }

    #[test]
    fn a_row_that_was_set_again_ends_at_its_new_end_only() {
        let mut rows = MemoryRows::new(Ends);
        rows.set(1, Some(5));
        rows.set(1, Some(9));
        rows.set(2, Some(5));
        rows.set(2, Some(5));
        assert_eq!(rows.count(at(7)), 1);
        rows.set(1, None);
        rows.set(2, None);
        assert_eq!((rows.count(at(0)), rows.ends.len()), (0, 0));
    }
}
