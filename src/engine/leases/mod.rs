//! The rules of leases: who waits, in which order, and who is never granted.
//!
//! Every request joins the line of its lease, and only the first of a line asks the store.
//! Lines are of this server: between replicas, whoever asks the store first gets the lease.
//! Invariant: nobody passes somebody who waits, and whoever went away is not granted.

mod grant;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::grant::{Attempt, Wish};
use self::queue::{Lines, Place};
use super::{EngineError, EngineResult};
use crate::clock::SharedClock;
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::store::{AcquireOutcome, LeaseStore};

/// The first of a line asks the store again after this long, though nothing happened that this
/// server knows of: another replica may have released the lease.
const POLL: Duration = Duration::from_secs(1);

/// For how long the lease may look free to somebody whose time is over, while the first of the line
/// is getting it.
const SETTLE: Duration = Duration::from_millis(5);

/// The limits on waiting for a lease.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRules {
    /// How many requests may wait at a time, over all leases.
    pub max_waiting: usize,
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self { max_waiting: 20_000 }
    }
}

/// What somebody who wants a lease finds.
enum Look {
    /// The lease is theirs now.
    Granted(Lease),
    /// Somebody else holds it.
    HeldByOther {
        lease: Lease,
        /// When to look again; not before something happens where `None`.
        look_again: Option<Instant>,
    },
    /// Nobody holds it, but somebody else is first in the line.
    FreeButNotMyTurn,
}

/// Leases.
pub struct LeaseEngine {
    store: Arc<dyn LeaseStore>,
    lines: Arc<Lines>,
    clock: SharedClock,
}

impl LeaseEngine {
    pub(super) fn new(store: Arc<dyn LeaseStore>, rules: LeaseRules, clock: SharedClock) -> Self {
        Self { store, lines: Lines::new(rules.max_waiting), clock }
    }

    /// Takes the lease; when somebody else holds it, waits in a fair queue for up to `wait`.
    ///
    /// # Errors
    /// [`EngineError::TooManyWaiting`], and failures of the store.
    pub async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
        wait: Duration,
    ) -> EngineResult<AcquireOutcome> {
        let wish = Wish {
            store: Arc::clone(&self.store),
            name: name.clone(),
            holder: holder.clone(),
            ttl,
        };
        let deadline = Instant::now() + wait;
        let place = Arc::new(self.lines.join(name));
        let mut waiting = None;
        loop {
            let over = || deadline <= Instant::now();
            let look_again = match self.look(&wish, &place).await? {
                Look::Granted(lease) => return Ok(AcquireOutcome::Acquired(lease)),
                Look::HeldByOther { lease, .. } if over() => {
                    return Ok(AcquireOutcome::Held(lease));
                }
                Look::FreeButNotMyTurn if over() => {
                    // The first of the line may not know yet.
                    self.lines.wake_first(name);
                    drop(tokio::time::timeout(SETTLE, place.woken()).await);
                    continue;
                }
                Look::HeldByOther { look_again, .. } => look_again.unwrap_or(deadline),
                Look::FreeButNotMyTurn => deadline,
            };
            if waiting.is_none() {
                waiting = Some(self.lines.begin_to_wait().ok_or(EngineError::TooManyWaiting)?);
            }
            drop(timeout_at(deadline.min(look_again), place.woken()).await);
        }
    }

    /// Takes the lease if it is this request's turn, else looks whether it is held.
    async fn look(&self, wish: &Wish, place: &Arc<Place>) -> EngineResult<Look> {
        if !place.is_first() {
            match self.store.get(&wish.name).await? {
                None => return Ok(Look::FreeButNotMyTurn),
                // Its own holder does not wait for itself: that is a renewal, and passes nobody.
                Some(lease) if lease.holder == wish.holder => {}
                Some(lease) => return Ok(Look::HeldByOther { lease, look_again: None }),
            }
        }
        Ok(match Attempt::start(wish.clone(), Arc::clone(place)).await? {
            AcquireOutcome::Acquired(lease) => Look::Granted(lease),
            AcquireOutcome::Held(lease) => {
                let ends_in = lease.expires_at.saturating_since(self.clock.now());
                // Where the clock shows a part of a millisecond less than it is.
                let ends_in = ends_in.clamp(Duration::from_millis(1), POLL);
                Look::HeldByOther { lease, look_again: Some(Instant::now() + ends_in) }
            }
        })
    }

    /// Makes the lease last `ttl` (its own when `None`) from now.
    ///
    /// # Errors
    /// [`EngineError::LeaseNotHeld`], and failures of the store.
    pub async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> EngineResult<Lease> {
        let renewed = self.store.renew(name, token, ttl).await?;
        // It may end sooner now than whoever is next has been told.
        self.lines.wake_first(name);
        renewed.ok_or(EngineError::LeaseNotHeld)
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// [`EngineError::LeaseNotHeld`], and failures of the store.
    pub async fn release(&self, name: &LeaseName, token: FencingToken) -> EngineResult<()> {
        let released = self.store.release(name, token).await?;
        self.lines.wake_first(name);
        if released { Ok(()) } else { Err(EngineError::LeaseNotHeld) }
    }

    /// Reads a lease.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when nobody holds it, and failures of the store.
    pub async fn get(&self, name: &LeaseName) -> EngineResult<Lease> {
        self.store.get(name).await?.ok_or(EngineError::NotFound("lease"))
    }

    /// Reads the leases that are held, behind `after`, at most `limit`.
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
