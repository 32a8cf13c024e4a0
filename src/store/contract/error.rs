//! How a store fails. Absence and refusal are not failures: they are outcomes.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error as ThisError;

/// What kind of failure it was; what a caller may do follows from the kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store can't be reached, or is stopping. Trying again later may help.
    Unavailable,
    /// No response came in time; a write may or may not have been applied.
    Timeout,
    /// The store asks for fewer requests.
    Throttled,
    /// No room is left, on the disk or in memory. Nothing was changed.
    Full,
    /// A part of a batch was applied, and the rest was not: it failed, was refused, or found no room. Only where batches
    /// are not atomic, see [`super::Capabilities`]. The same batch may be sent again.
    PartlyApplied {
        /// How many points, keys or series of the batch were applied, at least.
        applied: u64,
    },
    /// The resource has as many entries as it may have; those that have expired do not count. Nothing was changed.
    LimitReached(Limited),
    /// What is stored can't be read.
    Corrupt,
    /// This backend can't do it, see [`super::Capabilities`].
    Unsupported,
    /// A defect of ours.
    Internal,
}

/// A resource whose number of entries has a limit, and whose writes fail when it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Locks: `locks.max_locks`.
    Locks,
    /// Leases: `leases.max_leases`.
    Leases,
    /// Checkpoints: `checkpoints.max_checkpoints`.
    Checkpoints,
    /// Keys with a generation: `generations.max_generations`.
    Generations,
    /// Values of aggregates: `aggregates.max_values`.
    Aggregates,
    /// Event ids that are remembered: `aggregates.max_event_ids`.
    EventIds,
    /// Producers whose last batch is remembered: `aggregates.max_producers`.
    Producers,
}

impl Limited {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Locks,
        Self::Leases,
        Self::Checkpoints,
        Self::Generations,
        Self::Aggregates,
        Self::EventIds,
        Self::Producers,
    ];

    /// Returns the name of the resource.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locks => "locks",
            Self::Leases => "leases",
            Self::Checkpoints => "checkpoints",
            Self::Generations => "generations",
            Self::Aggregates => "aggregates",
            Self::EventIds => "event_ids",
            Self::Producers => "producers",
        }
    }
}

/// A failure with its cause, for the log. Cheap to clone: a failed commit is reported to every
/// command of its group.
#[derive(Debug, Clone, ThisError)]
#[error("{kind:?}: {detail}")]
pub struct StoreError {
    /// The kind.
    pub kind: ErrorKind,
    /// What failed, in words. Never shown to clients.
    pub detail: String,
    /// The error of the driver or the system that caused it.
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// The store has logged it already, once for all commands that it fails.
    is_logged: bool,
}

impl StoreError {
    /// Makes a failure that has no cause in another library.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), source: None, is_logged: false }
    }

    /// Makes the failure of a write for which a resource has no room.
    pub fn limit_reached(of: Limited) -> Self {
        let detail = format!("the limit on {} is reached", of.as_str());
        Self::new(ErrorKind::LimitReached(of), detail)
    }

    /// Makes a failure that `source` caused; `detail` says what was being done.
    pub fn caused_by(
        kind: ErrorKind,
        detail: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, detail: detail.into(), source: Some(Arc::new(source)), is_logged: false }
    }

    /// Notes that the store has logged the failure, once for all commands that it fails.
    #[must_use]
    pub fn logged(self) -> Self {
        Self { is_logged: true, ..self }
    }

    /// Returns whether nobody else need log it.
    pub fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// Returns the failure with all its causes, for one field of a log line.
    pub fn with_causes(&self) -> String {
        let mut text = self.detail.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Returns whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Throttled
                | ErrorKind::Full
                | ErrorKind::PartlyApplied { .. }
                | ErrorKind::LimitReached(_)
        )
    }

    /// Returns how long a client should wait before it tries again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.is_transient().then_some(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_with_all_its_causes() {
        let disk = std::io::Error::other("no space left");
        let error = StoreError::caused_by(ErrorKind::Full, "the journal can't be written", disk);
        assert_eq!(error.with_causes(), "the journal can't be written: no space left");
        assert!(error.source().is_some());
        let error = StoreError::new(ErrorKind::Internal, "a defect");
        assert_eq!(error.with_causes(), "a defect");
    }
}
