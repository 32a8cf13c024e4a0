//! Aggregates on Redis: all values of an entity are in the shard of pipeline and entity.
//!
//! The server merges: it reads, applies the code of the kind, and writes if nothing has changed meanwhile. Redis
//! compares, and never merges.
//!
//! * `queue.rs`: combines merges of the same keys in this replica.
//! * `merge.rs`: carries a group of them out. `read.rs` reads, `plan.rs` decides, `apply.rs` writes.
//! * `ranges.rs`: reads of many buckets.
//! * `record.rs`, `scripts.rs`: how everything is stored.
//!
//! Invariant: an update and what makes it count once are written by one script.

mod apply;
mod group;
mod merge;
mod plan;
mod queue;
mod ranges;
mod read;
mod record;
pub(super) mod scripts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};

use self::group::{home_of, shard_of};
use self::queue::Queue;
use self::ranges::{Found, KeyRange, Step, Window, bucket_of};
use self::record::{Bound, key_of, value_key};
use self::scripts::{
    DECLARE, DELETE, ENDS, EVENT_ID_ENDS, EXPIRING, MARK_SEEN, PRODUCER_ENDS, SIGNATURES, STEP,
    VALUES,
};
use super::core::client::Traffic;
use super::core::expiry::Expiring;
use super::core::fences::{Pass, add_pass, pass, run_fenced};
use super::core::replies::read;
use super::core::shards::{Scatter, Shards, in_part};
use super::core::time::millis_of;
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::aggregates::{Aggregate, Bucket, Entity, EventId};
use crate::model::leases::Fence;
use crate::model::merge::MergeError;
use crate::model::pipelines::Pipeline;
use crate::store::{
    AggregatePage, AggregateSettings, AggregateStore, Combined, DeclarationChanged, ErrorKind,
    Fenced, Merge, MergeOutcome, ResourceStatus, StoreError, StoreResult,
};

/// The shard of the signatures of all pipelines.
const FIRST: usize = 0;
/// How often the signatures are compared again while other replicas change them.
const DECLARATIONS: usize = 10;

/// The aggregates.
pub(super) struct RedisAggregates {
    inner: Arc<Inner>,
    expiring: [Expiring; EXPIRING.len()],
}

struct Inner {
    shards: Arc<Shards>,
    limits: AggregateSettings,
    queue: Queue,
}

impl RedisAggregates {
    pub(super) fn new(shards: Arc<Shards>, limits: AggregateSettings) -> Self {
        let expiring = EXPIRING.map(|keys| Expiring::new(keys, Duration::ZERO));
        Self { inner: Arc::new(Inner { shards, limits, queue: Queue::default() }), expiring }
    }

    fn shard(&self, pipeline: &Pipeline, entity: &Entity) -> usize {
        shard_of(&self.inner.shards, pipeline, entity.as_str())
    }
}

