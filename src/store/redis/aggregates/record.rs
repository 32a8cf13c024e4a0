//! How values, event ids and producers are stored.
//!
//! Invariant: the bytes of keys order as pipeline, entity and bucket do, and two keys are never stored alike. Everything
//! that expires begins with its end.

use super::super::core::replies::malformed;
use crate::model::aggregates::{Aggregate, Bucket, Entity, Producer};
use crate::model::merge::State;
use crate::model::pipelines::{Pipeline, PipelineName};
use crate::model::time::Timestamp;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// What an entry begins with: its end in milliseconds since 1970, most significant byte first.
const END_BYTES: usize = 6;
/// Ends the name of a pipeline, which has no such byte.
const AFTER_PIPELINE: u8 = 0;
/// Ends an entity. A zero byte of an entity itself is followed by [`ESCAPE`], so no entity contains this, and it orders
/// before everything that an entity can continue with.
const AFTER_ENTITY: [u8; 2] = [0, 0];
const ESCAPE: u8 = 0xFF;
/// Turned around, so that buckets before 1970 order before the others.
const SIGN: u64 = 1 << 63;

/// The version of a stored value: another one after each change.
pub(super) type Version = [u8; 8];

/// Returns what the keys of a pipeline begin with.
pub(super) fn pipeline_prefix(pipeline: &PipelineName) -> Vec<u8> {
    let mut bytes = pipeline.as_str().as_bytes().to_vec();
    bytes.push(AFTER_PIPELINE);
    bytes
}

/// Returns what the keys of an entity begin with.
pub(super) fn entity_prefix(pipeline: &PipelineName, entity: &Entity) -> Vec<u8> {
    let mut bytes = pipeline_prefix(pipeline);
    for byte in entity.as_str().bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(ESCAPE);
        }
    }
    bytes.extend(AFTER_ENTITY);
    bytes
}

/// Returns the key of a value.
pub(super) fn value_key(pipeline: &PipelineName, entity: &Entity, bucket: Bucket) -> Vec<u8> {
    let mut bytes = entity_prefix(pipeline, entity);
    bytes.extend((bucket.0.cast_unsigned() ^ SIGN).to_be_bytes());
    bytes
}

/// Reads the entity and the bucket of a key.
///
/// # Errors
/// When [`value_key`] did not write it.
pub(super) fn key_of(key: &[u8]) -> StoreResult<(Entity, Bucket)> {
    let damaged = || malformed(&"the key of a value");
    let at = key.iter().position(|byte| *byte == AFTER_PIPELINE).ok_or_else(damaged)?;
    let mut rest = &key[at + 1..];
    let mut entity = Vec::with_capacity(rest.len());
    loop {
        match *rest {
            [0, ESCAPE, ref after @ ..] => {
                entity.push(0);
                rest = after;
            }
            [0, 0, ref bucket @ ..] => {
                let bucket: [u8; 8] = bucket.try_into().map_err(|_| damaged())?;
                let bucket = (u64::from_be_bytes(bucket) ^ SIGN).cast_signed();
                let entity = String::from_utf8(entity).map_err(|_| damaged())?;
                return Ok((Entity::parse(entity).map_err(|_| damaged())?, Bucket(bucket)));
            }
            [0, ..] | [] => return Err(damaged()),
            [byte, ref after @ ..] => {
                entity.push(byte);
                rest = after;
            }
        }
    }
}

/// Returns a key of a range, as `ZRANGEBYLEX` takes it.
pub(super) fn included(key: &[u8]) -> Vec<u8> {
    [b"[", key].concat()
}

/// Returns the key before or after a range, as `ZRANGEBYLEX` takes it.
pub(super) fn excluded(key: &[u8]) -> Vec<u8> {
    [b"(", key].concat()
}

/// Returns the end of the range of all keys that begin with `prefix`, which ends in a zero byte, as `ZRANGEBYLEX` takes
/// it.
pub(super) fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    prefix.pop();
    prefix.push(1);
    excluded(&prefix)
}

/// A value as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) version: Version,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub(super) end_ms: i64,
    pub(super) state: State,
}

