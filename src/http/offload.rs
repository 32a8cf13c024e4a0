//! Work that takes milliseconds of processor time, off the threads that serve connections.
//!
//! Invariant: a panic of the work is a problem for its caller, and is logged once.

use super::problem::Problem;

/// Runs `work` on a thread for blocking work and returns its result. `what` names it in the log.
///
/// # Errors
/// 500 when it panics.
pub(crate) async fn offload<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    joined(what, tokio::task::spawn_blocking(work)).await
}

/// Waits for a task of its own.
///
/// # Errors
/// 500 when it panics.
pub(crate) async fn joined<T>(
    what: &'static str,
    task: tokio::task::JoinHandle<T>,
) -> Result<T, Problem> {
    task.await.map_err(|error| {
        tracing::error!(what, cause = %error, "a part of a request panicked");
        Problem::internal()
    })
}
