//! The rows of locks.

use serde::{Deserialize, Serialize};

use crate::model::locks::{LockKey, ReleaseToken};
use crate::model::time::SteadyTime;
use crate::store::Limited;
use crate::store::embedded::durable::DurableTable;

/// The table of the locks.
#[derive(Debug)]
pub(in crate::store::embedded) struct Locks {
    /// The most live locks.
    pub(in crate::store::embedded) max: usize,
}

/// A lock that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct LockRow {
    pub(in crate::store::embedded) expires_at: SteadyTime,
    /// What releases it; absent from rows of before there were such tokens.
    #[serde(default)]
    pub(in crate::store::embedded) token: Option<ReleaseToken>,
}

impl DurableTable for Locks {
    type Key = LockKey;
    type Row = LockRow;
    const NAME: &'static str = "locks";
    const TAG: u8 = 2;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE locks (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID"];

    fn limit(&self) -> Option<(u64, Limited)> {
        Some((self.max as u64, Limited::Locks))
    }

    fn expires_at(&self, row: &LockRow) -> Option<SteadyTime> {
        Some(row.expires_at)
    }
}
