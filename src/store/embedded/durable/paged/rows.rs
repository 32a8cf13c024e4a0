//! The committed rows of a paged table: what is held in memory, over what is in the file.
//!
//! As the writer uses them; see `calls.rs` for everybody else. Invariant: only the writer's thread
//! changes what is pinned, so that what it reads stays so until it changes it.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::held::{Held, HeldRow, Look};
use super::key::KeyText;
use super::pending::PagedPending;
use super::readers::Readers;
use super::sql;
use super::table::PagedTable;
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::durable::any_rows::AnyRows;
use crate::store::embedded::durable::changes::{AnyPending, Changes};
use crate::store::embedded::durable::journal::Effect;
use crate::store::embedded::durable::table::{Counter, TableForm};
use crate::store::embedded::sqlite::{SchemaPart, corrupt};
use crate::store::{Limited, ResourceStatus, StoreResult};

/// The rows of a table.
pub(in crate::store::embedded) struct PagedRows<T: PagedTable> {
    pub(super) held: Mutex<Held<T::Row>>,
    /// Empty without a file.
    pub(super) readers: OnceLock<Arc<Readers>>,
    /// The end and the key at which the last step of a purge stopped reading the file.
    purged_to: Mutex<(i64, KeyText)>,
    /// The most live rows, and the failure of a command that would make more.
    pub(super) limit: Option<(u64, Limited)>,
    table: PhantomData<fn() -> T>,
}

impl<T: PagedTable> PagedRows<T> {
    pub(super) fn new(cache_bytes: u64, limit: Option<(u64, Limited)>) -> Self {
        Self {
            held: Mutex::new(Held::new(cache_bytes)),
            readers: OnceLock::new(),
            purged_to: Mutex::new(purge_start()),
            limit,
            table: PhantomData,
        }
    }

    /// Reads rows, live or not, in the order of `keys`. Only for the writer's thread.
    pub(super) fn stored(&self, keys: &[KeyText]) -> StoreResult<Vec<Option<HeldRow<T::Row>>>> {
        let looks: Vec<_> = {
            let held = self.held.lock();
            keys.iter().map(|key| held.look(key)).collect()
        };
        let mut unknown: Vec<usize> = Vec::new();
        let mut found: Vec<Option<HeldRow<T::Row>>> = looks
            .into_iter()
            .enumerate()
            .map(|(at, look)| match look {
                Look::Known(row) => row,
                Look::Unknown => {
                    unknown.push(at);
                    None
                }
            })
            .collect();
        let Some(readers) = self.readers.get().filter(|_| !unknown.is_empty()) else {
            return Ok(found);
        };
        // Neighbours lie on the same pages.
        unknown.sort_by_key(|at| &keys[*at]);
        readers.with(|conn| {
            for at in &unknown {
                found[*at] = sql::read_row::<T>(conn, &keys[*at])?.map(held_row::<T>);
            }
            Ok(())
        })?;
        let mut held = self.held.lock();
        let unpinned_seq = held.unpinned_seq();
        for at in unknown {
            if let Some(row) = &found[at] {
                held.cache(Arc::clone(&keys[at]), row.clone(), unpinned_seq);
            }
        }
        Ok(found)
    }

    /// Adds up to `limit` expired rows of the file to what is removed. Those that memory knows
    /// better, or the group has changed, are passed over.
    fn delete_expired_in_file(
        &self,
        readers: &Readers,
        pending: &mut PagedPending<T>,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize> {
        let mut from = self.purged_to.lock();
        let mut next = None;
        let mut deleted = 0;
        readers.with(|conn| {
            sql::scan_expired::<T>(conn, (from.0, &from.1), now, |key, row| {
                if deleted == limit {
                    // What lies before this row is purged, or will be found by the next purge.
                    next = T::expires_at(&row).map(|at| (at.as_nanos(), key));
                    return false;
                }
                // The lock is not held while the file is read: others wait for it.
                if !self.held.lock().is_pinned(&key) {
                    deleted += usize::from(pending.delete_unless_changed(&key, held_row::<T>(row)));
                }
                true
            })
        })?;
        // At the end of what has expired, the next purge begins anew.
        *from = next.unwrap_or_else(purge_start);
        Ok(deleted)
    }
}

fn purge_start() -> (i64, KeyText) {
    (i64::MIN, "".into())
}

/// Makes a row that is held of one that was read.
pub(super) fn held_row<T: PagedTable>(row: T::Row) -> HeldRow<T::Row> {
    HeldRow { bytes: T::bytes(&row), expires_at: T::expires_at(&row), row: Arc::new(row) }
}

impl<T: PagedTable> AnyRows for Arc<PagedRows<T>> {
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
        TableForm { tag: T::TAG, name: T::NAME, end_of: Some(end_of::<T>) }
    }

    fn begin_epoch(&self, last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        T::begin_epoch(last, now)
    }

    fn attach(
        &mut self,
        conn: &Connection,
        readers: &Arc<Readers>,
        compacted_seq: i64,
    ) -> StoreResult<()> {
        let rows = sql::read_count::<T>(conn)?;
        self.held.lock().attach(rows, compacted_seq);
        self.readers.get_or_init(|| Arc::clone(readers));
        Ok(())
    }

    fn apply(&mut self, pending: Box<dyn AnyPending>, seq: i64) {
        let pending = pending.into_any().downcast::<PagedPending<T>>();
        let entries = pending.expect("changes lie at the tag of their table").entries;
        let mut held = self.held.lock();
        for (key, row) in entries {
            if row.is_effective() {
                held.pin(seq, key, row.changed_to.flatten(), row.stored.is_some());
            }
        }
    }

    fn replay(&mut self, conn: &Connection, effect: &Effect<'_>, seq: i64) -> StoreResult<()> {
        let key: KeyText = effect.key.into();
        let row = effect.row.map(serde_json::from_str).transpose();
        let row = row.map_err(|error| corrupt(error.to_string()))?.map(held_row::<T>);
        // A compaction that was cut off may have written the row already.
        let look = self.held.lock().look(&key);
        let existed = match look {
            Look::Known(row) => row.is_some(),
            Look::Unknown => sql::read_row::<T>(conn, &key)?.is_some(),
        };
        self.held.lock().pin(seq, key, row, existed);
        Ok(())
    }

    fn compacted(&mut self, seq: i64) {
        self.held.lock().compacted(seq);
    }

    fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize> {
        let pending = changes.of_tag::<PagedPending<T>>(T::TAG);
        let pinned: Vec<_> = {
            let held = self.held.lock();
            let expired = held.pinned_expired(now).take(limit);
            expired.filter_map(|key| Some((Arc::clone(key), held.pinned(key)?))).collect()
        };
        let mut deleted = 0;
        for (key, row) in pinned {
            deleted += usize::from(pending.delete_unless_changed(&key, row));
        }
        match self.readers.get() {
            Some(readers) if deleted < limit => {
                let more = self.delete_expired_in_file(readers, pending, now, limit - deleted)?;
                Ok(deleted + more)
            }
            _ => Ok(deleted),
        }
    }

    fn status(&self, _: SteadyTime) -> ResourceStatus {
        let held = self.held.lock();
        let bytes = held.pinned_bytes() as u64 + held.cached_bytes();
        let status = ResourceStatus::sized(T::NAME, held.rows(), bytes);
        self.limit.map_or(status, |(limit, _)| status.limited(limit))
    }
}

fn end_of<T: PagedTable>(row: &str) -> serde_json::Result<Option<i64>> {
    Ok(T::end_of(row)?.map(SteadyTime::as_nanos))
}
