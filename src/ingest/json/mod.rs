//! Points as JSON: one body with an array of points, or one point per line (NDJSON).
//!
//! Both read a point with the same code, `point.rs`.

mod body;
mod ndjson;
mod point;
mod value;

pub use self::body::{JsonBody, parse_json};
pub use self::ndjson::parse_ndjson;
