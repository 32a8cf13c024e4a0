//! Permits: the right of a request to run, to wait or to scrape. There is a limited number of each.
//!
//! Invariant: a request has at most one permit. One that begins to wait gives its permit to run back in the step
//! that takes the permit to wait, so that waiting requests never keep others from running.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RequestClass;
use crate::http::problem::Problem;
use crate::http::settings::LimitSettings;

/// The permits that are left, of each kind.
#[derive(Debug)]
pub(super) struct Permits {
    running: Arc<Semaphore>,
    waiting_for_changes: Arc<Semaphore>,
    waiting_for_lease_or_value: Arc<Semaphore>,
    scraping: Arc<Semaphore>,
}

/// What a request waits for. Each kind has its own bound: clients that follow changes can't keep others from
/// queueing for a lease or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// For changes of series.
    Changes,
    /// For a lease that another holder has, or for a value that another caller makes.
    LeaseOrValue,
}

impl Permits {
    pub(super) fn new(limits: &LimitSettings) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            running: permits(limits.concurrent_requests),
            waiting_for_changes: permits(limits.waiting_requests),
            waiting_for_lease_or_value: permits(limits.waiting_requests),
            scraping: permits(limits.concurrent_scrapes),
        }
    }

    /// Takes the permit of a request of `class`.
    ///
    /// # Errors
    /// 503 when none is left: a request is refused rather than queued, since the client can choose another replica.
    pub(super) fn acquire(self: &Arc<Self>, class: RequestClass) -> Result<Permit, Problem> {
        Ok(match class {
            RequestClass::Prompt | RequestClass::Upload => Permit::Fixed(self.run()?),
            RequestClass::Wait => Permit::Exchangeable(RunningPermit(Arc::new(Exchange {
                permits: Arc::clone(self),
                current: Mutex::new(Some(self.run()?)),
            }))),
            RequestClass::Scrape => {
                Permit::Fixed(take(&self.scraping, "too many scrapes are in progress")?)
            }
            RequestClass::Unlimited => Permit::Unlimited,
        })
    }

    fn run(&self) -> Result<OwnedSemaphorePermit, Problem> {
        take(&self.running, "too many requests are running")
    }

    fn wait(&self, what: WaitFor) -> Result<OwnedSemaphorePermit, Problem> {
        let bound = match what {
            WaitFor::Changes => &self.waiting_for_changes,
            WaitFor::LeaseOrValue => &self.waiting_for_lease_or_value,
        };
        take(bound, "too many requests are waiting")
    }
}

fn take(bound: &Arc<Semaphore>, busy: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(bound).try_acquire_owned().map_err(|_| Problem::overloaded(busy))
}

/// The permit of one request. Dropping it gives it back.
pub(super) enum Permit {
    /// The request needs none.
    Unlimited,
    /// To run or to scrape.
    Fixed(OwnedSemaphorePermit),
    /// To run, until the handler exchanges it.
    Exchangeable(RunningPermit),
}

impl Permit {
    /// Returns the permit as it is at the end of the request, to be kept while the response is sent.
    pub(super) fn into_current(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Unlimited => None,
            Self::Fixed(permit) => Some(permit),
            Self::Exchangeable(running) => running.0.current.lock().take(),
        }
    }
}

/// The permit of a request of the class [`RequestClass::Wait`], which its handler extracts. It is given back when
/// the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct RunningPermit(Arc<Exchange>);

#[derive(Debug)]
struct Exchange {
    permits: Arc<Permits>,
    current: Mutex<Option<OwnedSemaphorePermit>>,
}

impl RunningPermit {
    /// Exchanges the permit to run for one to wait. To be called before the request begins to wait.
    ///
    /// # Errors
    /// 503 when too many requests wait. The request keeps its permit to run until its response.
    pub(crate) fn wait_for(&self, what: WaitFor) -> Result<(), Problem> {
        let waiting = self.0.permits.wait(what)?;
        // The new permit is taken before the old one is dropped: at no moment does the request count nowhere.
        *self.0.current.lock() = Some(waiting);
        Ok(())
    }
}

impl<S: Sync> FromRequestParts<S> for RunningPermit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            // The first request of such a route finds the error in the route table.
            tracing::error!("a handler that may wait is on a route of another class than `Wait`");
            Problem::internal()
        })
    }
}

#[cfg(test)]
impl Permits {
    /// Returns how many permits to run, to wait for changes, and to wait for a lease or a value are left.
    pub(super) fn left(&self) -> [usize; 3] {
        [&self.running, &self.waiting_for_changes, &self.waiting_for_lease_or_value]
            .map(|bound| bound.available_permits())
    }
}
