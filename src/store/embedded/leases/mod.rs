//! Leases of the embedded store: the commands on their rows, which lie in `fences`.

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

use super::durable::{DurableStore, Txn};
use super::fences::{LAST_TOKEN, LeaseRow, Leases};
use crate::clock::Moment;
use crate::model::leases::{Claimant, FencingToken, Lease, LeaseName};
use crate::store::{AcquireOutcome, LeaseStore, StoreResult};

/// Returns the lease: the new one, or as an error the one that stands in its way.
fn acquire(
    txn: &mut Txn<'_>,
    name: LeaseName,
    claimant: Claimant,
    ttl: Duration,
) -> StoreResult<Result<LeaseRow, LeaseRow>> {
    if let Some(held) = txn.get::<Leases>(&name) {
        return Ok(Err(held.clone()));
    }
    txn.make_room::<Leases>(1)?;
    Ok(Ok(grant(txn, name, claimant, ttl)))
}

fn take_over(
    txn: &mut Txn<'_>,
    name: LeaseName,
    claimant: Claimant,
    ttl: Duration,
) -> Option<LeaseRow> {
    let held = txn.get::<Leases>(&name)?;
    let same = held.holder == claimant.holder && held.access == claimant.access;
    same.then(|| grant(txn, name, claimant, ttl))
}

fn grant(txn: &mut Txn<'_>, name: LeaseName, claimant: Claimant, ttl: Duration) -> LeaseRow {
    let token = FencingToken(txn.next(LAST_TOKEN));
    let Claimant { holder, access } = claimant;
    let lease = LeaseRow { holder, token, expires_at: txn.now.end_of(ttl), ttl, access };
    txn.put::<Leases>(name, lease.clone());
    lease
}

fn renew(
    txn: &mut Txn<'_>,
    name: LeaseName,
    token: FencingToken,
    ttl: Option<Duration>,
) -> Option<LeaseRow> {
    let mut lease = txn.get::<Leases>(&name).filter(|lease| lease.token == token)?.clone();
    lease.ttl = ttl.unwrap_or(lease.ttl);
    lease.expires_at = txn.now.end_of(lease.ttl);
    txn.put::<Leases>(name, lease.clone());
    Some(lease)
}

fn release(txn: &mut Txn<'_>, name: LeaseName, token: FencingToken) -> bool {
    let held = txn.get::<Leases>(&name).is_some_and(|lease| lease.token == token);
    if held {
        txn.delete::<Leases>(name);
    }
    held
}

/// Returns a lease as a response at `now` shows it.
fn shown(row: LeaseRow, now: Moment) -> Lease {
    let LeaseRow { holder, token, expires_at, ttl, access: _ } = row;
    Lease { holder, token, expires_at: now.shown(expires_at), ttl }
}

impl DurableStore {
    /// Returns a lease that was granted, while it is not over.
    fn acknowledged(&self, granted: Option<LeaseRow>) -> StoreResult<Option<Lease>> {
        let Some(row) = granted else { return Ok(None) };
        let now = self.acknowledge(row.expires_at)?;
        Ok(Some(shown(row, now)))
    }
}

#[async_trait]
impl LeaseStore for DurableStore {
    async fn acquire(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        let (name, claimant) = (name.clone(), claimant.clone());
        Ok(match self.try_write(move |txn| acquire(txn, name, claimant, ttl)).await? {
            Ok(row) => {
                let now = self.acknowledge(row.expires_at)?;
                AcquireOutcome::Acquired(shown(row, now))
            }
            Err(row) => AcquireOutcome::Held(shown(row, self.now())),
        })
    }

    async fn take_over(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
    ) -> StoreResult<Option<Lease>> {
        let (name, claimant) = (name.clone(), claimant.clone());
        self.acknowledged(self.write(move |txn| take_over(txn, name, claimant, ttl)).await?)
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        let name = name.clone();
        self.acknowledged(self.write(move |txn| renew(txn, name, token, ttl)).await?)
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        let name = name.clone();
        self.write(move |txn| release(txn, name, token)).await
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        let (tables, now) = self.read()?;
        Ok(tables.rows::<Leases>().get(name, now.steady).map(|row| shown(row.clone(), now)))
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        let from = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.reader().page::<Leases>(from, limit, |_| true).await?;
        let now = self.now();
        Ok(page.into_iter().map(|(name, row)| (name, shown(row, now))).collect())
    }
}
