//! Reads of ranges of keys: the buckets of an entity, and all values of a pipeline.
//!
//! Invariant: a script looks at a bounded number of keys and bytes; the next one goes on behind them.

use redis::{Cmd, Value};

use super::super::core::client::Traffic;
use super::super::core::replies::{ReplyReader, malformed};
use super::Inner;
use super::record::{Row, end_of_prefix, excluded, included, key_of, pipeline_prefix, value_key};
use super::scripts::{BYTES, RANGE_STEP, RANGES, RANGES_AT_ONCE, values_at_once};
use crate::model::aggregates::{Bucket, Entity};
use crate::model::merge::{MergeError, State};
use crate::model::pipelines::Pipeline;
use crate::store::{Combined, StoreResult};

/// A range of keys, as `ZRANGEBYLEX` takes it.
#[derive(Debug, Clone)]
pub(super) struct KeyRange {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

impl KeyRange {
    /// Returns the range of the buckets `from` to `to` of an entity.
    pub(super) fn of_buckets(
        pipeline: &Pipeline,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
    ) -> Self {
        let key = |bucket| included(&value_key(&pipeline.name, entity, bucket));
        Self { from: key(from), to: key(to) }
    }

    /// Returns the range of all values of a pipeline after a key.
    pub(super) fn of_pipeline(pipeline: &Pipeline, after: Option<&(Entity, Bucket)>) -> Self {
        let prefix = pipeline_prefix(&pipeline.name);
        let from = match after {
            Some((entity, bucket)) => excluded(&value_key(&pipeline.name, entity, *bucket)),
            None => included(&prefix),
        };
        Self { from, to: end_of_prefix(prefix) }
    }
}

/// A value that was found, with its key.
pub(super) struct Found {
    /// The position of its range.
    pub(super) range: usize,
    pub(super) key: Vec<u8>,
    pub(super) record: Vec<u8>,
}

impl Found {
    /// Reads the value.
    ///
    /// # Errors
    /// When it is no value of the pipeline's kind.
    pub(super) fn row(&self, pipeline: &Pipeline) -> StoreResult<Row> {
        Row::read(pipeline, &self.record)?.ok_or_else(|| malformed(&"no record"))
    }
}

/// What one script found.
pub(super) struct Step {
    pub(super) found: Vec<Found>,
    /// In which range, and where, to go on; `None` at the end.
    pub(super) next: Option<(usize, Vec<u8>)>,
}

impl Inner {
    /// Reads the first values of some ranges of one shard, from `from` on in the first of them.
    ///
    /// # Errors
    /// When the shard can't be read, or a value can't.
    pub(super) async fn step(
        &self,
        pipeline: &Pipeline,
        shard: usize,
        ranges: &[KeyRange],
        from: Option<&[u8]>,
        most: usize,
    ) -> StoreResult<Step> {
        let ranges = &ranges[..ranges.len().min(RANGES_AT_ONCE)];
        let most = most.min(RANGE_STEP);
        let arguments = |command: &mut Cmd| {
            command.arg(values_at_once(pipeline).min(most)).arg(BYTES).arg(most);
            for (index, range) in ranges.iter().enumerate() {
                let from = from.filter(|_| index == 0).unwrap_or(&range.from);
                command.arg(from).arg(&range.to);
            }
        };
        let reply = self.shards.run(shard, Traffic::Bulk, &RANGES, arguments).await?;
        let items = match reply {
            Value::Array(items) => items,
            other => return Err(malformed(&other)),
        };
        let count = items.len().saturating_sub(2) / 3;
        let mut reply = ReplyReader::new(Value::Array(items))?;
        let (range, from) = (reply.number::<usize>()?, reply.bytes()?);
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let range = reply.number::<usize>()?;
            let range = range.checked_sub(1).ok_or_else(|| malformed(&range))?;
            let key = reply.bytes()?;
            found.push(Found { range, key, record: reply.bytes()? });
        }
        Ok(Step { found, next: range.checked_sub(1).map(|range| (range, from)) })
    }

    /// Reads all values of some ranges of one shard, in their order, and passes each to `add`, which returns whether to
    /// go on.
    ///
    /// # Errors
    /// As [`Self::step`], and those of `add`.
    pub(super) async fn read_ranges(
        &self,
        pipeline: &Pipeline,
        shard: usize,
        ranges: &[KeyRange],
        limit: usize,
        mut add: impl FnMut(usize, &[u8], Row) -> StoreResult<()> + Send,
    ) -> StoreResult<()> {
        let (mut first, mut from, mut left) = (0, None, limit);
        while first < ranges.len() && left > 0 {
            let step = self.step(pipeline, shard, &ranges[first..], from.as_deref(), left).await?;
            for found in step.found {
                left = left.saturating_sub(1);
                add(first + found.range, &found.key, found.row(pipeline)?)?;
            }
            match step.next {
                Some((range, next)) => (first, from) = (first + range, Some(next)),
                None => (first, from) = (first + RANGES_AT_ONCE, None),
            }
        }
        Ok(())
    }

    /// Returns whether a pipeline has a live value.
    ///
    /// # Errors
    /// When a shard can't be read.
    pub(super) async fn has_values(&self, pipeline: &Pipeline) -> StoreResult<bool> {
        let all = [KeyRange::of_pipeline(pipeline, None)];
        for shard in 0..self.shards.count() {
            let mut from = None;
            loop {
                // Whatever the values mean: they may be of another kind.
                let step = self.step(pipeline, shard, &all, from.as_deref(), RANGE_STEP).await?;
                if !step.found.is_empty() {
                    return Ok(true);
                }
                let Some((_, next)) = step.next else { break };
                from = Some(next);
            }
        }
        Ok(false)
    }
}

/// The buckets of an entity, as far as they are combined.
#[derive(Debug, Clone)]
pub(super) struct Window(Result<Option<Combined>, MergeError>);

impl Default for Window {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl Window {
    /// Adds the next bucket.
    pub(super) fn add(&mut self, pipeline: &Pipeline, state: State) {
        match &mut self.0 {
            Ok(Some(combined)) => {
                combined.found += 1;
                if let Err(why) = pipeline.kind.merge(&mut combined.state, &state) {
                    self.0 = Err(why);
                }
            }
            Ok(none) => *none = Some(Combined { state, found: 1 }),
            Err(_) => {}
        }
    }

    /// Returns the buckets that were added, combined.
    pub(super) fn combined(self) -> Result<Option<Combined>, MergeError> {
        self.0
    }
}

/// Returns the bucket of a key.
///
/// # Errors
/// When it is no key.
pub(super) fn bucket_of(key: &[u8]) -> StoreResult<Bucket> {
    key_of(key).map(|(_, bucket)| bucket)
}
