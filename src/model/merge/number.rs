//! Numbers in deltas and values.
//!
//! JSON has no NaN and no infinities. Where a kind takes floats, these are `{"special": "NaN" | "+Inf" | "-Inf"}` in
//! place of the number. Invariant: no number is rounded on the way in; one that does not fit is refused.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::Invalid;
use crate::model::number::{parse_special, special_text};

/// Up to here, each whole number is a float of its own.
const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;

/// A float that is equal to itself, also where it is NaN; 0 and -0 differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Float(f64);

impl Float {
    pub(super) const ZERO: Self = Self(0.0);

    /// Takes a float. All NaNs become one.
    pub(super) fn new(float: f64) -> Self {
        Self(if float.is_nan() { f64::NAN } else { float })
    }

    pub(super) fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The total order: -0 comes before 0, NaN behind all others.
impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Reads an integer. `5.0` is one too: it is what some clients write for 5.
pub(super) fn integer(json: &Value) -> Result<i64, Invalid> {
    let Value::Number(number) = json else {
        return Err(Invalid::new("the delta must be an integer"));
    };
    if let Some(integer) = number.as_i64() {
        return Ok(integer);
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if !number.is_f64() || float.fract() == 0.0 && float.abs() > EXACT_FLOATS {
        return Err(Invalid::new("the delta does not fit into a 64-bit integer"));
    }
    if float.fract() != 0.0 {
        return Err(Invalid::new("the delta must be an integer; the number has a fraction"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53")]
    Ok(float as i64)
}

/// Reads a float, or what stands for one that JSON cannot write.
pub(super) fn float(json: &Value) -> Result<f64, Invalid> {
    const FORM: &str =
        "the delta must be a number, or {\"special\": \"NaN\"}, \"+Inf\" or \"-Inf\"";
    match json {
        Value::Number(number) => number
            .as_f64()
            .filter(|float| float.is_finite())
            .ok_or_else(|| Invalid::new("the delta does not fit into a 64-bit float")),
        Value::Object(object) if object.len() == 1 => object
            .get("special")
            .and_then(Value::as_str)
            .and_then(parse_special)
            .ok_or_else(|| Invalid::new(FORM)),
        _ => Err(Invalid::new(FORM)),
    }
}

/// Returns what [`float`] reads as the same float; every NaN is the same.
pub(super) fn float_json(float: f64) -> Value {
    match special_text(float) {
        Some(special) => json!({ "special": special }),
        None => Value::from(float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_never_rounded() {
        let read = |text: &str| integer(&serde_json::from_str(text).expect("JSON")).ok();
        assert_eq!(read("-9223372036854775808"), Some(i64::MIN));
        assert_eq!((read("5.0"), read("-0.0"), read("1e3")), (Some(5), Some(0), Some(1000)));
        for text in
            ["9223372036854775808", "1e19", "9007199254740993.0e1", "0.5", "\"5\"", "null", "true"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn floats_that_json_lacks_are_named() {
        for value in [0.1, -0.0, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY] {
            let read = float(&float_json(value)).expect("a float");
            assert_eq!(read.to_bits(), value.to_bits());
        }
        assert!(float(&json!({"special": "NaN"})).expect("NaN").is_nan());
        for json in [json!("1"), json!({"special": "inf"}), json!({"special": "NaN", "x": 1})] {
            assert!(float(&json).is_err(), "{json}");
        }
    }
}