impl Row {
    /// Reads a record as a script returns it; `None` where there is none.
    ///
    /// # Errors
    /// When it is no value of the pipeline's kind.
    pub(super) fn read(pipeline: &Pipeline, record: &[u8]) -> StoreResult<Option<Self>> {
        let Some((end_ms, rest)) = entry(record)? else { return Ok(None) };
        let (version, state) =
            rest.split_first_chunk().ok_or_else(|| malformed(&"the record of a value"))?;
        let state = pipeline.kind.decode(state).map_err(|error| {
            let detail = format!("a value of {}", pipeline.name);
            StoreError::caused_by(ErrorKind::Corrupt, detail, error)
        })?;
        Ok(Some(Self { version: *version, end_ms, state }))
    }

    /// Returns the value as the contract has it.
    pub(super) fn shown(self) -> Aggregate {
        let expires_at = match self.end_ms {
            0 => None,
            end => Some(Timestamp::from_millis(end).unwrap_or(Timestamp::MAX)),
        };
        Aggregate { state: self.state, expires_at }
    }
}

/// Splits an entry into its end and the rest; `None` where there is none.
fn entry(bytes: &[u8]) -> StoreResult<Option<(i64, &[u8])>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (end, rest) = bytes
        .split_first_chunk::<END_BYTES>()
        .ok_or_else(|| malformed(&"an entry without an end"))?;
    let mut all = [0; 8];
    all[8 - END_BYTES..].copy_from_slice(end);
    Ok(Some((i64::from_be_bytes(all), rest)))
}

/// What an event id is bound to, in its own shard and in that of its update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// The hash of the content.
    pub(super) content: u64,
    /// The shard of the update.
    pub(super) shard: u16,
    /// Whether the update was merged, or the shard of the update has to be asked.
    pub(super) is_merged: bool,
}

impl Bound {
    /// Returns what is stored behind the end.
    pub(super) fn bytes(self) -> [u8; 11] {
        let mut bytes = [0; 11];
        bytes[..8].copy_from_slice(&self.content.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.shard.to_be_bytes());
        bytes[10] = u8::from(self.is_merged);
        bytes
    }

    /// Reads an entry; `None` where there is none.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn read(bytes: &[u8]) -> StoreResult<Option<Self>> {
        let Some((_, rest)) = entry(bytes)? else { return Ok(None) };
        let damaged = || malformed(&"the entry of an event id");
        let (content, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (shard, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let [is_merged @ (0 | 1)] = *rest else { return Err(damaged()) };
        Ok(Some(Self {
            content: u64::from_be_bytes(*content),
            shard: u16::from_be_bytes(*shard),
            is_merged: is_merged == 1,
        }))
    }
}

/// Returns the name of a producer of a pipeline in the hashes of producers.
pub(super) fn producer_key(pipeline: &PipelineName, producer: &Producer) -> Vec<u8> {
    [&pipeline_prefix(pipeline), producer.as_str().as_bytes()].concat()
}

/// The digits of a number, all of the same length: scripts compare them as text.
const DIGITS: usize = 20;

/// Returns the number of a batch as it is stored.
pub(super) fn digits(seq: u64) -> String {
    format!("{seq:0DIGITS$}")
}

/// Reads the entry of a producer; `None` where there is none.
///
/// # Errors
/// When it is damaged.
pub(super) fn number_of(bytes: &[u8]) -> StoreResult<Option<u64>> {
    let Some((_, rest)) = entry(bytes)? else { return Ok(None) };
    read_digits(rest).map(Some)
}

fn read_digits(bytes: &[u8]) -> StoreResult<u64> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() == DIGITS);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed(&"the number of a batch"))
}

/// How much of a producer's last batch was merged in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the batch.
    pub(super) seq: u64,
    /// How many of its updates in this shard, from the first on.
    pub(super) done: u32,
}

impl Mark {
    /// Returns what is stored behind the end.
    pub(super) fn bytes(self) -> Vec<u8> {
        [digits(self.seq).as_bytes(), &self.done.to_be_bytes()].concat()
    }

