//! Leases of the embedded store: the commands on their rows, which lie in `fences`.

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

use super::blocking::off_thread;
use super::durable::{DurableStore, Txn};
use super::fences::{LAST_TOKEN, LeaseRow, Leases};
use crate::clock::Moment;
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::store::{AcquireOutcome, LeaseStore, StoreResult};

/// Returns the lease: the new one, or as an error the one that stands in its way.
fn acquire(
    txn: &mut Txn<'_>,
    name: LeaseName,
    holder: Holder,
    ttl: Duration,
) -> StoreResult<Result<LeaseRow, LeaseRow>> {
    match txn.get::<Leases>(&name) {
        Some(held) if held.holder != holder => return Ok(Err(held.clone())),
        Some(_) => {}
        None => txn.make_room::<Leases>(1)?,
    }
    let token = FencingToken(txn.next(LAST_TOKEN));
    let lease = LeaseRow { holder, token, expires_at: txn.now.end_of(ttl), ttl };
    txn.put::<Leases>(name, lease.clone());
    Ok(Ok(lease))
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
    let LeaseRow { holder, token, expires_at, ttl } = row;
    Lease { holder, token, expires_at: now.shown(expires_at), ttl }
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
        Ok(match self.try_write(move |txn| acquire(txn, name, holder, ttl)).await? {
            Ok(row) => {
                let now = self.acknowledge(row.expires_at)?;
                AcquireOutcome::Acquired(shown(row, now))
            }
            Err(row) => AcquireOutcome::Held(shown(row, self.now())),
        })
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        let name = name.clone();
        let renewed = self.write(move |txn| renew(txn, name, token, ttl)).await?;
        renewed.map(|row| Ok(shown(row.clone(), self.acknowledge(row.expires_at)?))).transpose()
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
        let (reader, from) = (self.reader(), after.cloned());
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let page = off_thread(move || reader.page::<Leases>(from, limit, |_| true)).await?;
        let now = self.now();
        Ok(page.into_iter().map(|(name, row)| (name, shown(row, now))).collect())
    }
}
