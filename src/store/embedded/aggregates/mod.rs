//! Aggregates of the embedded store: the commands on their rows, and the reads.
//!
//! * `rows.rs`: the tables.
//! * `merge.rs`: the command that merges a batch.
//! * `outbox.rs`, `outbox_rows.rs`: the notes of what was merged.

mod merge;
mod outbox;
mod outbox_rows;
mod rows;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::merge::Batch;
pub(super) use self::outbox_rows::{Notes, Outboxes};
use self::rows::{AggregateKey, AggregateRow, pipeline_key, row_key};
pub(super) use self::rows::{Aggregates, EventIds, Pipelines, Producers};
use super::durable::{DurableStore, KeyRange, PageLimits, Txn};
use super::fences::fenced;
use super::sqlite::corrupt;
use crate::clock::Moment;
use crate::model::aggregates::{Aggregate, Bucket, Entity, EventId};
use crate::model::leases::Fence;
use crate::model::merge::{MergeError, State};
use crate::model::pipelines::Pipeline;
use crate::store::{
    AggregatePage, AggregateStore, Combined, DeclarationChanged, Fenced, Merge, MergeOutcome,
    StoreResult,
};

/// The most values that one command deletes.
const DELETED_AT_ONCE: usize = 10_000;
/// Windows of at most so many values are looked up in memory first.
const SMALL_WINDOW: usize = 64;
/// The most bytes of a page.
const PAGE_BYTES: usize = 8 << 20;

#[async_trait]
impl AggregateStore for DurableStore {
    async fn merge(&self, mut merge: Merge) -> StoreResult<Fenced<MergeOutcome>> {
        let fence = merge.fence.take();
        let batch = Batch::new(merge);
        self.try_write(move |txn| flip(fenced(txn, fence.as_ref(), |txn| batch.merge(txn)))).await
    }

    async fn get_many(
        &self,
        pipeline: &Arc<Pipeline>,
        keys: &[(Entity, Bucket)],
    ) -> StoreResult<Vec<Option<Aggregate>>> {
        let keys: Vec<_> =
            keys.iter().map(|(entity, bucket)| row_key(pipeline, entity, *bucket)).collect();
        let rows = self.read_paged::<Aggregates>(&keys).await?;
        let now = self.now();
        rows.iter()
            .map(|row| row.as_ref().map(|row| shown(pipeline, row, now)).transpose())
            .collect()
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
        let count = usize::try_from(buckets).unwrap_or(usize::MAX);
        if entities.len().saturating_mul(count) <= SMALL_WINDOW {
            return self.small_window(pipeline, entities, oldest, newest).await;
        }
        let range = |entity| KeyRange {
            first: row_key(pipeline, entity, oldest),
            last: row_key(pipeline, entity, newest),
        };
        let of_pipeline = Arc::clone(pipeline);
        let add = move |window: &mut Window, row: &AggregateRow| window.add(&of_pipeline, row);
        let windows = self.fold_ranges(entities.iter().map(range).collect(), add).await?;
        windows.into_iter().map(Window::combined).collect()
    }

    async fn range(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
        limit: usize,
    ) -> StoreResult<Vec<(Bucket, Aggregate)>> {
        let mut found = Vec::new();
        let mut next = Some((key(pipeline, entity, from), true));
        while let Some((from, included)) = next.take().filter(|_| found.len() < limit) {
            let from = if included { Bound::Included(&from) } else { Bound::Excluded(&from) };
            let limits = PageLimits { rows: limit - found.len(), bytes: PAGE_BYTES };
            let page = self.read_page::<Aggregates>(from, limits).await?;
            let now = self.now();
            let last = key(pipeline, entity, to);
            for (key, row) in page.rows.iter().take_while(|(key, _)| *key <= last) {
                found.push((Bucket(key.1), shown(pipeline, row, now)?));
            }
            next = page.next.filter(|next| *next < last).map(|next| (next, false));
        }
        Ok(found)
    }

