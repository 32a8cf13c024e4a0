//! The formats that series come in: JSON, NDJSON, the Prometheus text format, OpenMetrics.
//!
//! Every parser fills a [`PointBatch`] in one pass over the body. None decides who may write,
//! or what "now" is.
//! Invariant: a body is taken as a whole or refused with every offending point named, and
//! equal points give equal batches, whatever format they came in.

mod families;
mod json;
mod json_point;
mod json_shape;
mod lexer;
mod lines;
mod ndjson;
mod number;
mod openmetrics;
#[cfg(test)]
mod properties;
mod samples;
mod sink;
mod text;

pub use json::{JsonBody, parse_json};
pub use ndjson::parse_ndjson;
pub use openmetrics::parse_openmetrics;
pub use text::parse_text;

use thiserror::Error;

use crate::model::batch::{PointBatch, PointErrors, Position};
use crate::model::series::PointLimits;

/// Limits on one body.
#[derive(Debug, Clone, Copy)]
pub struct InputLimits {
    /// The most points, the refused ones included.
    pub points: usize,
    /// Limits on each point.
    pub point: PointLimits,
}

/// The points of a body, and where each stands in it.
#[derive(Debug, Default)]
pub struct ParsedBatch {
    /// The points, in the body's order.
    pub batch: PointBatch,
    /// Where they stand.
    pub positions: Positions,
}

/// Says where each point of a batch stands, without a word per point.
#[derive(Debug, Default)]
pub struct Positions {
    /// Runs of points on consecutive lines, as the index and the line of their first;
    /// none for JSON, where the index is the position.
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

    /// Notes that the next point, with this index, stands on this line.
    fn add_line(&mut self, index: usize, line: usize) {
        let expected = self.runs.last().map(|&(first, at)| at as usize + index - first as usize);
        if expected != Some(line) {
            let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            self.runs.push((bounded(index), bounded(line)));
        }
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
