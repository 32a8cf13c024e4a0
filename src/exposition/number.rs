//! How values and bounds are written on /metrics.
//!
//! Not a parser. Invariant: what is written reads back as the same float, to the bit.

/// Below this, every whole float is an exact integer and short to write as one.
const WHOLE_LIMIT: f64 = 1e15;

/// Appends a sample's value: whole numbers without a fraction, others in the shortest form that
/// reads back the same.
pub(super) fn write_value(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.abs() < WHOLE_LIMIT && value.fract() == 0.0 {
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
pub(super) fn canonical_bound(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
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
        write_value(value, &mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn values_are_short() {
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
            let back: f64 = text(value).parse().expect("a float");
            assert!(back.to_bits() == value.to_bits() || value.is_nan() && back.is_nan());
            if value.is_finite() {
                let bound: f64 = canonical_bound(value).parse().expect("a float");
                assert_eq!(bound.to_bits(), value.to_bits());
            }
        }
    }
}
