//! The rules of leases: who waits, in which order, and who is never granted.
//!
//! Every request joins the queue of its lease, and only the first of a queue asks the store. Queues belong to this
//! server: among replicas, the one that asks the store first gets the lease.
//! A takeover replaces the holder's own grant, which nobody waits to get before; the lease never becomes free by it.
//! Invariant: no request overtakes one that waits, and a request that went away is not granted.

mod attempt;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::attempt::{AcquireRequest, Attempt};
use self::queue::{Queues, Ticket};
use super::error::{EngineError, EngineResult};
use super::roles::Roles;
use crate::clock::SharedClock;
use crate::model::leases::{Claimant, FencingToken, Lease, LeaseName};
use crate::store::{AcquireOutcome, LeaseStore};

/// The first of a queue asks the store again after this long, though nothing happened that this server knows of:
/// another replica may have released the lease.
const POLL: Duration = Duration::from_secs(1);

/// For how long the lease may look free to a request whose wait has ended, while the first of the queue is getting
/// it.
const SETTLE: Duration = Duration::from_millis(5);

/// What a request finds when it tries to get a lease.
enum Found {
    /// The lease is the caller's now.
    Granted(Lease),
    /// It is held.
    Held {
        lease: Lease,
        /// When to try again; not before a wake-up where `None`.
        retry_at: Option<Instant>,
    },
    /// It is free, but another request is the first of the queue.
    FreeForFirst,
}

/// Leases.
pub struct LeaseEngine {
    store: Arc<dyn LeaseStore>,
    roles: Arc<Roles>,
    queues: Arc<Queues>,
    clock: SharedClock,
    /// [`POLL`], unless a test says otherwise.
    poll: Duration,
}

impl LeaseEngine {
    pub(super) fn new(store: Arc<dyn LeaseStore>, roles: Arc<Roles>, clock: SharedClock) -> Self {
        Self { store, roles, queues: Arc::default(), clock, poll: POLL }
    }

    /// Acquires the lease; while it is held, waits in a fair queue for up to `wait`. With `takeover`, a lease that the
    /// same claimant holds is taken over at once. The caller's access token may be bound to a role.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`], and failures of the store.
    pub async fn acquire(
        &self,
        name: &LeaseName,
        claimant: &Claimant,
        ttl: Duration,
        wait: Duration,
        takeover: bool,
        bound_role: Option<&str>,
    ) -> EngineResult<AcquireOutcome> {
        self.roles.check_acquire(bound_role, name)?;
        let request = AcquireRequest {
            store: Arc::clone(&self.store),
            name: name.clone(),
            claimant: claimant.clone(),
            ttl,
        };
        let deadline = Instant::now() + wait;
        let ticket = Arc::new(self.queues.join(name));
        if takeover
            && let Some(taken) = Attempt::start(request.clone(), true, Arc::clone(&ticket)).await?
        {
            return Ok(taken);
        }
        loop {
            let wait_is_over = || deadline <= Instant::now();
            let retry_at = match self.attempt(&request, &ticket).await? {
                Found::Granted(lease) => return Ok(AcquireOutcome::Acquired(lease)),
                Found::Held { lease, .. } if wait_is_over() => {
                    return Ok(AcquireOutcome::Held(lease));
                }
                Found::FreeForFirst if wait_is_over() => {
                    // Neither granted nor held is no outcome. The first of the queue may not know yet that the lease
                    // is free: it is woken, and shortly after the lease is held or this request is the first.
                    self.queues.wake_first(name);
                    drop(tokio::time::timeout(SETTLE, ticket.woken()).await);
                    continue;
                }
                Found::Held { retry_at, .. } => retry_at.unwrap_or(deadline),
                Found::FreeForFirst => deadline,
            };
            drop(timeout_at(deadline.min(retry_at), ticket.woken()).await);
        }
    }

    /// Acquires the lease if the request is the first of its queue, else looks whether the lease is held.
    async fn attempt(&self, request: &AcquireRequest, ticket: &Arc<Ticket>) -> EngineResult<Found> {
        if !ticket.is_first() {
            match self.store.get(&request.name).await? {
                None => return Ok(Found::FreeForFirst),
                Some(lease) => return Ok(Found::Held { lease, retry_at: None }),
            }
        }
        Ok(match Attempt::start(request.clone(), false, Arc::clone(ticket)).await? {
            None => Found::FreeForFirst,
            Some(AcquireOutcome::Acquired(lease)) => Found::Granted(lease),
            Some(AcquireOutcome::Held(lease)) => {
                let ends_in = lease.expires_at.saturating_since(self.clock.now());
                // At least a millisecond: the lease may end in a fraction of one, which the clock shows as none.
                let ends_in = ends_in.clamp(Duration::from_millis(1), self.poll);
                Found::Held { lease, retry_at: Some(Instant::now() + ends_in) }
            }
        })
    }

    /// Renews the lease for `ttl` (its own when `None`) from now; returns `None` when it is not held under this token.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> EngineResult<Option<Lease>> {
        let renewed = self.store.renew(name, token, ttl).await?;
        // The lease may now end sooner than the first of the queue expects.
        self.queues.wake_first(name);
        Ok(renewed)
    }

    /// Releases the lease; returns whether it was held under this token.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&self, name: &LeaseName, token: FencingToken) -> EngineResult<bool> {
        let released = self.store.release(name, token).await?;
        self.queues.wake_first(name);
        Ok(released)
    }

    /// Reads a lease.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when it is not held, and failures of the store.
    pub async fn get(&self, name: &LeaseName) -> EngineResult<Lease> {
        self.store.get(name).await?.ok_or(EngineError::NotFound("lease"))
    }

    /// Reads the leases that are held, after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> EngineResult<Vec<(LeaseName, Lease)>> {
        Ok(self.store.list(after, limit).await?)
    }
}

#[cfg(test)]
mod tests;
