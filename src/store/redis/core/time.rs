//! Durations and times as scripts take and return them: whole milliseconds.

use std::time::Duration;

use crate::model::time::Timestamp;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The nanoseconds of a millisecond.
pub(crate) const NANOS_PER_MILLI: i64 = 1_000_000;

/// Returns a duration in whole milliseconds, rounded up: nothing expires before its time.
pub(crate) fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4)
}

/// Reads a time that a script returned as text, in milliseconds.
///
/// # Errors
/// When the text is no time.
pub(crate) fn time_of(millis: &str) -> StoreResult<Timestamp> {
    let time = millis.parse().ok().and_then(Timestamp::from_millis);
    time.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, format!("{millis:?} is no time")))
}
