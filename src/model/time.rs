//! Timestamps and durations, as holdall stores and prints them.
//!
//! Not a clock: the current time comes from [`crate::clock`].
//! Invariant: a [`Timestamp`] is UTC and exact to the nanosecond.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A moment in UTC, in nanoseconds since 1970, from 1677 to 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment that can be represented.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment that can be represented.
    pub const MAX: Self = Self(i64::MAX);

    /// Makes a moment from nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Makes a moment from milliseconds since 1970; `None` when it is outside the range.
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(NANOS_PER_MILLI).map(Self)
    }

    /// Returns the nanoseconds since 1970.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Rounds down to whole milliseconds: the precision of times that the server takes itself.
    #[must_use]
    pub fn floor_to_millis(self) -> Self {
        Self(self.0 - self.0.rem_euclid(NANOS_PER_MILLI))
    }

    /// Returns the moment `duration` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// Returns the moment `duration` earlier, at least [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// Returns the duration from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0).max(0);
        Duration::from_nanos(nanos.unsigned_abs())
    }

    /// Reads RFC 3339 with any offset. What is accepted is kept exactly.
    ///
    /// # Errors
    /// When the text is not RFC 3339, outside the years 1678 to 2261, a leap second, or more exact than a nanosecond.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("not an RFC 3339 time such as 2026-01-31T12:00:00Z");
        if !looks_like_rfc_3339(text.as_bytes()) {
            return Err(wrong());
        }
        // jiff would read a leap second as the second before it.
        if text.get(17..19) == Some("60") {
            return Err(Invalid::new(
                "a leap second, which can't be kept: send the second after it",
            ));
        }
        if text[19..].bytes().take_while(|byte| !b"Zz+-".contains(byte)).count() > 10 {
            return Err(Invalid::new("a time of more than nine digits behind the second"));
        }
        // The last hours of the year 9999 are RFC 3339, but beyond what jiff can represent: they are out
        // of our range, not malformed.
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| if text.starts_with("9999-") { Invalid::new(OUTSIDE) } else { wrong() })?;
        i64::try_from(time.as_nanosecond()).map(Self).map_err(|_| Invalid::new(OUTSIDE))
    }
}

/// A moment on the steady clock: a number of nanoseconds that says nothing by itself.
///
/// Not a time of the system's clock: only its distance to another steady time means something. It is stored in the
/// form of a [`Timestamp`], since the steady time of a store begins at the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SteadyTime(Timestamp);

impl SteadyTime {
    /// Makes the first moment of a steady clock that begins at the system's time `now`.
    pub const fn starting_at(now: Timestamp) -> Self {
        Self(now)
    }

    /// Makes a moment from its number.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(Timestamp(nanos))
    }

    /// Returns the number of the moment.
    pub const fn as_nanos(self) -> i64 {
        self.0.0
    }

    /// Returns the moment `duration` later, at most the latest there is.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// Returns the moment `duration` earlier, at least the earliest there is.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// Returns the duration from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_since(earlier.0)
    }
}

const OUTSIDE: &str = "a time outside the years 1678 to 2261";