#[async_trait]
impl AggregateStore for RedisAggregates {
    async fn merge(&self, merge: Merge) -> StoreResult<Fenced<MergeOutcome>> {
        let outcome = self.inner.queue.add(merge);
        queue::start(&self.inner);
        outcome.await.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::Unavailable, "a task of the store ended early"))
        })
    }

    async fn get_many(
        &self,
        pipeline: &Arc<Pipeline>,
        keys: &[(Entity, Bucket)],
    ) -> StoreResult<Vec<Option<Aggregate>>> {
        let mut by_shard: HashMap<usize, (Vec<usize>, Vec<Vec<u8>>)> = HashMap::new();
        for (index, (entity, bucket)) in keys.iter().enumerate() {
            let (indexes, stored) = by_shard.entry(self.shard(pipeline, entity)).or_default();
            indexes.push(index);
            stored.push(value_key(&pipeline.name, entity, *bucket));
        }
        let reads = by_shard.into_iter().map(|(shard, (indexes, stored))| async move {
            let names: Vec<&[u8]> = stored.iter().map(|key| &**key).collect();
            let rows = self.inner.read_values(pipeline, shard, &names).await?;
            Ok::<_, StoreError>(indexes.into_iter().zip(rows))
        });
        let mut found = vec![None; keys.len()];
        for rows in join_all(reads).await {
            for (index, row) in rows? {
                found[index] = row.map(record::Row::shown);
            }
        }
        Ok(found)
    }

    async fn window(
        &self,
        pipeline: &Arc<Pipeline>,
        entities: &[Entity],
        newest: Bucket,
        buckets: u32,
    ) -> StoreResult<Vec<Result<Option<Combined>, MergeError>>> {
        if buckets == 0 {
            return Ok(entities.iter().map(|_| Ok(None)).collect());
        }
        let oldest = newest.back(buckets - 1);
        let mut by_shard: HashMap<usize, (Vec<usize>, Vec<KeyRange>)> = HashMap::new();
        for (index, entity) in entities.iter().enumerate() {
            let (indexes, ranges) = by_shard.entry(self.shard(pipeline, entity)).or_default();
            indexes.push(index);
            ranges.push(KeyRange::of_buckets(pipeline, entity, oldest, newest));
        }
        let reads = by_shard.into_iter().map(|(shard, (indexes, ranges))| async move {
            let mut windows = vec![Window::default(); ranges.len()];
            let add = |range: usize, _: &[u8], row: record::Row| {
                windows[range].add(pipeline, row.state);
                Ok(())
            };
            self.inner.read_ranges(pipeline, shard, &ranges, usize::MAX, add).await?;
            Ok::<_, StoreError>(indexes.into_iter().zip(windows))
        });
        let mut found: Vec<_> = entities.iter().map(|_| Ok(None)).collect();
        for windows in join_all(reads).await {
            for (index, window) in windows? {
                found[index] = window.combined();
            }
        }
        Ok(found)
    }

    async fn range(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
        limit: usize,
    ) -> StoreResult<Vec<(Bucket, Aggregate)>> {
        let range = [KeyRange::of_buckets(pipeline, entity, from, to)];
        let mut found = Vec::new();
        let add = |_: usize, key: &[u8], row: record::Row| {
            found.push((bucket_of(key)?, row.shown()));
            Ok(())
        };
        let shard = self.shard(pipeline, entity);
        self.inner.read_ranges(pipeline, shard, &range, limit, add).await?;
        Ok(found)
    }

    async fn list(
        &self,
        pipeline: &Arc<Pipeline>,
        after: Option<&(Entity, Bucket)>,
        limit: usize,
    ) -> StoreResult<AggregatePage> {
        let limit = limit.max(1);
        let range = [KeyRange::of_pipeline(pipeline, after)];
        let steps = (0..self.inner.shards.count())
            .map(|shard| self.inner.step(pipeline, shard, &range, None, limit));
        let mut found = Vec::new();
        // Up to where all shards have been read.
        let mut read_to: Option<Vec<u8>> = None;
        for step in join_all(steps).await {
            let Step { found: of_shard, next } = step?;
            found.extend(of_shard);
            if let Some((_, next)) = next {
                // Behind the sign that the key itself is excluded.
                let last = next.get(1..).unwrap_or_default().to_vec();
                read_to = Some(read_to.map_or(last.clone(), |known| known.min(last)));
            }
        }
        found.retain(|found| read_to.as_ref().is_none_or(|read_to| found.key <= *read_to));
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        if found.len() > limit {
            found.truncate(limit);
            read_to = found.last().map(|found| found.key.clone());
        }
        let value = |found: Found| {
            let (entity, bucket) = key_of(&found.key)?;
            Ok((entity, bucket, found.row(pipeline)?.shown()))
        };
        let values = found.into_iter().map(value).collect::<StoreResult<_>>()?;
        Ok(AggregatePage { values, next: read_to.map(|key| key_of(&key)).transpose()? })
    }

    async fn delete(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        bucket: Option<Bucket>,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<u64>> {
        let Fenced::Done(pass) = pass(&self.inner.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        let (first, last) = bucket.map_or((Bucket(i64::MIN), Bucket(i64::MAX)), |of| (of, of));
        let range = KeyRange::of_buckets(pipeline, entity, first, last);
        let shard = self.shard(pipeline, entity);
        let mut deleted = 0;
        loop {
            let in_part = |error| in_part(usize::try_from(deleted).unwrap_or(usize::MAX), error);
            match self.inner.delete_some(shard, &range, pass.clone()).await.map_err(in_part)? {
                Fenced::Refused if deleted > 0 => {
                    let why = "the lease changed hands while values were deleted";
                    return Err(in_part(StoreError::new(ErrorKind::Unavailable, why)));
                }
                Fenced::Refused => return Ok(Fenced::Refused),
                Fenced::Done((of_step, more)) => {
                    deleted += of_step;
                    if !more {
                        return Ok(Fenced::Done(deleted));
                    }
                }
            }
        }
    }

    async fn mark_seen(&self, ids: &[EventId], period: Duration) -> StoreResult<Vec<bool>> {
        // An id that is there twice is new at its first position only.
        let mut positions: HashMap<&EventId, usize> = HashMap::with_capacity(ids.len());
        let mut once = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            positions.entry(id).or_insert_with(|| {
                once.push(*id);
                index
            });
        }
        let shards = &self.inner.shards;
        let scatter = Scatter {
            script: &MARK_SEEN,
            traffic: Traffic::Small,
            shard_of: |id: &EventId| home_of(shards, id),
            step: STEP,
            changes: true,
        };
        let is_new: Vec<bool> = shards
            .scatter(scatter, &once, |command, shard, ids| {
                let bound = Bound { content: 0, shard: 0, is_merged: true };
                command.arg(shards.part_of(self.inner.limits.max_event_ids, shard));
                command.arg(millis_of(period)).arg(&bound.bytes());
                ids.for_each(|id| {
                    command.arg(&id.0);
                });
            })
            .await?;
        let is_new: HashMap<EventId, bool> = once.into_iter().zip(is_new).collect();
        let is_first = |(index, id): (usize, &EventId)| {
            positions.get(id) == Some(&index) && is_new.get(id) == Some(&true)
        };
        Ok(ids.iter().enumerate().map(is_first).collect())
    }

    async fn declare(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<Vec<DeclarationChanged>> {
        if pipelines.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..DECLARATIONS {
            let stored = self.inner.signatures(pipelines).await?;
            let mut changed = Vec::new();
            for (pipeline, stored) in pipelines.iter().zip(&stored) {
                let declared = pipeline.signature();
                if !stored.is_empty()
                    && *stored != declared
                    && self.inner.has_values(pipeline).await?
                {
                    let (pipeline, stored) = (pipeline.name.clone(), stored.clone());
                    changed.push(DeclarationChanged { pipeline, stored, declared });
                }
            }
            if !changed.is_empty() || self.inner.note_signatures(pipelines, &stored).await? {
                return Ok(changed);
            }
        }
        let why = "other replicas keep declaring other pipelines";
        Err(StoreError::new(ErrorKind::Unavailable, why))
    }
}

impl Inner {
    /// Deletes the first values of a range; returns how many were live, and whether there may be more.
    async fn delete_some(
        &self,
        shard: usize,
        range: &KeyRange,
        pass: Option<Arc<Pass>>,
    ) -> StoreResult<Fenced<(u64, bool)>> {
        let run = |pass: Option<Arc<Pass>>| async move {
            let arguments = |command: &mut Cmd| {
                add_pass(command, shard, pass.as_deref());
                command.arg(&range.from).arg(&range.to).arg(STEP);
            };
            self.shards.run(shard, Traffic::Small, &DELETE, arguments).await
        };
        match run_fenced(&self.shards, shard, pass, run).await? {
            Fenced::Done(reply) => Ok(Fenced::Done(read(reply)?)),
            Fenced::Refused => Ok(Fenced::Refused),
        }
    }

    /// Returns the signatures under which pipelines were declared, empty for those that were not.
    async fn signatures(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<Vec<String>> {
        let arguments = |command: &mut Cmd| {
            for pipeline in pipelines {
                command.arg(pipeline.name.as_str());
            }
        };
        read(self.shards.run(FIRST, Traffic::Small, &SIGNATURES, arguments).await?)
    }

    /// Notes the signatures of pipelines; returns whether none of them has changed since they were read.
    async fn note_signatures(
        &self,
        pipelines: &[Arc<Pipeline>],
        stored: &[String],
    ) -> StoreResult<bool> {
        let arguments = |command: &mut Cmd| {
            for (pipeline, stored) in pipelines.iter().zip(stored) {
                command.arg(pipeline.name.as_str()).arg(stored).arg(pipeline.signature());
            }
        };
        read(self.shards.run(FIRST, Traffic::Small, &DECLARE, arguments).await?)
    }
}

#[async_trait]
impl Upkeep for RedisAggregates {
    async fn purge(&self) -> StoreResult<u64> {
        let mut purged = 0;
        for expiring in &self.expiring {
            purged += expiring.purge(&self.inner.shards).await?;
        }
        Ok(purged)
    }

    fn status_part(&self) -> StatusPart {
        let text = &[include_str!("lua/count.lua")];
        let keys = &[VALUES, ENDS, EVENT_ID_ENDS, PRODUCER_ENDS];
        StatusPart { keys, text, arguments: Vec::new() }
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let counts = replies.into_iter().map(read::<(u64, u64, u64)>);
        let counts = counts.collect::<StoreResult<Vec<_>>>()?;
        let sum = |of: fn(&(u64, u64, u64)) -> u64| counts.iter().map(of).sum();
        let limits = &self.inner.limits;
        let limited = |name, entries, limit: usize| {
            ResourceStatus::counted(name, entries).limited(limit as u64)
        };
        let resources = vec![
            limited("aggregates", sum(|counts| counts.0), limits.max_values),
            limited("event_ids", sum(|counts| counts.1), limits.max_event_ids),
            limited("producers", sum(|counts| counts.2), limits.max_producers),
        ];
        Ok(Report { resources, newest: None })
    }
}
