//! The two text formats of Prometheus: the classic one, and OpenMetrics.
//!
//! `prometheus.rs` and `openmetrics.rs` hold what differs: comments, what follows the labels, the end
//! of the body. `reader.rs` holds what is the same: samples, families, errors.

mod families;
mod lexer;
mod openmetrics;
mod prometheus;
mod reader;
mod timestamps;

pub(super) use self::openmetrics::parse_openmetrics;
pub(super) use self::prometheus::parse_text;
