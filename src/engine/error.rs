//! Why a request failed, by what its sender may do about it.
//!
//! Only what every resource can have: what one resource alone can refuse is an outcome of its own methods.

use thiserror::Error;

use crate::model::Invalid;
use crate::store::{Fenced, StoreError};

/// What the engine's methods return.
pub type EngineResult<T> = Result<T, EngineError>;

/// A request that failed. Nothing was changed, unless a method says otherwise.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A part of the request is invalid. Correct the request.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nothing is held under this key.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The role may not do this. Use the role's own token, source or lease.
    #[error("{0}")]
    GuardRefused(String),
    /// A write of this role must carry a fence.
    #[error("{}", fence_required(lease.as_deref()))]
    FenceRequired {
        /// The name of the lease that must fence it; `None` for any lease.
        lease: Option<String>,
    },
    /// The lease is not held under this token now. Stop writing; acquire the lease again.
    #[error("the lease is not held under this fencing token")]
    FenceRefused,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn fence_required(lease: Option<&str>) -> String {
    match lease {
        Some(lease) => format!("writes of this role must be fenced by the lease {lease:?}"),
        None => "writes of this role must be fenced by a lease".to_owned(),
    }
}

/// Makes a refused fence an error.
pub(super) fn unfence<T>(outcome: Fenced<T>) -> EngineResult<T> {
    match outcome {
        Fenced::Done(value) => Ok(value),
        Fenced::Refused => Err(EngineError::FenceRefused),
    }
}
