//! What every parser fills: the batch, the positions of its points, the errors.
//!
//! Not a parser. Invariant: after a single error, no batch is returned.

use thiserror::Error;

use crate::model::Invalid;
use crate::model::batch::{PointBatch, PointErrors, Position};
use crate::model::series::PointLimits;

/// Limits on one body.
#[derive(Debug, Clone, Copy)]
pub struct InputLimits {
    /// The most points, including invalid ones.
    pub points: usize,
    /// Limits on each point.
    pub point: PointLimits,
}

/// The points of a body, and the position of each.
#[derive(Debug, Default)]
pub struct ParsedBatch {
    /// The points, in the body's order.
    pub batch: PointBatch,
    /// Their positions.
    pub positions: Positions,
}

/// A parsed push.
#[derive(Debug, Default)]
pub struct ParsedPush {
    /// The role of the writer, if the body names it: JSON alone can.
    pub role: Option<String>,
    /// The source of the points, if the body names it: JSON alone can.
    pub source: Option<String>,
    /// The points.
    pub parsed: ParsedBatch,
}

impl From<ParsedBatch> for ParsedPush {
    fn from(parsed: ParsedBatch) -> Self {
        Self { role: None, source: None, parsed }
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The body is not in its format, so that its points could not be told apart.
    #[error("{0}")]
    Malformed(String),
    /// Some points are invalid.
    #[error("{} invalid points", .0.total)]
    Points(PointErrors),
    /// There are more points than one request may hold.
    #[error("more than {limit} points")]
    TooManyPoints {
        /// The most that are accepted.
        limit: usize,
    },
}

/// A batch that is being parsed.
pub(super) struct BatchBuilder {
    pub(super) limits: InputLimits,
    pub(super) parsed: ParsedBatch,
    errors: PointErrors,
    points: usize,
}

impl BatchBuilder {
    /// Makes an empty batch with room for about `text_bytes` of names and labels.
    pub(super) fn new(limits: &InputLimits, text_bytes: usize) -> Self {
        let batch = PointBatch::with_capacity(text_bytes);
        let parsed = ParsedBatch { batch, positions: Positions::default() };
        Self { limits: *limits, parsed, errors: PointErrors::default(), points: 0 }
    }

    /// Counts a point before it is parsed, whether it turns out to be valid or not.
    pub(super) fn count_point(&mut self) -> Result<(), ParseError> {
        self.points += 1;
        self.check_count()
    }

    /// Fails when more points were counted than are allowed.
    pub(super) fn check_count(&self) -> Result<(), ParseError> {
        let limit = self.limits.points;
        if self.points > limit { Err(ParseError::TooManyPoints { limit }) } else { Ok(()) }
    }

    /// Records an error.
    pub(super) fn add_error(&mut self, position: Position, why: Invalid) {
        self.errors.add(position, why.0);
    }

    /// Returns the batch, or all errors.
    pub(super) fn finish(self) -> Result<ParsedBatch, ParseError> {
        if self.errors.is_empty() { Ok(self.parsed) } else { Err(ParseError::Points(self.errors)) }
    }
}

/// The position of each point of a batch, without memory for each point.
#[derive(Debug, Default)]
pub struct Positions {
    /// Runs of points on consecutive lines: the index and the line of the first point of each run. Empty
    /// for a JSON body, where the index is the position.
    runs: Vec<(u32, u32)>,
}

impl Positions {
    /// Returns the position of the point with this index, from 0.
    pub fn position(&self, index: usize) -> Position {
        let run = self.runs.partition_point(|&(first, _)| first as usize <= index);
        match run.checked_sub(1).map(|run| self.runs[run]) {
            Some((first, line)) => Position::Line(line as usize + (index - first as usize)),
            None => Position::Index(index),
        }
    }

    /// Records the line of the next point, which has this index.
    pub(super) fn add_line(&mut self, index: usize, line: usize) {
        let expected = self.runs.last().map(|&(first, at)| at as usize + index - first as usize);
        if expected != Some(line) {
            let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            self.runs.push((bounded(index), bounded(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Position, Positions};

    #[test]
    fn positions_are_runs_of_lines() {
        let mut positions = Positions::default();
        for (index, line) in [3, 4, 5, 9, 10, 12].into_iter().enumerate() {
            positions.add_line(index, line);
        }
        let lines: Vec<_> = (0..6).map(|index| positions.position(index)).collect();
        assert_eq!(lines, [3, 4, 5, 9, 10, 12].map(Position::Line));
        assert_eq!(positions.runs.len(), 3);
        assert_eq!(Positions::default().position(7), Position::Index(7));
    }
}
