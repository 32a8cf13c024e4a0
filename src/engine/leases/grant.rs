//! One attempt to get a lease, which leaves nothing behind when its caller goes away.
//!
//! Invariant: a lease that the store granted is either handed to the caller or released.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::queue::Place;
use crate::model::leases::{Holder, LeaseName};
use crate::store::{AcquireOutcome, ErrorKind, LeaseStore, StoreError, StoreResult};

/// What is asked of the store.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) store: Arc<dyn LeaseStore>,
    pub(super) name: LeaseName,
    pub(super) holder: Holder,
    pub(super) ttl: Duration,
}

/// The attempt, as a future. It runs in a task of its own, since only what sees the store's answer
/// can undo it.
pub(super) struct Attempt {
    wish: Wish,
    task: Option<JoinHandle<StoreResult<AcquireOutcome>>>,
    place: Option<Arc<Place>>,
}

impl Attempt {
    /// Asks the store; the place in the line stays taken until the outcome is settled.
    pub(super) fn start(wish: Wish, place: Arc<Place>) -> Self {
        let Wish { store, name, holder, ttl } = wish.clone();
        let task = tokio::spawn(async move { store.acquire(&name, &holder, ttl).await });
        Self { wish, task: Some(task), place: Some(place) }
    }
}

impl Future for Attempt {
    type Output = StoreResult<AcquireOutcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = match &mut self.task {
            Some(task) => match Pin::new(task).poll(context) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return Poll::Pending,
            },
            None => return Poll::Pending,
        };
        self.task = None;
        self.place = None;
        Poll::Ready(ended.unwrap_or_else(|error| {
            Err(StoreError::new(ErrorKind::Internal, format!("acquiring a lease failed: {error}")))
        }))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (Some(task), Some(place)) = (self.task.take(), self.place.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let wish = self.wish.clone();
        runtime.spawn(async move {
            if let Ok(Ok(AcquireOutcome::Acquired(lease))) = task.await
                && let Err(error) = wish.store.release(&wish.name, lease.token).await
            {
                tracing::warn!(%error, "a lease whose waiter went away could not be released");
            }
            drop(place);
        });
    }
}
