//! Checkpoints of the embedded store: the commands on their rows.

mod rows;

use std::ops::Bound;

use async_trait::async_trait;

use self::rows::CheckpointRow;
pub(super) use self::rows::Checkpoints;
use super::durable::{DurableStore, Txn};
use super::fences::fenced;
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::leases::Fence;
use crate::model::time::Timestamp;
use crate::store::{CheckpointOutcome, CheckpointStore, Fenced, StoreResult};

fn set(
    txn: &mut Txn<'_>,
    key: CheckpointKey,
    checkpoint: Timestamp,
    if_later: bool,
) -> StoreResult<CheckpointOutcome> {
    match txn.get::<Checkpoints>(&key) {
        Some(held) if if_later && held.checkpoint > checkpoint => {
            return Ok(CheckpointOutcome::NotLater(held.shown()));
        }
        Some(_) => {}
        None => txn.make_room::<Checkpoints>(1)?,
    }
    let written_at = txn.now.system.floor_to_millis();
    let row = CheckpointRow { checkpoint, written_at, written: Some(txn.now.steady) };
    txn.put::<Checkpoints>(key, row);
    Ok(CheckpointOutcome::Stored(row.shown()))
}

fn delete(txn: &mut Txn<'_>, key: CheckpointKey) -> bool {
    let stands = txn.get::<Checkpoints>(&key).is_some();
    if stands {
        txn.delete::<Checkpoints>(key);
    }
    stands
}

#[async_trait]
impl CheckpointStore for DurableStore {
    async fn set(
        &self,
        key: CheckpointKey,
        checkpoint: Timestamp,
        if_later: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<CheckpointOutcome>> {
        self.try_write(move |txn| {
            match fenced(txn, fence.as_ref(), |txn| set(txn, key, checkpoint, if_later)) {
                Fenced::Done(outcome) => outcome.map(Fenced::Done),
                Fenced::Refused => Ok(Fenced::Refused),
            }
        })
        .await
    }

    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>> {
        let (tables, now) = self.read()?;
        Ok(tables.rows::<Checkpoints>().get(key, now.steady).map(CheckpointRow::shown))
    }

    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        self.write(move |txn| fenced(txn, fence.as_ref(), |txn| delete(txn, key))).await
    }

    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>> {
        // The first key that an org can have: its repo would not be empty.
        let first = org.map(|org| CheckpointKey { org: org.to_owned(), repo: String::new() });
        let from = match (after.cloned(), first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let org = org.map(str::to_owned);
        let within = move |key: &CheckpointKey| org.as_ref().is_none_or(|org| key.org == *org);
        let page = self.reader().page::<Checkpoints>(from, limit, within).await?;
        Ok(page.into_iter().map(|(key, row)| (key, row.shown())).collect())
    }
}
