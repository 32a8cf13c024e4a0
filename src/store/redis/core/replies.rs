//! Reading the replies of scripts. Invariant: a reply of an unknown shape is an error, never a guess.

use redis::{FromRedisValue, Value};

use crate::store::{ErrorKind, StoreError, StoreResult};

/// Reads a reply as `T`.
///
/// # Errors
/// When it has another shape.
pub(crate) fn read<T: FromRedisValue>(reply: Value) -> StoreResult<T> {
    redis::from_redis_value(reply).map_err(|error| {
        StoreError::caused_by(ErrorKind::Corrupt, "a reply has an unknown shape", error)
    })
}

/// Adds up the counts of all shards.
///
/// # Errors
/// When any is no count.
pub(crate) fn sum(replies: Vec<Value>) -> StoreResult<u64> {
    replies.into_iter().map(read::<u64>).sum()
}

/// Reads a whole number that a script returned as text: Lua's own numbers lose digits.
///
/// # Errors
/// When the text is no whole number.
pub(crate) fn number(text: &str) -> StoreResult<i64> {
    text.parse().map_err(|error| {
        let detail = format!("{text:?} is no whole number");
        StoreError::caused_by(ErrorKind::Corrupt, detail, error)
    })
}

/// Makes the error for a reply of an unknown shape.
pub(crate) fn malformed(what: &dyn std::fmt::Debug) -> StoreError {
    let mut what = format!("{what:?}");
    what.truncate(what.floor_char_boundary(200));
    StoreError::new(ErrorKind::Corrupt, format!("a reply has an unknown shape: {what}"))
}

/// Reads a reply that is a list, item by item.
#[derive(Debug)]
pub(crate) struct ReplyReader(std::vec::IntoIter<Value>);

impl ReplyReader {
    /// Starts at the first item.
    ///
    /// # Errors
    /// When the reply is no list.
    pub(crate) fn new(reply: Value) -> StoreResult<Self> {
        match reply {
            Value::Array(items) => Ok(Self(items.into_iter())),
            other => Err(malformed(&other)),
        }
    }

    /// Returns the next item as bytes.
    ///
    /// # Errors
    /// When there is none, or it has another type.
    pub(crate) fn bytes(&mut self) -> StoreResult<Vec<u8>> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(malformed(&other)),
        }
    }

    /// Returns all remaining items as bytes.
    pub(crate) fn buffers(self) -> impl Iterator<Item = StoreResult<Vec<u8>>> {
        self.0.map(|item| match item {
            Value::BulkString(bytes) => Ok(bytes),
            other => Err(malformed(&other)),
        })
    }

    /// Returns the next item as text.
    ///
    /// # Errors
    /// When there is none, or it is no text.
    pub(crate) fn text(&mut self) -> StoreResult<String> {
        String::from_utf8(self.bytes()?).map_err(|error| malformed(&error))
    }

    /// Returns the next item as a whole number, which may be written as text.
    ///
    /// # Errors
    /// When there is none, or it is no whole number of this size.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> StoreResult<T> {
        let number = match self.0.next() {
            Some(Value::Int(number)) => Some(number),
            Some(Value::BulkString(bytes)) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| malformed(&"no number"))
    }

    /// Returns the next item as an epoch.
    ///
    /// # Errors
    /// When there is none, or it is no epoch.
    pub(crate) fn epoch(&mut self) -> StoreResult<u64> {
        u64::from_str_radix(&self.text()?, 16).map_err(|error| malformed(&error))
    }
}
