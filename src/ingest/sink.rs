//! What every parser writes into: the batch, the positions of its points, the errors.
//!
//! Invariant: with one error, nothing of the body is given out.

use super::{InputLimits, ParseError, ParsedBatch, Positions};
use crate::model::Invalid;
use crate::model::batch::{PointBatch, PointErrors, Position};

/// A parse that is under way.
pub(super) struct Sink {
    pub(super) limits: InputLimits,
    pub(super) parsed: ParsedBatch,
    errors: PointErrors,
    points: usize,
}

impl Sink {
    pub(super) fn new(limits: &InputLimits, text_bytes: usize) -> Self {
        let batch = PointBatch::with_capacity(text_bytes);
        let parsed = ParsedBatch { batch, positions: Positions::default() };
        Self { limits: *limits, parsed, errors: PointErrors::default(), points: 0 }
    }

    /// Counts a point that begins, be it valid or not.
    pub(super) fn admit(&mut self) -> Result<(), ParseError> {
        self.points += 1;
        self.check_count()
    }

    /// Says whether the body held more points than it may.
    pub(super) fn check_count(&self) -> Result<(), ParseError> {
        let limit = self.limits.points;
        if self.points > limit { Err(ParseError::TooManyPoints { limit }) } else { Ok(()) }
    }

    /// Notes why something in the body is refused.
    pub(super) fn refuse(&mut self, position: Position, why: Invalid) {
        self.errors.add(position, why.0);
    }

    pub(super) fn finish(self) -> Result<ParsedBatch, ParseError> {
        if self.errors.is_empty() { Ok(self.parsed) } else { Err(ParseError::Points(self.errors)) }
    }
}
