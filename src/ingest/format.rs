//! The formats of a push, and the one way into their parsers.
//!
//! Not media types: those are HTTP's. Invariant: whatever the format, the outcome has the same form, so
//! that nothing above asks which one it was.

use super::batch_builder::{InputLimits, ParseError, ParsedPush};
use super::json::{parse_json, parse_ndjson};
use super::text::{parse_openmetrics, parse_text};

/// A format that series come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object: `{"role", "source", "points"}`.
    Json,
    /// One JSON object per line, a point each.
    Ndjson,
    /// The Prometheus text format.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
}

impl Format {
    /// Parses a body.
    ///
    /// # Errors
    /// [`ParseError::Malformed`] when the body is not in this format; [`ParseError::Points`] with every
    /// invalid point; [`ParseError::TooManyPoints`].
    pub fn parse(self, body: &[u8], limits: &InputLimits) -> Result<ParsedPush, ParseError> {
        match self {
            Self::Json => parse_json(body, limits),
            Self::Ndjson => parse_ndjson(body, limits).map(ParsedPush::from),
            Self::Text => parse_text(body, limits).map(ParsedPush::from),
            Self::OpenMetrics => parse_openmetrics(body, limits).map(ParsedPush::from),
        }
    }

    /// Returns an upper bound of the number of points in a body, without parsing it.
    pub fn most_points(self, body: &[u8]) -> usize {
        match self {
            Self::Json => memchr::memchr_iter(b'{', body).count(),
            Self::Ndjson | Self::Text | Self::OpenMetrics => {
                memchr::memchr_iter(b'\n', body).count() + 1
            }
        }
    }
}
