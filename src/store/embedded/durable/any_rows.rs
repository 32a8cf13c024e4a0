//! What every table can do, whatever its rows are and wherever it holds them.
//!
//! Not how resources use a table: they know its type. Invariant: only the writer's thread calls what
//! changes a table.

use std::any::Any;
use std::sync::Arc;

use rusqlite::Connection;

use super::changes::{AnyPending, Changes};
use super::journal::Effect;
use super::paged::Readers;
use super::table::{Counter, TableForm};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::sqlite::SchemaPart;
use crate::store::{ResourceStatus, StoreResult};

/// The rows of some table.
pub(super) trait AnyRows: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn tag(&self) -> u8;
    fn name(&self) -> &'static str;
    fn schema(&self) -> SchemaPart;
    fn form(&self) -> TableForm;
    fn begin_epoch(&self, last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)>;

    /// Prepares to read the file, whose tables have what the journal says up to entry `compacted_seq`.
    /// A table that is in memory as a whole needs nothing of it. Until the start has ended, only `conn` sees
    /// what migrations have changed.
    fn attach(
        &mut self,
        conn: &Connection,
        readers: &Arc<Readers>,
        compacted_seq: i64,
    ) -> StoreResult<()> {
        let (_, _, _) = (conn, readers, compacted_seq);
        Ok(())
    }

    /// Makes changes visible that were committed with the journal entry number `seq`.
    fn apply(&mut self, pending: Box<dyn AnyPending>, seq: i64);

    /// Applies a change that was read, over `conn`, from the journal entry number `seq`, or from a table.
    ///
    /// # Errors
    /// When it does not read.
    fn replay(&mut self, conn: &Connection, effect: &Effect<'_>, seq: i64) -> StoreResult<()>;

    /// Notes that the changes up to entry number `seq` are in the SQL table.
    fn compacted(&mut self, seq: i64) {
        let _ = seq;
    }

    /// Removes at most `limit` expired rows; returns how many.
    ///
    /// # Errors
    /// When they can't be read.
    fn delete_expired(
        &self,
        changes: &mut Changes,
        now: SteadyTime,
        limit: usize,
    ) -> StoreResult<usize>;

    fn status(&self, now: SteadyTime) -> ResourceStatus;
}
