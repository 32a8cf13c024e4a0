//! The place of a request among those that run, for routes whose requests may turn out to wait.
//!
//! Invariant: a request counts against one bound at a time, from its beginning until its answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use super::state::AppState;

/// The place, as a request extension and as what handlers take. It is free again when the last of
/// its clones is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// Makes the place of a request that runs.
    pub(crate) fn running(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Exchanges it for one among the requests that wait.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(crate) fn wait_among(&self, waiting: &Arc<Semaphore>) -> Result<(), Problem> {
        let permit = Arc::clone(waiting)
            .try_acquire_owned()
            .map_err(|_| Problem::overloaded("too many requests are waiting"))?;
        *self.0.lock() = Some(permit);
        Ok(())
    }

    /// Takes the place away, to be kept for longer than the request's handler runs.
    pub(crate) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.lock().take()
    }
}

impl FromRequestParts<AppState> for Place {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
