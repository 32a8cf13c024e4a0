//! One attempt to acquire a lease, which leaves nothing behind when its caller goes away.
//!
//! Invariant: a lease that the store granted is either returned to the caller or released.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::queue::Ticket;
use crate::model::leases::{Claimant, LeaseName};
use crate::store::{AcquireOutcome, ErrorKind, LeaseStore, StoreError, StoreResult};

/// What the store is asked for.
#[derive(Clone)]
pub(super) struct AcquireRequest {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) name: LeaseName,
    pub(super) claimant: Claimant,
    pub(super) ttl: Duration,
}

/// How an attempt ended; `None` where there was nothing to take over.
pub(super) type Attempted = StoreResult<Option<AcquireOutcome>>;

/// The attempt, as a future. The store's call runs in a task of its own: when the caller is dropped in its middle,
/// only a task that sees its outcome can undo it.
pub(super) struct Attempt {
    request: AcquireRequest,
    /// `None` once the outcome was returned.
    task: Option<JoinHandle<Attempted>>,
    ticket: Option<Arc<Ticket>>,
}

impl Attempt {
    /// Asks the store. The ticket stays in the queue until the outcome is settled, so that the next request does not
    /// ask the store while this grant may still be undone.
    pub(super) fn start(request: AcquireRequest, takeover: bool, ticket: Arc<Ticket>) -> Self {
        let AcquireRequest { store, name, claimant, ttl } = request.clone();
        let task = tokio::spawn(async move {
            if takeover {
                let lease = store.take_over(&name, &claimant, ttl).await?;
                return Ok(lease.map(AcquireOutcome::Acquired));
            }
            store.acquire(&name, &claimant, ttl).await.map(Some)
        });
        Self { request, task: Some(task), ticket: Some(ticket) }
    }
}

impl Future for Attempt {
    type Output = Attempted;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = match &mut self.task {
            Some(task) => match Pin::new(task).poll(context) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return Poll::Pending,
            },
            None => return Poll::Pending,
        };
        // From here on the caller has the outcome, and `drop` has nothing to undo.
        self.task = None;
        self.ticket = None;
        Poll::Ready(ended.unwrap_or_else(|error| {
            let detail = "the task that acquires a lease panicked";
            Err(StoreError::caused_by(ErrorKind::Internal, detail, error))
        }))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (Some(task), Some(ticket)) = (self.task.take(), self.ticket.take()) else { return };
        // Without a runtime the whole server is ending, and the lease ends by its ttl.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let request = self.request.clone();
        runtime.spawn(async move {
            if let Ok(Ok(Some(AcquireOutcome::Acquired(lease)))) = task.await
                && let Err(error) = request.store.release(&request.name, lease.token).await
            {
                let cause = error.with_causes();
                tracing::warn!(cause, "a lease could not be released whose waiter disconnected");
            }
            drop(ticket);
        });
    }
}
