//! Leases of the embedded store, and the fences that other resources check. The rules of their
//! table; what commits it is in `state`.
//!
//! Invariant: while a fenced write of another store is under way ([`FenceGates`]), its lease
//! does not change hands visibly.

use std::hash::BuildHasher;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::FixedState;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::locks::end_of;
use super::state::StateStore;
use super::state::counters::Counter;
use super::state::table::{Pending, Resource};
use super::state::txn::{Tables, Txn};
use crate::model::leases::{Fence, FencingToken, Holder, Lease, LeaseName};
use crate::model::time::Timestamp;
use crate::store::{AcquireOutcome, Fenced, LeaseStore, StoreResult};

/// The table of the leases.
#[derive(Debug)]
pub(super) struct Leases;

impl Resource for Leases {
    type Key = LeaseName;
    type Row = Lease;
    const NAME: &'static str = "leases";
    const TAG: u8 = 3;

    fn expires_at(&self, row: &Lease) -> Option<Timestamp> {
        Some(row.expires_at)
    }
}

/// Tells whether `fence` holds where `lease` is what stands.
pub(super) fn holds(lease: Option<&Lease>, fence: &Fence) -> bool {
    lease.is_some_and(|lease| lease.token == fence.token)
}

/// Runs `write` when the fence holds, or there is none.
pub(super) fn fenced<T>(
    txn: &mut Txn<'_>,
    fence: Option<&Fence>,
    write: impl FnOnce(&mut Txn<'_>) -> T,
) -> Fenced<T> {
    match fence {
        Some(fence) if !holds(txn.leases.get(&fence.lease), fence) => Fenced::Refused,
        _ => Fenced::Done(write(txn)),
    }
}

/// How many gates there are. Leases share them by hash, so that a long fenced write delays
/// few but its own.
const GATES: usize = 64;

/// What a fenced write holds open, and a change of hands must shut.
#[derive(Debug)]
pub(super) struct FenceGates(Vec<RwLock<()>>);

impl Default for FenceGates {
    fn default() -> Self {
        Self((0..GATES).map(|_| RwLock::new(())).collect())
    }
}

impl FenceGates {
    fn index(name: &LeaseName) -> usize {
        // Below GATES, so that the cast is exact.
        (FixedState::default().hash_one(name) % GATES as u64) as usize
    }

    /// Holds a lease in the hands it is in.
    pub(super) fn pass(&self, name: &LeaseName) -> RwLockReadGuard<'_, ()> {
        self.0[Self::index(name)].read()
    }

    /// Waits until no fenced write is under way for a lease that `changes` takes from its holder.
    pub(super) fn shut_for(
        &self,
        changes: &Pending<Leases>,
        tables: &RwLock<Tables>,
    ) -> Vec<RwLockWriteGuard<'_, ()>> {
        if changes.rows.is_empty() {
            return Vec::new();
        }
        let tables = tables.read();
        let mut gates: Vec<usize> = changes
            .rows
            .iter()
            .filter(|(name, after)| {
                // One that is over already may still be held open by a write that began before.
                let before = tables.leases.get(name, Timestamp::MIN).map(|lease| lease.token);
                before.is_some() && before != after.as_ref().map(|lease| lease.token)
            })
            .map(|(name, _)| Self::index(name))
            .collect();
        drop(tables);
        gates.sort_unstable();
        gates.dedup();
        gates.into_iter().map(|gate| self.0[gate].write()).collect()
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
impl LeaseStore for StateStore {
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
