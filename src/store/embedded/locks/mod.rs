//! Locks of the embedded store. The rules of their table; what commits it is in `state`.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::locks::LockKey;
use crate::model::time::Timestamp;
use crate::store::embedded::durable::DurableStore;
use crate::store::embedded::durable::table::Resource;
use crate::store::embedded::durable::transaction::Txn;
use crate::store::{LockOutcome, LockStore, StoreResult};

/// The table of the locks.
#[derive(Debug)]
pub(in crate::store::embedded) struct Locks;

/// A lock that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct LockRow {
    pub(in crate::store::embedded) expires_at: Timestamp,
}

impl Resource for Locks {
    type Key = LockKey;
    type Row = LockRow;
    const NAME: &'static str = "locks";
    const TAG: u8 = 2;

    fn expires_at(&self, row: &LockRow) -> Option<Timestamp> {
        Some(row.expires_at)
    }
}

/// Returns the first whole millisecond at which a span of `ttl` from `now` is over: times that the
/// server makes have milliseconds, and none of them may cut a promise short.
pub(in crate::store::embedded) fn end_of(now: Timestamp, ttl: Duration) -> Timestamp {
    const ALMOST_A_MILLI: Duration = Duration::from_nanos(999_999);
    now.saturating_add(ttl.saturating_add(ALMOST_A_MILLI)).floor_to_millis()
}

fn acquire(txn: &mut Txn<'_>, key: LockKey, ttl: Duration) -> LockOutcome {
    if let Some(held) = txn.locks.get(&key) {
        return LockOutcome { acquired: false, expires_at: held.expires_at };
    }
    let expires_at = end_of(txn.now, ttl);
    txn.locks.put(key, LockRow { expires_at });
    LockOutcome { acquired: true, expires_at }
}

#[async_trait]
impl LockStore for DurableStore {
    async fn acquire(&self, keys: Vec<LockKey>, ttl: Duration) -> StoreResult<Vec<LockOutcome>> {
        self.write(move |txn| keys.into_iter().map(|key| acquire(txn, key, ttl)).collect()).await
    }

    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>> {
        let (tables, now) = self.read()?;
        Ok(tables.locks.get(key, now).map(|row| row.expires_at))
    }
}