    async fn list(
        &self,
        pipeline: &Arc<Pipeline>,
        after: Option<&(Entity, Bucket)>,
        limit: usize,
    ) -> StoreResult<AggregatePage> {
        let of_pipeline = |key: &AggregateKey| key.0.0 == pipeline.name.as_str();
        // No entity is empty, so this key is before all that there can be.
        let first = ((pipeline.name.as_str().to_owned(), String::new()), 0);
        let after = after.map_or(first, |(entity, bucket)| key(pipeline, entity, *bucket));
        let limits = PageLimits { rows: limit.max(1), bytes: PAGE_BYTES };
        let page = self.read_page::<Aggregates>(Bound::Excluded(&after), limits).await?;
        let now = self.now();
        let mut values = Vec::with_capacity(page.rows.len());
        for (key, row) in page.rows.iter().take_while(|(key, _)| of_pipeline(key)) {
            values.push((entity(key)?, Bucket(key.1), shown(pipeline, row, now)?));
        }
        let next = page.next.filter(of_pipeline);
        let next =
            next.map(|key| Ok::<_, crate::store::StoreError>((entity(&key)?, Bucket(key.1))));
        Ok(AggregatePage { values, next: next.transpose()? })
    }

    async fn delete(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        bucket: Option<Bucket>,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<u64>> {
        let mut deleted = 0;
        loop {
            let (first, last) = bucket.map_or((Bucket(i64::MIN), Bucket(i64::MAX)), |of| (of, of));
            let range = KeyRange {
                first: row_key(pipeline, entity, first),
                last: row_key(pipeline, entity, last),
            };
            let fence = fence.clone();
            let step = move |txn: &mut Txn<'_>| {
                flip(fenced(txn, fence.as_ref(), |txn| delete_some(txn, &range)))
            };
            match self.try_write(step).await? {
                Fenced::Refused => return Ok(Fenced::Refused),
                Fenced::Done((of_step, is_last)) => {
                    deleted += of_step;
                    if is_last {
                        return Ok(Fenced::Done(deleted));
                    }
                }
            }
        }
    }

    async fn mark_seen(&self, ids: &[EventId], period: Duration) -> StoreResult<Vec<bool>> {
        let ids = ids.to_vec();
        self.try_write(move |txn| mark_seen(txn, &ids, period)).await
    }

    async fn declare(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<Vec<DeclarationChanged>> {
        let mut changed = Vec::new();
        for pipeline in pipelines {
            let stored = {
                let (tables, now) = self.read()?;
                tables.rows::<Pipelines>().get(&pipeline_key(&pipeline.name), now.steady).cloned()
            };
            let declared = pipeline.signature();
            if let Some(stored) = stored.filter(|stored| *stored != declared)
                && self.has_values(pipeline).await?
            {
                let pipeline = pipeline.name.clone();
                changed.push(DeclarationChanged { pipeline, stored, declared });
            }
        }
        if changed.is_empty() {
            let pipelines = pipelines.to_vec();
            self.write(move |txn| remember(txn, &pipelines)).await?;
        }
        Ok(changed)
    }
}

impl DurableStore {
    /// Combines few values, which may be in memory.
    async fn small_window(
        &self,
        pipeline: &Arc<Pipeline>,
        entities: &[Entity],
        oldest: Bucket,
        newest: Bucket,
    ) -> StoreResult<Vec<Result<Option<Combined>, MergeError>>> {
        let buckets = || (oldest.0..=newest.0).map(Bucket);
        let of_entity = |entity| buckets().map(move |bucket| row_key(pipeline, entity, bucket));
        let keys: Vec<_> = entities.iter().flat_map(of_entity).collect();
        let rows = self.read_paged::<Aggregates>(&keys).await?;
        let combine = |rows: &[Option<Arc<AggregateRow>>]| {
            let mut window = Window::default();
            rows.iter().flatten().for_each(|row| window.add(pipeline, row));
            window.combined()
        };
        rows.chunks(buckets().count()).map(combine).collect()
    }

