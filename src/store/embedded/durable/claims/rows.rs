//! The committed claims of a table: in memory packed, and on disk in rows of many.
//!
//! Invariant: a row leaves the disk only when all its claims have ended.

use std::any::Any;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::chunk::{self, Chunk};
use super::end::ClaimEnd;
use super::packed::PackedClaims;
use super::pending::ClaimPending;
use super::table::ClaimTable;
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::durable::any_rows::AnyRows;
use crate::store::embedded::durable::changes::{AnyPending, Changes};
use crate::store::embedded::durable::journal::Effect;
use crate::store::embedded::durable::paged::Readers;
use crate::store::embedded::durable::table::{Counter, TableForm, checksum};
use crate::store::embedded::sqlite::{SchemaPart, corrupt, failed_to};
use crate::store::{ResourceStatus, StoreResult};

/// How many of the tables in memory one step of a purge cleans.
const CLEANED_AT_ONCE: usize = 64;

/// The claims of a table.
pub(super) struct ClaimRows<T> {
    pub(super) max: u64,
    pub(super) packed: Mutex<PackedClaims>,
    /// Empty without a file.
    readers: OnceLock<Arc<Readers>>,
    /// The rows whose removal is in the journal, and not in the SQL table yet; with the number of the entry.
    leaving: HashMap<Arc<str>, i64>,
    table: PhantomData<fn() -> T>,
}

impl<T: ClaimTable> ClaimRows<T> {
    pub(super) fn new(max: u64) -> Self {
        Self {
            max,
            packed: Mutex::default(),
            readers: OnceLock::new(),
            leaving: HashMap::new(),
            table: PhantomData,
        }
    }

    fn take_in(&self, row: &str) -> StoreResult<()> {
        let unreadable = || corrupt(format!("a row of {} does not read", T::NAME));
        let chunk: Chunk = serde_json::from_str(row).map_err(|_| unreadable())?;
        let claims = chunk.claims().ok_or_else(unreadable)?;
        let mut packed = self.packed.lock();
        for (id, content) in claims {
            packed.insert(id, content, chunk.end);
        }
        Ok(())
    }

    fn read_all(&self, conn: &Connection) -> StoreResult<()> {
        let failed = || failed_to("read a table");
        let sql = format!("SELECT key, value, crc FROM {}", T::NAME);
        let mut select = conn.prepare(&sql).map_err(failed())?;
        let mut rows = select.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
            let (key, value) = (text(0).map_err(failed())?, text(1).map_err(failed())?);
            if checksum(T::TAG, key, value) != row.get::<_, i64>(2).map_err(failed())? {
                return Err(corrupt(format!("a row of {} does not have its checksum", T::NAME)));
            }
            self.take_in(value)?;
        }
        Ok(())
    }

    /// Returns the keys of up to `limit` rows that have ended and are not leaving yet.
    fn ended_rows(
        &self,
        conn: &Connection,
        passed: ClaimEnd,
        limit: usize,
    ) -> StoreResult<Vec<Arc<str>>> {
        let failed = || failed_to("read rows");
        let sql = format!(
            "SELECT key FROM {} WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
            T::NAME
        );
        let mut select = conn.prepare_cached(&sql).map_err(failed())?;
        // Those that are leaving are found as well.
        let most = i64::try_from(limit + self.leaving.len()).unwrap_or(i64::MAX);
        let found =
            select.query_map(params![passed.as_nanos(), most], |row| row.get::<_, String>(0));
        let found: Vec<String> = found.and_then(Iterator::collect).map_err(failed())?;
        let fresh = found.into_iter().filter(|key| !self.leaving.contains_key(&**key));
        Ok(fresh.take(limit).map(Arc::from).collect())
    }
}

impl<T: ClaimTable> AnyRows for ClaimRows<T> {
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
        TableForm { tag: T::TAG, name: T::NAME, end_of: Some(chunk::end_of) }
    }

    fn begin_epoch(&self, _: &dyn Fn(&Counter) -> i64, _: Timestamp) -> Vec<(Counter, i64)> {
        Vec::new()
    }

    fn attach(&mut self, conn: &Connection, readers: &Arc<Readers>, _: i64) -> StoreResult<()> {
        self.read_all(conn)?;
        self.readers.get_or_init(|| Arc::clone(readers));
        Ok(())
    }

    fn apply(&mut self, pending: Box<dyn AnyPending>, seq: i64) {
        let pending = pending.into_any().downcast::<ClaimPending<T>>();
        let pending = pending.expect("changes lie at the tag of their table");
        let packed = self.packed.get_mut();
        for (id, (content, end)) in pending.claims {
            packed.insert(id, content, end);
        }
        self.leaving.extend(pending.removed.into_iter().map(|key| (key, seq)));
    }

    fn replay(&mut self, _: &Connection, effect: &Effect<'_>, _: i64) -> StoreResult<()> {
        // What was removed had ended: it is not found, and leaves memory with the next purge.
        effect.row.map_or(Ok(()), |row| self.take_in(row))
    }

    fn compacted(&mut self, seq: i64) {
        self.leaving.retain(|_, of| *of > seq);
    }

    fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize> {
        let passed = ClaimEnd::passed(now);
        let cleaned = self.packed.lock().clean(passed, CLEANED_AT_ONCE);
        let Some(readers) = self.readers.get() else { return Ok(cleaned) };
        let pending = changes.of_tag::<ClaimPending<T>>(T::TAG);
        if !pending.removed.is_empty() {
            // An earlier command of the group has found rows; the next group goes on.
            return Ok(cleaned);
        }
        pending.removed = readers.with(|conn| self.ended_rows(conn, passed, limit))?;
        Ok(cleaned + pending.removed.len())
    }

    fn status(&self, now: SteadyTime) -> ResourceStatus {
        let live = self.packed.lock().live(ClaimEnd::passed(now));
        ResourceStatus::counted(T::NAME, live).limited(self.max)
    }
}
