//! Failures of the lower layers as problems: the errors that every resource can have, and those of the store.
//!
//! Not the outcomes of one resource: its routes say what they mean. Invariant: a failure of the store is logged
//! here, once, with its causes, unless the store has done so; and clients never see these.

use super::{Code, Problem};
use crate::engine::EngineError;
use crate::store::{ErrorKind, Limited, StoreError};

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let detail = error.to_string();
        let code = match error {
            EngineError::Store(error) => return error.into(),
            EngineError::Invalid(_) => Code::InvalidRequest,
            EngineError::NotFound(_) => Code::NotFound,
            EngineError::GuardRefused(_) => Code::GuardRefused,
            EngineError::FenceRequired { .. } => Code::FenceRequired,
            EngineError::FenceRefused => Code::FenceRefused,
        };
        Self::new(code).detail(detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let code = code_of(error.kind);
        let cause = error.with_causes();
        match error.kind {
            _ if error.is_logged() => {}
            // Somebody must act.
            ErrorKind::Full | ErrorKind::Corrupt | ErrorKind::Internal => {
                tracing::error!(kind = ?error.kind, cause, "the store failed");
            }
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Throttled
            | ErrorKind::PartlyApplied { .. } => {
                tracing::warn!(kind = ?error.kind, cause, "the store could not serve a request");
            }
            // The metrics show how much is held.
            ErrorKind::LimitReached(_) | ErrorKind::Unsupported => {}
        }
        let mut problem = Self::new(code).detail(code.meaning());
        if let ErrorKind::PartlyApplied { applied } = error.kind {
            problem = problem.applied(applied);
        }
        match error.retry_after() {
            Some(after) if code.status() == 503 => problem.retry_after(after.as_secs().max(1)),
            _ => problem,
        }
    }
}

fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Unavailable => Code::StoreUnavailable,
        ErrorKind::Timeout => Code::StoreTimeout,
        ErrorKind::Throttled => Code::StoreThrottled,
        ErrorKind::PartlyApplied { .. } => Code::PartlyApplied,
        ErrorKind::Full => Code::StorageFull,
        ErrorKind::LimitReached(Limited::Locks) => Code::TooManyLocks,
        ErrorKind::LimitReached(Limited::Leases) => Code::TooManyLeases,
        ErrorKind::LimitReached(Limited::Checkpoints) => Code::TooManyCheckpoints,
        ErrorKind::LimitReached(Limited::Generations) => Code::TooManyGenerations,
        ErrorKind::LimitReached(Limited::Aggregates) => Code::TooManyAggregates,
        ErrorKind::LimitReached(Limited::EventIds) => Code::TooManyEventIds,
        ErrorKind::LimitReached(Limited::Producers) => Code::TooManyProducers,
        ErrorKind::Unsupported => Code::Unsupported,
        ErrorKind::Corrupt | ErrorKind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Invalid;

    #[test]
    fn every_engine_error_has_its_code() {
        let table = [
            (EngineError::Invalid(Invalid::new("x")), Code::InvalidRequest),
            (EngineError::NotFound("lease"), Code::NotFound),
            (EngineError::GuardRefused("x".into()), Code::GuardRefused),
            (EngineError::FenceRequired { lease: Some("x".into()) }, Code::FenceRequired),
            (EngineError::FenceRefused, Code::FenceRefused),
        ];
        for (error, code) in table {
            assert_eq!(Problem::from(error).code(), code);
        }
        let kinds = [
            (ErrorKind::Unavailable, 503, "store_unavailable"),
            (ErrorKind::Timeout, 503, "store_timeout"),
            (ErrorKind::Throttled, 503, "store_throttled"),
            (ErrorKind::PartlyApplied { applied: 7 }, 503, "partly_applied"),
            (ErrorKind::Full, 507, "storage_full"),
            (ErrorKind::LimitReached(Limited::Locks), 507, "too_many_locks"),
            (ErrorKind::LimitReached(Limited::Leases), 507, "too_many_leases"),
            (ErrorKind::LimitReached(Limited::Checkpoints), 507, "too_many_checkpoints"),
            (ErrorKind::LimitReached(Limited::Generations), 507, "too_many_generations"),
            (ErrorKind::LimitReached(Limited::Aggregates), 507, "too_many_aggregates"),
            (ErrorKind::LimitReached(Limited::EventIds), 507, "too_many_event_ids"),
            (ErrorKind::LimitReached(Limited::Producers), 507, "too_many_producers"),
            (ErrorKind::Corrupt, 500, "internal"),
            (ErrorKind::Unsupported, 501, "unsupported"),
            (ErrorKind::Internal, 500, "internal"),
        ];
        for (kind, status, code) in kinds {
            let problem = Problem::from(StoreError::new(kind, "secret cause"));
            assert_eq!((problem.status().as_u16(), problem.code().as_str()), (status, code));
        }
    }

    #[test]
    fn clients_never_see_the_cause_of_a_failure() {
        for kind in [ErrorKind::Internal, ErrorKind::Corrupt, ErrorKind::Full, ErrorKind::Timeout] {
            let problem = Problem::from(StoreError::new(kind, "secret cause"));
            let text = String::from_utf8(problem.to_json()).expect("JSON is UTF-8");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