    /// Returns whether a value of the pipeline is live.
    async fn has_values(&self, pipeline: &Pipeline) -> StoreResult<bool> {
        let name = pipeline.name.as_str();
        let mut after = Some(((name.to_owned(), String::new()), 0));
        while let Some(key) = after.filter(|key: &AggregateKey| key.0.0 == name) {
            let limits = PageLimits { rows: 1, bytes: PAGE_BYTES };
            let page = self.read_page::<Aggregates>(Bound::Excluded(&key), limits).await?;
            if page.rows.iter().any(|(key, _)| key.0.0 == name) {
                return Ok(true);
            }
            after = page.next;
        }
        Ok(false)
    }
}

/// The buckets of an entity, as far as they are combined.
#[derive(Default)]
struct Window {
    state: Option<State>,
    found: u32,
    failure: Option<Failure>,
}

/// Why buckets can't be combined.
enum Failure {
    Read(crate::store::StoreError),
    Merge(MergeError),
}

impl Window {
    fn add(&mut self, pipeline: &Pipeline, row: &AggregateRow) {
        if self.failure.is_some() {
            return;
        }
        self.found += 1;
        let merged =
            row.state(pipeline).map_err(Failure::Read).and_then(|of_row| match &mut self.state {
                Some(state) => pipeline.kind.merge(state, &of_row).map_err(Failure::Merge),
                None => {
                    self.state = Some(of_row.into_owned());
                    Ok(())
                }
            });
        self.failure = merged.err();
    }

    fn combined(self) -> StoreResult<Result<Option<Combined>, MergeError>> {
        match self.failure {
            Some(Failure::Read(error)) => Err(error),
            Some(Failure::Merge(error)) => Ok(Err(error)),
            None => Ok(Ok(self.state.map(|state| Combined { state, found: self.found }))),
        }
    }
}

fn key(pipeline: &Pipeline, entity: &Entity, bucket: Bucket) -> AggregateKey {
    ((pipeline.name.as_str().to_owned(), entity.as_str().to_owned()), bucket.0)
}

fn entity(key: &AggregateKey) -> StoreResult<Entity> {
    Entity::parse(key.0.1.as_str()).map_err(|error| corrupt(format!("the key of a value: {error}")))
}

fn shown(pipeline: &Pipeline, row: &AggregateRow, now: Moment) -> StoreResult<Aggregate> {
    let state = row.state(pipeline)?.into_owned();
    Ok(Aggregate { state, expires_at: row.expires_at.map(|end| now.shown(end)) })
}

fn flip<T>(outcome: Fenced<StoreResult<T>>) -> StoreResult<Fenced<T>> {
    match outcome {
        Fenced::Done(outcome) => outcome.map(Fenced::Done),
        Fenced::Refused => Ok(Fenced::Refused),
    }
}

/// Deletes the first values of a range; returns how many were live, and whether these are all.
fn delete_some(txn: &mut Txn<'_>, range: &KeyRange<Aggregates>) -> StoreResult<(u64, bool)> {
    let keys = txn.keys_within(range, DELETED_AT_ONCE)?;
    let live = txn.read_many(&keys)?.iter().flatten().count();
    keys.iter().try_for_each(|key| txn.remove(key))?;
    Ok((live as u64, keys.len() < DELETED_AT_ONCE))
}

fn mark_seen(txn: &mut Txn<'_>, ids: &[EventId], period: Duration) -> StoreResult<Vec<bool>> {
    let claimed = txn.claimed::<EventIds>(ids.iter().map(|id| id.0));
    let mut in_batch = HashSet::new();
    let is_new = |(id, claimed): (&EventId, Option<u64>)| claimed.is_none() && in_batch.insert(*id);
    let first: Vec<bool> = ids.iter().zip(claimed).map(is_new).collect();
    txn.make_room_for_claims::<EventIds>(in_batch.len())?;
    txn.claim::<EventIds>(in_batch.into_iter().map(|id| (id.0, 0)), period);
    Ok(first)
}

/// Stores the signatures of pipelines that are new, or that have no values.
fn remember(txn: &mut Txn<'_>, pipelines: &[Arc<Pipeline>]) {
    for pipeline in pipelines {
        let (key, signature) = (pipeline_key(&pipeline.name), pipeline.signature());
        if txn.get::<Pipelines>(&key) != Some(&signature) {
            txn.put::<Pipelines>(key, signature);
        }
    }
}
