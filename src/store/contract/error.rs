//! How a store fails. Absence and refusal are not failures: they are answers.

use std::time::Duration;

use thiserror::Error;

/// What kind of failure it was; what a caller may do follows from the kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store can't be reached, or is stopping. Trying again later may help.
    Unavailable,
    /// No answer came in time; a write may or may not have been applied.
    Timeout,
    /// The store asks for fewer requests.
    Throttled,
    /// No room is left, on the disk or in memory. Nothing was changed, but for the parts of a batch that
    /// had room where batches are not atomic, see [`super::Capabilities`].
    Full,
    /// What is stored can't be read.
    Corrupt,
    /// This backend can't do it, see [`super::Capabilities`].
    Unsupported,
    /// A defect of ours.
    Internal,
}

/// A failure with its cause, for the log.
#[derive(Debug, Clone, Error)]
#[error("{kind:?}: {detail}")]
pub struct StoreError {
    /// The kind.
    pub kind: ErrorKind,
    /// The cause in words. Never shown to strangers.
    pub detail: String,
}

impl StoreError {
    /// Makes a failure.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// Returns whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled | ErrorKind::Full
        )
    }

    /// Returns how long a client should wait before it tries again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.is_transient().then_some(Duration::from_secs(1))
    }
}
