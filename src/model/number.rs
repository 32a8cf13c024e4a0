//! The text of floats: how values and bounds are read from and written to the text formats.
//!
//! Not timestamps, which are never read through a float.
//! Invariant: what is written reads back as the same float, to the bit.

/// Below this, every whole float is an exact integer and short when written as one.
const WHOLE_LIMIT: f64 = 1e15;

/// Reads a float by the rules of Go's `strconv.ParseFloat` without hexadecimal and `_`, as Prometheus
/// does: `NaN`, `Inf` and `Infinity` in any case, a sign only before the latter two, and no
/// finite number that overflows.
pub fn parse_float(text: &str) -> Option<f64> {
    // Most values are short integers, for which the full parser is several times slower.
    if let Some(value) = parse_integer(text.as_bytes()) {
        return Some(value);
    }
    // Rust's grammar is the same except for two cases: it takes a signed NaN, and it rounds a number that
    // overflows to infinity.
    let value: f64 = text.parse().ok()?;
    let unsigned = text.trim_start_matches(['+', '-']);
    let is_word = unsigned.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let allowed =
        if value.is_nan() { unsigned.len() == text.len() } else { value.is_finite() || is_word };
    allowed.then_some(value)
}

/// Reads an integer from 0 as it is printed: digits, without a sign, blanks or leading zeros.
pub fn parse_whole(text: &str) -> Option<i64> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = plain && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Reads up to 19 digits, which fit into 64 bits, and rounds once.
fn parse_integer(digits: &[u8]) -> Option<f64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut sum = 0_u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum * 10 + u64::from(digit - b'0');
    }
    #[expect(clippy::cast_precision_loss, reason = "a value is the nearest float")]
    Some(sum as f64)
}

/// Returns the text of a float that has no digits: `NaN`, `+Inf` or `-Inf`; `None` for a finite one.
pub fn special_text(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

/// Reads exactly what [`special_text`] returns.
pub fn parse_special(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Appends a sample's value: whole numbers without a fraction, others in the shortest form that
/// reads back the same.
pub fn write_float(value: f64, out: &mut Vec<u8>) {
    if let Some(special) = special_text(value) {
        out.extend_from_slice(special.as_bytes());
    } else if value.abs() < WHOLE_LIMIT && value.fract() == 0.0 {
        // The integer has no negative zero.
        if value == 0.0 && value.is_sign_negative() {
            out.push(b'-');
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        let whole = value as i64;
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

/// Returns the canonical form of a bucket's bound or a quantile: `1.0`, `0.25`, `1e+06`, `+Inf`.
///
/// The rule is that of OpenMetrics 1.0, "Canonical Numbers": as Go's `%g`, with `.0` behind
/// whole numbers.
pub fn canonical_bound(value: f64) -> String {
    if let Some(special) = special_text(value) {
        return special.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", power.abs());
    }
    let mut plain = value.to_string();
    if !plain.contains('.') {
        plain.push_str(".0");
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write_float(value, &mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn a_whole_number_is_read_only_as_it_is_printed() {
        assert_eq!(parse_whole("0"), Some(0));
        assert_eq!(parse_whole("105"), Some(105));
        assert_eq!(parse_whole("9223372036854775807"), Some(i64::MAX));
        for text in ["", "+5", "-5", "05", "00", " 5", "5 ", "5.0", "x", "9223372036854775808"] {
            assert_eq!(parse_whole(text), None, "{text}");
        }
    }

    #[test]
    fn floats_are_read_as_go_reads_them() {
        for (text, value) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("+7", 7.0),
            ("007", 7.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("inf", f64::INFINITY),
            ("+INF", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("999999999999999", 999_999_999_999_999.0),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("1e-999", 0.0),
            ("4.9e-324", 5e-324),
        ] {
            assert_eq!(parse_float(text).map(f64::to_bits), Some(value.to_bits()), "{text}");
        }
        assert!(parse_float("nAn").is_some_and(f64::is_nan));
        for text in
            ["", "-", ".", "e1", "1e", "1e400", "-1e400", "0x1p4", "1_0", "-NaN", "1 ", "infi", "१"]
        {
            assert_eq!(parse_float(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_written_short() {
        for (value, expected) in [
            (12345.0, "12345"),
            (-0.0, "-0"),
            (0.0, "0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn bounds_are_canonical() {
        for (value, expected) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (0.25, "0.25"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (-1.0, "-1.0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(canonical_bound(value), expected);
        }
    }

    proptest! {
        #[test]
        fn every_float_reads_back_the_same(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let back = parse_float(&text(value)).expect("a float");
            assert!(back.to_bits() == value.to_bits() || value.is_nan() && back.is_nan());
            assert_eq!(special_text(value).is_some(), !value.is_finite());
            let special = special_text(value).and_then(parse_special);
            assert_eq!(special.is_some(), !value.is_finite());
            if value.is_finite() {
                let bound = parse_float(&canonical_bound(value)).expect("a float");
                assert_eq!(bound.to_bits(), value.to_bits());
                let scientific = parse_float(&format!("{value:e}")).expect("a float");
                assert_eq!(scientific.to_bits(), bits);
            }
        }

        #[test]
        fn every_integer_reads_as_its_nearest_float(value: u64) {
            assert_eq!(parse_float(&value.to_string()), Some(value as f64));
        }
    }
}
