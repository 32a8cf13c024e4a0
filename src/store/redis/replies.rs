//! Reading what scripts answer. Invariant: an answer of another shape is an error, never a guess.

use redis::{FromRedisValue, Value};

use crate::store::{ErrorKind, StoreError, StoreResult};

/// Reads an answer as `T`.
///
/// # Errors
/// When it has another shape.
pub(super) fn read<T: FromRedisValue>(value: Value) -> StoreResult<T> {
    redis::from_redis_value(value).map_err(|error| {
        StoreError::new(ErrorKind::Corrupt, format!("an answer of an unknown shape: {error}"))
    })
}

/// Reads a whole number that a script gave as text: Lua's own numbers are not exact.
///
/// # Errors
/// When it is none.
pub(super) fn number(text: &str) -> StoreResult<i64> {
    text.parse()
        .map_err(|_| StoreError::new(ErrorKind::Corrupt, format!("{text:?} is no whole number")))
}
