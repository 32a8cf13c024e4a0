//! Why a request was not carried out, by what its sender may do about it.

use thiserror::Error;

use crate::model::Invalid;
use crate::model::batch::PointErrors;
use crate::model::checkpoints::Checkpoint;
use crate::model::generations::Generation;
use crate::store::StoreError;

/// The outcome of the engine's methods.
pub type EngineResult<T> = Result<T, EngineError>;

/// A request that was not carried out. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A part of the request is not what it claims to be. Mend the request.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// Points of the batch are not valid. Mend those points.
    #[error("{} points are not valid", .0.total)]
    InvalidPoints(PointErrors),
    /// The writer's role, its source, or the two together are not allowed. Write as who you are.
    #[error("{0}")]
    GuardRefused(String),
    /// Writes of this role must carry the fencing token of the leader lease.
    #[error("writes of this role must be fenced by the lease {lease:?}")]
    FenceRequired {
        /// The lease's name.
        lease: String,
    },
    /// The lease is not held under this token now. Stop writing; acquire the lease again.
    #[error("the lease is not held under this fencing token")]
    FenceRefused,
    /// There is no room for the batch's new series. Delete series, or raise the budget.
    #[error("{new} new series, but room for {room}")]
    OverBudget {
        /// How many of the batch's series are new.
        new: usize,
        /// How many more series there was room for.
        room: usize,
    },
    /// The cursor is too old, or of another life of the store. Take a new snapshot.
    #[error("changes after this cursor are no longer known")]
    CursorGone,
    /// It is not there.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The lease is not held under this token. It is lost; acquire it again.
    #[error("the lease is not held under this fencing token")]
    LeaseNotHeld,
    /// A later checkpoint stands. Read it and go on from there.
    #[error("a later checkpoint stands")]
    CheckpointNotLater(Checkpoint),
    /// The generation has moved since it was seen: the value may be old. Make it anew.
    #[error("the generation has moved since it was seen; it is {0:?} now")]
    GenerationMoved(Generation),
    /// The value is larger than is held. Store it elsewhere.
    #[error("the value is larger than {limit_bytes} bytes")]
    ValueTooLarge {
        /// The most bytes, with what the value's key takes.
        limit_bytes: usize,
    },
    /// There are as many namespaces as there may be. Use one of them.
    #[error("there are as many namespaces as there may be")]
    TooManyNamespaces,
    /// Too many requests are waiting already. Try again later.
    #[error("too many requests are waiting")]
    TooManyWaiting,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
