//! Timestamps as the text formats write them.
//!
//! Invariant: a timestamp is exact to the nanosecond; it is never rounded through a float.

use crate::model::time::Timestamp;

/// Reads milliseconds since 1970.
pub(super) fn timestamp_millis(token: &str) -> Option<Timestamp> {
    Timestamp::from_millis(token.parse().ok()?)
}

/// Reads seconds since 1970 as a decimal number, also with an exponent. Digits below a nanosecond
/// are truncated.
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
    // The power of ten, in nanoseconds, of the digit before the first one.
    let mut power = i64::try_from(whole.len()).ok()? + i64::from(exponent) + 9;
    let mut nanos = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        power -= 1;
        if digit == b'0' || power < 0 {
            continue;
        }
        // 10^19 ns and more are out of range. With this bound the sum can't overflow.
        let exponent = u32::try_from(power).ok().filter(|&power| power < 19)?;
        nanos += i128::from(digit - b'0') * 10_i128.pow(exponent);
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).ok().map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::{timestamp_millis, timestamp_seconds};

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
}
