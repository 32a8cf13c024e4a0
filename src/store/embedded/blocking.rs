//! Runs long work off the async threads.

use crate::store::{ErrorKind, StoreError, StoreResult};

/// Runs `work` on a thread that may block.
///
/// # Errors
/// Those of `work`; [`ErrorKind::Internal`] when it panics.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::caused_by(ErrorKind::Internal, "work on another thread failed", error))
    })
}
