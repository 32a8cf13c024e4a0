//! Points as JSON: one body with an array of points, or one point per line (NDJSON).
//!
//! Both read a point with the same code, `point.rs`.

mod body;
mod ndjson;
mod point;
mod value;

pub(super) use self::body::parse_json;
pub(super) use self::ndjson::parse_ndjson;