    /// Reads an entry; `None` where there is none.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn read(bytes: &[u8]) -> StoreResult<Option<Self>> {
        let Some((_, rest)) = entry(bytes)? else { return Ok(None) };
        let damaged = || malformed(&"the mark of a producer");
        let (digits, done) = rest.split_at_checked(DIGITS).ok_or_else(damaged)?;
        let done = done.try_into().map_err(|_| damaged())?;
        Ok(Some(Self { seq: read_digits(digits)?, done: u32::from_be_bytes(done) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};
    use serde_json::json;

    use super::*;
    use crate::model::merge::Kind;

    fn name(name: &str) -> PipelineName {
        PipelineName::parse(name).expect("valid")
    }

    proptest! {
        #[test]
        fn keys_read_back_and_order_as_entity_and_bucket_do(
            a in ("[\0\u{1}ab\u{ff}]{1,4}", -3_i64..3),
            b in ("[\0\u{1}ab\u{ff}]{1,4}", -3_i64..3),
        ) {
            let key = |(entity, bucket): &(String, i64)| {
                value_key(&name("p"), &Entity::parse(entity).expect("valid"), Bucket(*bucket))
            };
            let (entity, bucket) = key_of(&key(&a)).expect("a key");
            prop_assert_eq!((entity.as_str(), bucket.0), (a.0.as_str(), a.1));
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            let prefix = entity_prefix(&name("p"), &Entity::parse(&a.0).expect("valid"));
            let within = key(&b).starts_with(&prefix);
            prop_assert_eq!(within, a.0 == b.0);
            // The end of a range is behind all keys of the entity, and before those of the next one.
            let end = end_of_prefix(prefix).split_off(1);
            prop_assert_eq!(key(&b) < end, b.0 <= a.0);
        }
    }

    fn with_end(end_ms: i64, rest: &[u8]) -> Vec<u8> {
        [&end_ms.to_be_bytes()[2..], rest].concat()
    }

    #[test]
    fn entries_read_back() {
        for bound in [
            Bound { content: u64::MAX, shard: 700, is_merged: false },
            Bound { content: 0, shard: 0, is_merged: true },
        ] {
            let read = Bound::read(&with_end(1_800_000_000_123, &bound.bytes()));
            assert_eq!(read.expect("valid"), Some(bound));
        }
        for seq in [0, 7, u64::MAX] {
            let mark = Mark { seq, done: 70_000 };
            assert_eq!(Mark::read(&with_end(5, &mark.bytes())).expect("valid"), Some(mark));
            let number = number_of(&with_end(5, digits(seq).as_bytes()));
            assert_eq!(number.expect("valid"), Some(seq));
        }
        let kind = serde_json::from_value(json!({"kind": "sum"})).expect("a table");
        let kind = Kind::parse(&kind).expect("valid");
        let pipeline = Pipeline { name: name("p"), kind, window: None, dedup: None, hook: None };
        let state = pipeline.kind.encode(&pipeline.kind.empty()).expect("of this kind");
        let record = with_end(1_800_000_000_123, &[&[1, 2, 3, 4, 5, 6, 7, 8], &state[..]].concat());
        let row = Row::read(&pipeline, &record).expect("valid").expect("is there");
        assert_eq!((row.version, row.end_ms), ([1, 2, 3, 4, 5, 6, 7, 8], 1_800_000_000_123));
        assert_eq!(row.state, pipeline.kind.empty());
        assert!(Row::read(&pipeline, &[]).expect("valid").is_none());
    }

    #[test]
    fn damaged_entries_are_errors() {
        for bytes in [&b"x"[..], b"123456", b"1234567", &[0; 40]] {
            assert!(Bound::read(bytes).is_err() && Mark::read(bytes).is_err(), "{bytes:?}");
            assert!(number_of(bytes).is_err(), "{bytes:?}");
        }
        for key in
            [&b""[..], b"p", b"p\0e", b"p\0e\0\0\0", b"p\0\xff\0\0\0\0\0\0\0\0\0\0", b"p\0e\0\x01"]
        {
            assert!(key_of(key).is_err(), "{key:?}");
        }
    }
}
