//! The formats that series come in: JSON, NDJSON, the Prometheus text format, OpenMetrics.
//!
//! Every parser fills a [`PointBatch`](crate::model::batch::PointBatch) in one pass over the body. None
//! decides who may write, or what time it is.
//! Invariant: a body is accepted as a whole, or refused with the position of every invalid point; equal
//! points give equal batches, whatever format they came in.

mod batch_builder;
mod format;
mod json;
mod lines;
#[cfg(test)]
mod tests;
mod text;

pub use self::batch_builder::{InputLimits, ParseError, ParsedBatch, ParsedPush, Positions};
pub use self::format::Format;
pub(crate) use self::lines::Lines;
