//! Why states could not be combined or read.

use thiserror::Error;

use super::Invalid;

/// A state was passed to a kind that it is not of: a defect of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the state is of another kind")]
pub struct OtherKind;

/// Two states could not be combined; neither has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// The result is beyond the range of the kind's numbers.
    #[error("the result is out of range: {0}")]
    Overflow(&'static str),
    /// The result has more entries or bytes than the pipeline allows.
    #[error("the result is too large: {0}")]
    Full(String),
    /// A defect of the caller.
    #[error(transparent)]
    OtherKind(#[from] OtherKind),
}

/// Bytes are not the stored form of a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// They have the form of another version.
    #[error("a stored value has version {0}, which this server does not read")]
    Version(u8),
    /// They are of another kind, or of the same kind with other parameters.
    #[error("a stored value is of another kind, or has other parameters")]
    OtherKind,
    /// They are damaged.
    #[error("a stored value is damaged: {0}")]
    Damaged(&'static str),
}

/// A question could not be put to a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The kind has no reply to it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A defect of the caller.
    #[error(transparent)]
    OtherKind(#[from] OtherKind),
}