/// Returns whether the text has the shape of RFC 3339, section 5.6. jiff would also read other forms of
/// ISO 8601; they are refused, since other readers of RFC 3339 refuse them.
fn looks_like_rfc_3339(text: &[u8]) -> bool {
    let digits = |from: usize, to: usize| {
        text.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let sign = |at: usize, signs: &[u8]| text.get(at).is_some_and(|b| signs.contains(b));
    let date = digits(0, 4) && sign(4, b"-") && digits(5, 7) && sign(7, b"-") && digits(8, 10);
    let time = sign(10, b"Tt ")
        && digits(11, 13)
        && sign(13, b":")
        && digits(14, 16)
        && sign(16, b":")
        && digits(17, 19);
    let Some(rest) = text.get(19..) else { return false };
    let fraction = match rest {
        [b'.', digits @ ..] => 1 + digits.iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    let offset = match &rest[fraction..] {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h, i, b':', m, n] => {
            let hours = h.is_ascii_digit() && i.is_ascii_digit();
            hours && [*h, *i] <= *b"23" && (b'0'..=b'5').contains(m) && n.is_ascii_digit()
        }
        _ => false,
    };
    date && time && fraction != 1 && offset
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Prints RFC 3339 in UTC with milliseconds, or with nanoseconds where the moment has them.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(self.0)) else {
            return f.write_str("out of range");
        };
        if self.0 % NANOS_PER_MILLI == 0 { write!(f, "{time:.3}") } else { write!(f, "{time:.9}") }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The longest duration that is accepted: 100 years of 365 days.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads a duration such as `"500ms"`, `"30s"`, `"1h30m"`.
///
/// # Errors
/// When the text is not such a duration, is negative, or is longer than [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let wrong = || Invalid::new("not a duration such as \"500ms\", \"30s\" or \"24h\"");
    // To the library "1M" is a month. Whoever writes it means a minute at least as often.
    if text.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(wrong());
    }
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    if duration > MAX_DURATION {
        return Err(Invalid::new("a duration of more than 100 years"));
    }
    Ok(duration)
}

/// Reads a time to live: a duration longer than zero.
///
/// # Errors
/// As [`parse_duration`], and when the duration is zero: a lock that expires at once would look
/// acquired and protect nothing.
pub fn parse_ttl(text: &str) -> Result<Duration, Invalid> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err(Invalid::new("a ttl must be longer than zero"));
    }
    Ok(duration)
}

/// Prints a duration exactly, as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_nanoseconds() {
        for text in ["2026-11-21T10:00:00.123456789Z", "1969-12-31T23:59:59.999999999Z"] {
            let time = Timestamp::parse(text).expect("valid");
            assert_eq!(time.to_string(), text);
        }
        let whole = Timestamp::parse("2026-11-21T12:00:00+02:00").expect("valid");
        assert_eq!(whole.to_string(), "2026-11-21T10:00:00.000Z");
    }

    #[test]
    fn only_rfc_3339_is_accepted() {
        for text in ["2026-11-21T10:00:00Z", "2026-11-21t10:00:00.5z", "2026-11-21 10:00:00+23:59"]
        {
            assert!(Timestamp::parse(text).is_ok(), "{text}");
        }
        for text in [
            "20261121T220000Z",
            "2026-11-21T22Z",
            "2026-11-21T10:00:00Z[UTC]",
            "2026-11-21T10:00:00+25:00",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00",
            "2026-13-21T10:00:00Z",
            "+002026-11-21T10:00:00Z",
            "",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
        let refused = |text| Timestamp::parse(text).expect_err(text).0;
        for text in ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.5+00:00", "2026-11-21T10:00:60Z"]
        {
            assert!(refused(text).contains("leap second"), "{text}");
        }
        assert!(refused("2026-11-21T10:00:00.1234567890Z").contains("nine digits"));
        assert!(refused("2026-11-21T10:00:61Z").contains("RFC 3339"));
        let outside = Timestamp::parse("9999-12-31T23:59:59Z").expect_err("too far");
        assert!(outside.0.contains("outside"), "{outside}");
    }

    #[test]
    fn times_before_1970_are_rounded_down_too() {
        assert_eq!(Timestamp::from_nanos(-1).floor_to_millis().as_nanos(), -NANOS_PER_MILLI);
        assert_eq!(Timestamp::from_nanos(1).floor_to_millis().as_nanos(), 0);
    }

    #[test]
    fn a_duration_reads_back_as_printed() {
        for text in ["500ms", "30s", "1h30m", "1day", "90s", "1s500ms"] {
            let duration = parse_duration(text).expect("valid");
            assert_eq!(parse_duration(&format_duration(duration)).expect("valid"), duration);
        }
        assert!(parse_ttl("0s").is_err());
        assert!(parse_ttl("-5s").is_err());
        assert!(parse_duration("200years").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("1M").is_err() && parse_duration("1h30M").is_err());
    }
}
