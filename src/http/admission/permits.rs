//! Permits: the right of a request to run, to upload, to wait or to scrape. There is a limited number of each, and each
//! client has at most a part of them.
//!
//! Invariant: a request has at most one permit. One that begins to wait gives its permit to run back in the step
//! that takes the permit to wait, so that waiting requests never keep others from running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RequestClass;
use crate::exposition::OwnMetrics;
use crate::http::clients::{Client, ClientPart, PermitKind};
use crate::http::problem::Problem;
use crate::http::settings::LimitSettings;

/// The permits that are left, of each kind.
#[derive(Debug)]
pub(super) struct Permits {
    running: Pool,
    reserved: Pool,
    uploading: Pool,
    waiting_for_changes: Pool,
    waiting_for_lease_or_value: Pool,
    scraping: Pool,
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
    pub(super) fn new(limits: &LimitSettings, own: &OwnMetrics) -> Self {
        let pool = |kind: PermitKind, count: usize, busy| Pool {
            left: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            kind,
            most_of_client: limits.part_of_client(count),
            busy,
            in_use: own.http_permits.with_label_values(&[kind.as_str()]),
        };
        let waiting = limits.waiting_requests;
        let [running, waits] = ["too many requests are running", "too many requests are waiting"];
        Self {
            running: pool(PermitKind::Running, limits.concurrent_requests, running),
            reserved: pool(PermitKind::Reserved, limits.reserved_requests, running),
            uploading: pool(
                PermitKind::Uploading,
                limits.concurrent_uploads,
                "too many pushes are in progress",
            ),
            waiting_for_changes: pool(PermitKind::WaitingForChanges, waiting, waits),
            waiting_for_lease_or_value: pool(PermitKind::WaitingForLeaseOrValue, waiting, waits),
            scraping: pool(
                PermitKind::Scraping,
                limits.concurrent_scrapes,
                "too many scrapes are in progress",
            ),
        }
    }

    /// Takes the permit of a request of `class`. The client is `None` where nobody knows it: inside another program.
    /// `waits` is set when the request begins to wait.
    ///
    /// # Errors
    /// 503 when none is left, or the client has its part of them: a request is refused rather than queued, since the
    /// client can choose another replica.
    pub(super) fn acquire(
        self: &Arc<Self>,
        class: RequestClass,
        client: Option<&Arc<Client>>,
        waits: Option<&Arc<AtomicBool>>,
    ) -> Result<Permit, Problem> {
        Ok(match class {
            RequestClass::Prompt => Permit::Fixed(self.running.take(client)?),
            RequestClass::Upload => Permit::Fixed(self.uploading.take(client)?),
            RequestClass::Renewal => {
                let reserved = |_| self.reserved.take(client);
                Permit::Fixed(self.running.take(client).or_else(reserved)?)
            }
            RequestClass::Wait => Permit::Exchangeable(RunningPermit(Arc::new(Exchange {
                permits: Arc::clone(self),
                current: Mutex::new(Some(self.running.take(client)?)),
                client: client.cloned(),
                waits: waits.cloned(),
            }))),
            RequestClass::Scrape => Permit::Fixed(self.scraping.take(client)?),
            RequestClass::Unlimited => Permit::Unlimited,
        })
    }
}

/// The permits of one kind.
#[derive(Debug)]
struct Pool {
    left: Arc<Semaphore>,
    kind: PermitKind,
    most_of_client: usize,
    /// What a client is told when there is none.
    busy: &'static str,
    in_use: IntGauge,
}

impl Pool {
    fn take(&self, client: Option<&Arc<Client>>) -> Result<HeldPermit, Problem> {
        // The client's part first: one that has it all can't even for a moment take what others need.
        let part = client
            .map(|client| {
                let part = client.take(self.kind, self.most_of_client);
                part.ok_or_else(|| Problem::overloaded(&format!("{} for one client", self.busy)))
            })
            .transpose()?;
        let permit = Arc::clone(&self.left).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::overloaded(self.busy))?;
        self.in_use.inc();
        Ok(HeldPermit { in_use: self.in_use.clone(), _permit: permit, _part: part })
    }
}

/// A permit that counts, also towards its client's part.
#[derive(Debug)]
pub(super) struct HeldPermit {
    in_use: IntGauge,
    _permit: OwnedSemaphorePermit,
    _part: Option<ClientPart>,
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        self.in_use.dec();
    }
}

/// The permit of one request. Dropping it gives it back.
pub(super) enum Permit {
    /// The request needs none.
    Unlimited,
    /// One that stays the same.
    Fixed(HeldPermit),
    /// To run, until the handler exchanges it.
    Exchangeable(RunningPermit),
}

impl Permit {
    /// Returns the permit as it is at the end of the request, to be kept while the response is sent.
    pub(super) fn into_current(self) -> Option<HeldPermit> {
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
    current: Mutex<Option<HeldPermit>>,
    client: Option<Arc<Client>>,
    waits: Option<Arc<AtomicBool>>,
}

impl RunningPermit {
    /// Exchanges the permit to run for one to wait. To be called before the request begins to wait.
    ///
    /// # Errors
    /// 503 when too many requests wait. The request keeps its permit to run until its response.
    pub(crate) fn wait_for(&self, what: WaitFor) -> Result<(), Problem> {
        let permits = &self.0.permits;
        let pool = match what {
            WaitFor::Changes => &permits.waiting_for_changes,
            WaitFor::LeaseOrValue => &permits.waiting_for_lease_or_value,
        };
        let waiting = pool.take(self.0.client.as_ref())?;
        // From now on a client that closes its sending side counts as gone: it is never granted a lease.
        if let Some(waits) = &self.0.waits {
            waits.store(true, Ordering::Relaxed);
        }
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
            .map(|pool| pool.left.available_permits())
    }
}
