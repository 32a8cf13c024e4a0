//! Locks of the embedded store: the commands on their rows.

mod rows;

use std::collections::HashSet;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

pub(super) use self::rows::{LockRow, Locks};
use super::durable::{DurableStore, Txn};
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::{LockOutcome, LockStore, StoreResult};

/// Claims every key that is free, or none where there is no room for all of these.
fn acquire_all(
    txn: &mut Txn<'_>,
    keys: Vec<LockKey>,
    ttl: Duration,
    token: ReleaseToken,
) -> StoreResult<Vec<(bool, SteadyTime)>> {
    let free: HashSet<&LockKey> =
        keys.iter().filter(|key| txn.get::<Locks>(key).is_none()).collect();
    txn.make_room::<Locks>(free.len())?;
    Ok(keys.into_iter().map(|key| acquire(txn, key, ttl, token)).collect())
}

/// Returns whether the lock was acquired, and when it ends, whoever holds it.
fn acquire(
    txn: &mut Txn<'_>,
    key: LockKey,
    ttl: Duration,
    token: ReleaseToken,
) -> (bool, SteadyTime) {
    if let Some(held) = txn.get::<Locks>(&key) {
        return (false, held.expires_at);
    }
    let expires_at = txn.now.end_of(ttl);
    txn.put::<Locks>(key, LockRow { expires_at, token: Some(token) });
    (true, expires_at)
}

fn release(txn: &mut Txn<'_>, key: LockKey, token: Option<ReleaseToken>) -> bool {
    let held = txn.get::<Locks>(&key).is_some_and(|lock| token.is_none() || lock.token == token);
    if held {
        txn.delete::<Locks>(key);
    }
    held
}

#[async_trait]
impl LockStore for DurableStore {
    async fn acquire(
        &self,
        keys: Vec<LockKey>,
        ttl: Duration,
        token: ReleaseToken,
    ) -> StoreResult<Vec<LockOutcome>> {
        let outcomes = self.try_write(move |txn| acquire_all(txn, keys, ttl, token)).await?;
        // All that were acquired end together.
        let now = match outcomes.iter().find(|(acquired, _)| *acquired) {
            Some((_, end)) => self.acknowledge(*end)?,
            None => self.now(),
        };
        let outcome = |(acquired, end)| LockOutcome { acquired, expires_at: now.shown(end) };
        Ok(outcomes.into_iter().map(outcome).collect())
    }

    async fn release(&self, key: &LockKey, token: Option<ReleaseToken>) -> StoreResult<bool> {
        let key = key.clone();
        self.write(move |txn| release(txn, key, token)).await
    }

    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>> {
        let (tables, now) = self.read()?;
        Ok(tables.rows::<Locks>().get(key, now.steady).map(|row| now.shown(row.expires_at)))
    }

    async fn list(
        &self,
        kind: LockKind,
        after: Option<&str>,
        limit: usize,
    ) -> StoreResult<Vec<(LockKey, Timestamp)>> {
        // No key is empty, so without `after` it begins with the first one of the kind.
        let key = after.unwrap_or_default().to_owned();
        let from = Bound::Excluded(LockKey { kind, key });
        let page = self.reader().page::<Locks>(from, limit, move |key| key.kind == kind).await?;
        let now = self.now();
        Ok(page.into_iter().map(|(key, row)| (key, now.shown(row.expires_at))).collect())
    }
}
