//! Locks of the embedded store: the commands on their rows.

mod rows;

use std::time::Duration;

use async_trait::async_trait;

pub(super) use self::rows::{LockRow, Locks};
use super::durable::{DurableStore, Txn};
use crate::model::locks::LockKey;
use crate::model::time::Timestamp;
use crate::store::{LockOutcome, LockStore, StoreResult};

fn acquire(txn: &mut Txn<'_>, key: LockKey, ttl: Duration) -> LockOutcome {
    if let Some(held) = txn.get::<Locks>(&key) {
        return LockOutcome { acquired: false, expires_at: held.expires_at };
    }
    let expires_at = txn.end_of(ttl);
    txn.put::<Locks>(key, LockRow { expires_at });
    LockOutcome { acquired: true, expires_at }
}

#[async_trait]
impl LockStore for DurableStore {
    async fn acquire(&self, keys: Vec<LockKey>, ttl: Duration) -> StoreResult<Vec<LockOutcome>> {
        self.write(move |txn| keys.into_iter().map(|key| acquire(txn, key, ttl)).collect()).await
    }

    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>> {
        let (tables, now) = self.read()?;
        Ok(tables.rows::<Locks>().get(key, now).map(|row| row.expires_at))
    }
}
