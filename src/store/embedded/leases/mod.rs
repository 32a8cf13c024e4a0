//! Leases of the embedded store, and the fences that other resources check. The rules of their
//! table; what commits it is in `state`.

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::leases::{Fence, FencingToken, Holder, Lease, LeaseName};
use crate::model::time::Timestamp;
use crate::store::embedded::durable::DurableStore;
use crate::store::embedded::durable::counters::Counter;
use crate::store::embedded::durable::table::Resource;
use crate::store::embedded::durable::transaction::Txn;
use crate::store::embedded::locks::end_of;
use crate::store::{AcquireOutcome, Fenced, LeaseStore, StoreResult};

/// The table of the leases.
#[derive(Debug)]
pub(in crate::store::embedded) struct Leases;

impl Resource for Leases {
    type Key = LeaseName;
    type Row = Lease;
    const NAME: &'static str = "leases";
    const TAG: u8 = 3;

    fn expires_at(&self, row: &Lease) -> Option<Timestamp> {
        Some(row.expires_at)
    }
}

/// Returns whether `fence` holds where `lease` is what stands.
pub(in crate::store::embedded) fn holds(lease: Option<&Lease>, fence: &Fence) -> bool {
    lease.is_some_and(|lease| lease.token == fence.token)
}

/// Runs `write` when the fence holds, or there is none.
pub(in crate::store::embedded) fn fenced<T>(
    txn: &mut Txn<'_>,
    fence: Option<&Fence>,
    write: impl FnOnce(&mut Txn<'_>) -> T,
) -> Fenced<T> {
    match fence {
        Some(fence) if !holds(txn.leases.get(&fence.lease), fence) => Fenced::Refused,
        _ => Fenced::Done(write(txn)),
    }
}

fn acquire(txn: &mut Txn<'_>, name: LeaseName, holder: Holder, ttl: Duration) -> AcquireOutcome {
    if let Some(held) = txn.leases.get(&name)
        && held.holder != holder
    {
        return AcquireOutcome::Held(held.clone());
    }
    let token = FencingToken(txn.next(Counter::FencingToken));
    let lease = Lease { holder, token, expires_at: end_of(txn.now, ttl), ttl };
    txn.leases.put(name, lease.clone());
    AcquireOutcome::Acquired(lease)
}

fn renew(
    txn: &mut Txn<'_>,
    name: LeaseName,
    token: FencingToken,
    ttl: Option<Duration>,
) -> Option<Lease> {
    let mut lease = txn.leases.get(&name).filter(|lease| lease.token == token)?.clone();
    lease.ttl = ttl.unwrap_or(lease.ttl);
    lease.expires_at = end_of(txn.now, lease.ttl);
    txn.leases.put(name, lease.clone());
    Some(lease)
}

fn release(txn: &mut Txn<'_>, name: LeaseName, token: FencingToken) -> bool {
    let held = txn.leases.get(&name).is_some_and(|lease| lease.token == token);
    if held {
        txn.leases.delete(name);
    }
    held
}

#[async_trait]
impl LeaseStore for DurableStore {
    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        let (name, holder) = (name.clone(), holder.clone());
        self.write(move |txn| acquire(txn, name, holder, ttl)).await
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        let name = name.clone();
        self.write(move |txn| renew(txn, name, token, ttl)).await
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        let name = name.clone();
        self.write(move |txn| release(txn, name, token)).await
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        let (tables, now) = self.read()?;
        Ok(tables.leases.get(name, now).cloned())
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        let (tables, now) = self.read()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(tables
            .leases
            .range(from, now)
            .take(limit)
            .map(|(name, lease)| (name.clone(), lease.clone()))
            .collect())
    }
}
