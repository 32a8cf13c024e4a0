//! The scripts of series, and how they are run.
//!
//! Invariant: an answer means that all that was due on the shard has become a deletion before.

use redis::{Cmd, Value};

use super::super::link::Weight;
use super::super::script::Script;
use super::super::shards::Shards;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The keys behind `info`, in the order that `lua/series/begin.lua` names them.
const NAMES: [&str; 8] =
    ["series", "log", "ages", "dead", "graves", "holds", "hold_ends", "fences"];

/// So many calls in a row remove what is due; more can't be due at once.
const MOST_ROUNDS: usize = 1_000_000;

/// The scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) apply: Script,
    pub(super) reserve: Script,
    pub(super) release: Script,
    pub(super) delta: Script,
    pub(super) get: Script,
    pub(super) delete: Script,
    pub(super) state: Script,
    pub(super) quota: Script,
    pub(super) pool: Script,
}

const GUARD: &str = include_str!("../lua/guard.lua");
const BEGIN: &str =
    concat!(include_str!("../lua/guard.lua"), include_str!("../lua/series/begin.lua"));
const HOLDS: &str = include_str!("../lua/series/holds.lua");
const FENCE: &str = include_str!("../lua/fence.lua");

impl Scripts {
    pub(super) fn new() -> Self {
        let of = |parts: &[&str]| Script::new(&parts.join("\n"));
        Self {
            apply: of(&[FENCE, BEGIN, HOLDS, include_str!("../lua/series/apply.lua")]),
            reserve: of(&[FENCE, BEGIN, HOLDS, include_str!("../lua/series/reserve.lua")]),
            release: of(&[BEGIN, HOLDS, include_str!("../lua/series/release.lua")]),
            delta: of(&[BEGIN, include_str!("../lua/series/delta.lua")]),
            get: of(&[BEGIN, include_str!("../lua/series/get.lua")]),
            delete: of(&[FENCE, BEGIN, include_str!("../lua/series/delete.lua")]),
            state: of(&[BEGIN, HOLDS, include_str!("../lua/series/state.lua")]),
            quota: of(&[BEGIN, HOLDS, include_str!("../lua/series/quota.lua")]),
            pool: of(&[GUARD, include_str!("../lua/series/pool.lua")]),
        }
    }
}

/// What every script of series is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// 0 keeps series for ever.
    pub(super) retention_ms: i64,
    pub(super) max_tombstones: usize,
    pub(super) max_series: usize,
}

/// What a script answered, and how many series expired before it did its work.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) expired: usize,
}

/// Runs a script of series on a shard, as often as it takes to remove what is due.
///
/// # Errors
/// As [`Shards::run`].
pub(super) async fn run(
    shards: &Shards,
    limits: Limits,
    shard: usize,
    weight: Weight,
    script: &Script,
    arguments: impl Fn(&mut Cmd),
) -> StoreResult<Answer> {
    let mut expired = 0;
    for _ in 0..MOST_ROUNDS {
        let arguments = |command: &mut Cmd| {
            command.arg(limits.retention_ms).arg(limits.max_tombstones);
            arguments(command);
        };
        let value = shards.run(shard, weight, script, &NAMES, arguments).await?;
        let due = match &value {
            Value::SimpleString(text) => text.strip_prefix("DUE ").map(str::parse::<usize>),
            _ => None,
        };
        match due {
            None => return Ok(Answer { value, expired }),
            Some(count) => expired += count.unwrap_or(0),
        }
    }
    Err(StoreError::new(ErrorKind::Throttled, "redis does not get done with what expires"))
}

/// The parts of an answer.
#[derive(Debug)]
pub(super) struct Words(std::vec::IntoIter<Value>);

impl Words {
    /// Takes an answer apart.
    ///
    /// # Errors
    /// When it is no list.
    pub(super) fn of(value: Value) -> StoreResult<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            other => Err(strange(&other)),
        }
    }

    /// Returns the next part as bytes.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn bytes(&mut self) -> StoreResult<Vec<u8>> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(strange(&other)),
        }
    }

    /// Returns all parts that are left, as bytes.
    pub(super) fn buffers(self) -> impl Iterator<Item = StoreResult<Vec<u8>>> {
        self.0.map(|value| match value {
            Value::BulkString(bytes) => Ok(bytes),
            other => Err(strange(&other)),
        })
    }

    /// Returns the next part as text.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn text(&mut self) -> StoreResult<String> {
        String::from_utf8(self.bytes()?).map_err(|error| strange(&error))
    }

    /// Returns the next part as a whole number, which may stand as text.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> StoreResult<T> {
        let number = match self.0.next() {
            Some(Value::Int(number)) => Some(number),
            Some(Value::BulkString(bytes)) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| strange(&"no number"))
    }

    /// Returns the next part as an epoch.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn epoch(&mut self) -> StoreResult<u64> {
        u64::from_str_radix(&self.text()?, 16).map_err(|error| strange(&error))
    }
}

/// Makes the error for an answer of an unknown shape.
pub(super) fn strange(what: &dyn std::fmt::Debug) -> StoreError {
    let mut what = format!("{what:?}");
    what.truncate(what.floor_char_boundary(200));
    StoreError::new(ErrorKind::Corrupt, format!("an answer of an unknown shape: {what}"))
}
