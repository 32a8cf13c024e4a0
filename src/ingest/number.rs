//! Numbers as the text formats write them: values and times.
//!
//! Invariant: a value is the float nearest to what was written, a time is never rounded
//! through a float.

use crate::model::time::Timestamp;

/// Reads a value by the rules of Go's `ParseFloat` without hexadecimal and `_`, as Prometheus
/// does: `NaN`, `Inf` and `Infinity` in any case, a sign only before the latter two, and no
/// finite number that overflows.
pub(super) fn float(token: &str) -> Option<f64> {
    if let Some(value) = integer(token.as_bytes()) {
        return Some(value);
    }
    let value: f64 = token.parse().ok()?;
    let unsigned = token.trim_start_matches(['+', '-']);
    let spelled = unsigned.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let allowed =
        if value.is_nan() { unsigned.len() == token.len() } else { value.is_finite() || spelled };
    allowed.then_some(value)
}

/// Reads up to 19 digits, which 64 bits hold, and rounds once.
fn integer(digits: &[u8]) -> Option<f64> {
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

/// Reads milliseconds since 1970.
pub(super) fn timestamp_millis(token: &str) -> Option<Timestamp> {
    Timestamp::from_millis(token.parse().ok()?)
}

/// Reads seconds since 1970 as a decimal number, also with an exponent. What is finer than
/// a nanosecond is cut off.
pub(super) fn timestamp_seconds(token: &str) -> Option<Timestamp> {
    let (negative, unsigned) = match token.as_bytes().first()? {
        b'-' => (true, &token[1..]),
        b'+' => (false, &token[1..]),
        _ => (false, token),
    };
    let (decimal, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((decimal, exponent)) => (decimal, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // The place value of the digit at hand, as a power of ten of a nanosecond.
    let mut place = i64::try_from(whole.len()).ok()? + i64::from(exponent) + 9;
    let mut nanos = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        place -= 1;
        if digit == b'0' || place < 0 {
            continue;
        }
        // 10^19 ns and more are out of range; so bounded, the sum cannot overflow.
        let power = u32::try_from(place).ok().filter(|&power| power < 19)?;
        nanos += i128::from(digit - b'0') * 10_i128.pow(power);
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).ok().map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::{float, timestamp_millis, timestamp_seconds};

    #[test]
    fn values_are_read_as_go_reads_them() {
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
            assert_eq!(float(text).map(f64::to_bits), Some(value.to_bits()), "{text}");
        }
        assert!(float("nAn").is_some_and(f64::is_nan));
        for text in
            ["", "-", ".", "e1", "1e", "1e400", "-1e400", "0x1p4", "1_0", "-NaN", "1 ", "infi", "१"]
        {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn times_out_of_range_are_refused() {
        assert!(timestamp_millis("-1").is_some());
        for text in ["9223372036855", "99999999999999999999", "1.5", "", "1e3"] {
            assert_eq!(timestamp_millis(text), None, "{text}");
        }
        for text in [
            "9223372036.854775808",
            "-9223372036.854775809",
            "1e10",
            "1e2147483647",
            "1e99999999999",
            "NaN",
            "Inf",
            "",
            ".",
            "-",
            "1.2.3",
            "0x1",
        ] {
            assert_eq!(timestamp_seconds(text), None, "{text}");
        }
        let tiny = timestamp_seconds("1e-2147483648").map(|t| t.as_nanos());
        assert_eq!(tiny, Some(0));
    }

    #[test]
    fn seconds_are_exact_to_the_nanosecond() {
        for (text, nanos) in [
            ("1520879607.789", 1_520_879_607_789_000_000),
            ("9223372036.854775807", i64::MAX),
            ("-9223372036.854775808", i64::MIN),
            ("0.0000000019", 1),
            ("1.520879607e9", 1_520_879_607_000_000_000),
            ("15e-1", 1_500_000_000),
            (".5", 500_000_000),
            ("00000000000000000000000001", 1_000_000_000),
        ] {
            assert_eq!(timestamp_seconds(text).map(|t| t.as_nanos()), Some(nanos), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_float_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            let text = if value.is_nan() { "NaN".to_owned() } else { format!("{value:e}") };
            let read = float(&text).expect("a value");
            prop_assert_eq!(read.is_nan(), value.is_nan());
            prop_assert_eq!(read.is_nan() || read.to_bits() == bits, true, "{}", text);
        }

        #[test]
        fn any_integer_reads_as_its_nearest_float(value: u64) {
            prop_assert_eq!(float(&value.to_string()), Some(value as f64));
        }
    }
}
