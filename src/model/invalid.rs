//! The error of every `parse` in the model.
//!
//! Invariant: the text is safe to send to the client: it names the rule, never internals.

use thiserror::Error;

/// Explains why a piece of input is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Makes the error from a sentence.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
