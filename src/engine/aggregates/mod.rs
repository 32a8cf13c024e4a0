//! The rules of aggregates: which bucket an update belongs to, how far ahead of the clock it may be, which events are
//! remembered, and what became of the updates.
//!
//! Not how values are merged: their kind says that, and the store does it. Invariant: an update reaches the store only
//! after all updates of its batch have passed; the store then applies all of them, or none.

mod bucket;
mod content;
mod declared;
mod export;
mod hooks;
mod settings;
mod totals;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::bucket::When;
use self::bucket::bucket_of;
pub use self::declared::{Declaration, PipelineSettings};
pub use self::export::{Export, ExportSettings};
pub use self::settings::{AggregateRules, EventRules};
pub use self::totals::{UpdateFate, UpdateTotals};
pub use self::update::{NewUpdate, UpdateError, UpdateReader};
use super::error::{EngineError, EngineResult, unfence};
use crate::clock::SharedClock;
use crate::model::Invalid;
use crate::model::aggregates::{Aggregate, Bucket, Entity, EventId, ProducerSequence, Update};
use crate::model::leases::Fence;
use crate::model::merge::MergeError;
use crate::model::pipelines::{Pipeline, PipelineName};
use crate::model::time::Timestamp;
use crate::store::timed::{OperationRecorder, OperationTimer, TimedAggregates, timed};
use crate::store::{
    AggregatePage, AggregateStore, Combined, DeclarationChanged, ErrorKind, Merge, MergeOutcome,
    OutboxStore, StoreError,
};

/// The scope of the event ids that no merge carries. No pipeline has such a name.
const SEEN: &str = "events/seen";

/// A pipeline, and what became of its updates.
pub struct DeclaredPipeline {
    pipeline: Arc<Pipeline>,
    totals: UpdateTotals,
    /// Keeps how long merges take, with all that is done around the store.
    merge_timer: Option<Arc<dyn OperationTimer>>,
    /// Shows its values on /metrics, if it has an export.
    export: Option<Arc<Export>>,
}

impl DeclaredPipeline {
    /// Returns the pipeline.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Returns what shows its values on /metrics, if it has an export.
    pub fn export(&self) -> Option<&Arc<Export>> {
        self.export.as_ref()
    }

    /// Returns what became of its updates.
    pub fn totals(&self) -> &UpdateTotals {
        &self.totals
    }
}

/// The values and the notes, where the backend keeps them.
type AggregateStores = (Option<Arc<dyn AggregateStore>>, Option<Arc<dyn OutboxStore>>);

/// Aggregates.
pub struct AggregateEngine {
    /// `None` where the backend keeps no aggregates.
    store: Option<Arc<dyn AggregateStore>>,
    /// `None` where the backend keeps no notes.
    outbox: Option<Arc<dyn OutboxStore>>,
    pipelines: BTreeMap<PipelineName, Arc<DeclaredPipeline>>,
    max_future_skew: Duration,
    seen_period: Duration,
    clock: SharedClock,
}

impl AggregateEngine {
    pub(super) fn new(
        (store, outbox): AggregateStores,
        pipelines: &PipelineSettings,
        rules: AggregateRules,
        events: EventRules,
        clock: SharedClock,
        shared: bool,
    ) -> Self {
        let declared = |Declaration { pipeline, export }: &Declaration| {
            let (name, pipeline) = (pipeline.name.clone(), Arc::clone(pipeline));
            let totals = UpdateTotals::default();
            let export = export.clone().map(|export| {
                let (pipeline, clock) = (Arc::clone(&pipeline), Arc::clone(&clock));
                Arc::new(Export::new(pipeline, export, shared, clock))
            });
            (name, Arc::new(DeclaredPipeline { pipeline, totals, merge_timer: None, export }))
        };
        Self {
            store,
            outbox,
            pipelines: pipelines.declared().iter().map(declared).collect(),
            max_future_skew: rules.max_future_skew,
            seen_period: events.dedup,
            clock,
        }
    }

    /// Keeps from now on how long each operation takes. To be called before the first one.
    pub fn record_in(&mut self, recorder: &dyn OperationRecorder) {
        let Some(store) = self.store.take() else { return };
        let timed = TimedAggregates::new(store, self.pipelines.keys(), recorder);
        self.store = Some(Arc::new(timed));
        for (name, declared) in &mut self.pipelines {
            *declared = Arc::new(DeclaredPipeline {
                pipeline: Arc::clone(&declared.pipeline),
                totals: UpdateTotals::default(),
                merge_timer: Some(recorder.timer(&format!("{name}:store_merge"))),
                export: declared.export.clone(),
            });
        }
    }

    /// Compares the declared pipelines with those that values are stored of. To be called once, before anything else.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when a pipeline was changed so that its stored values would mean something else, and
    /// when the backend keeps no aggregates; failures of the store.
    pub async fn declare(&self) -> EngineResult<()> {
        let Some(store) = &self.store else {
            return match self.pipelines.is_empty() {
                true => Ok(()),
                false => Err(Invalid::new("the configured backend keeps no aggregates").into()),
            };
        };
        let declared = self.pipelines.values().map(|declared| Arc::clone(&declared.pipeline));
        let declared: Vec<_> = declared.collect();
        let changed = store.declare(&declared).await?;
        if changed.is_empty() {
            return self.open_outboxes(&declared).await;
        }
        let changed = changed.iter().map(|DeclarationChanged { pipeline, stored, declared }| {
            format!(
                "the pipeline {} has stored values of {stored}, and is declared as {declared}",
                pipeline.as_str()
            )
        });
        Err(Invalid::new(changed.collect::<Vec<_>>().join("; ")).into())
    }

    async fn open_outboxes(&self, declared: &[Arc<Pipeline>]) -> EngineResult<()> {
        let hooked = declared.iter().filter(|pipeline| pipeline.hook.is_some()).cloned();
        let hooked: Vec<_> = hooked.collect();
        match (&self.outbox, hooked.first()) {
            (Some(outbox), _) => Ok(outbox.open_outboxes(&hooked).await?),
            (None, None) => Ok(()),
            (None, Some(pipeline)) => Err(Invalid::new(format!(
                "the pipeline {} has a hook, and the configured backend supports none",
                pipeline.name
            ))
            .into()),
        }
    }

    /// Returns all pipelines, sorted by name.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<DeclaredPipeline>> {
        self.pipelines.values()
    }

    /// Returns the pipeline of this name.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub fn pipeline(&self, name: &str) -> EngineResult<&Arc<DeclaredPipeline>> {
        let name = PipelineName::parse(name).ok();
        let declared = name.and_then(|name| self.pipelines.get(&name));
        declared.ok_or(EngineError::NotFound("pipeline"))
    }

    /// Returns what reads the updates of one request.
    pub fn reader(&self, declared: &Arc<DeclaredPipeline>) -> UpdateReader {
        let now = self.clock.now();
        let latest = now.saturating_add(self.max_future_skew);
        UpdateReader { declared: Arc::clone(declared), now, latest }
    }

    /// Merges updates into their values, all or none.
    ///
    /// # Errors
    /// [`EngineError::FenceRefused`], and failures of the store: then the updates were applied, or none of them was.
    pub async fn merge(
        &self,
        declared: &DeclaredPipeline,
        updates: Vec<Update>,
        sequence: Option<ProducerSequence>,
        fence: Option<Fence>,
    ) -> EngineResult<MergeOutcome> {
        let pipeline = Arc::clone(&declared.pipeline);
        let merge = Merge { pipeline, updates, sequence, fence };
        let merged = async {
            let store = self.store()?;
            let merged = match &declared.export {
                None => store.merge(merge).await?,
                Some(export) => {
                    let entities = merge.updates.iter().map(|update| update.entity.clone());
                    let (entities, store) = (entities.collect(), Arc::clone(store));
                    export.marking(entities, async move { store.merge(merge).await }).await?
                }
            };
            let outcome = unfence(merged)?;
            declared.totals.count(&outcome);
            Ok(outcome)
        };
        timed(declared.merge_timer.as_ref(), merged).await
    }

    /// Returns the bucket that is meant.
    ///
    /// # Errors
    /// When it is named by its number, and the pipeline has no buckets.
    pub fn bucket(&self, pipeline: &Pipeline, when: When) -> Result<Bucket, Invalid> {
        bucket_of(pipeline.window, when, self.clock.now())
    }

    /// Returns the present, for values that depend on it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads the values of many keys, in their order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_many(
        &self,
        pipeline: &Arc<Pipeline>,
        keys: &[(Entity, Bucket)],
    ) -> EngineResult<Vec<Option<Aggregate>>> {
        Ok(self.store()?.get_many(pipeline, keys).await?)
    }

    /// Combines for each entity the values of the `buckets` newest buckets up to `newest`, in the order of `entities`.
    ///
    /// # Errors
    /// When the store fails. An entity whose values can't be combined has the reason instead.
    pub async fn window(
        &self,
        pipeline: &Arc<Pipeline>,
        entities: &[Entity],
        newest: Bucket,
        buckets: u32,
    ) -> EngineResult<Vec<Result<Option<Combined>, MergeError>>> {
        Ok(self.store()?.window(pipeline, entities, newest, buckets).await?)
    }

    /// Reads the values of an entity in the buckets from `from` to `to`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn range(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
        limit: usize,
    ) -> EngineResult<Vec<(Bucket, Aggregate)>> {
        Ok(self.store()?.range(pipeline, entity, from, to, limit).await?)
    }

    /// Reads the values of all keys after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        pipeline: &Arc<Pipeline>,
        after: Option<&(Entity, Bucket)>,
        limit: usize,
    ) -> EngineResult<AggregatePage> {
        Ok(self.store()?.list(pipeline, after, limit).await?)
    }

    /// Deletes the value of a bucket, or with `None` those of all buckets of the entity; returns how many there were.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there was none, [`EngineError::FenceRefused`], and failures of the store.
    pub async fn delete(
        &self,
        declared: &DeclaredPipeline,
        entity: &Entity,
        bucket: Option<Bucket>,
        fence: Option<Fence>,
    ) -> EngineResult<u64> {
        let (store, pipeline) = (self.store()?, &declared.pipeline);
        let deleted = match &declared.export {
            None => store.delete(pipeline, entity, bucket, fence).await?,
            Some(export) => {
                let (store, pipeline, of) =
                    (Arc::clone(store), Arc::clone(pipeline), entity.clone());
                let delete = async move { store.delete(&pipeline, &of, bucket, fence).await };
                export.marking(vec![entity.clone()], delete).await?
            }
        };
        match unfence(deleted)? {
            0 => Err(EngineError::NotFound("aggregate")),
            deleted => Ok(deleted),
        }
    }

    /// Makes the ids of events that no merge carries. The error has the index of the first that is not valid.
    ///
    /// # Errors
    /// When one is empty or too long.
    pub fn seen_ids(&self, ids: &[String]) -> Result<Vec<EventId>, (usize, Invalid)> {
        let id =
            |(index, id): (usize, &String)| EventId::parse(SEEN, id).map_err(|why| (index, why));
        ids.iter().enumerate().map(id).collect()
    }

    /// Remembers events; returns for each whether it was not remembered before. Of all callers exactly one is told so.
    ///
    /// # Errors
    /// When the store fails: then some of the events may be remembered.
    pub async fn mark_seen(&self, ids: &[EventId]) -> EngineResult<Vec<bool>> {
        Ok(self.store()?.mark_seen(ids, self.seen_period).await?)
    }

    /// Returns the store; `None` where the backend keeps no aggregates.
    pub fn shared_store(&self) -> Option<Arc<dyn AggregateStore>> {
        self.store.clone()
    }

    fn store(&self) -> EngineResult<&Arc<dyn AggregateStore>> {
        let unsupported = || StoreError::new(ErrorKind::Unsupported, "no aggregates");
        Ok(self.store.as_ref().ok_or_else(unsupported)?)
    }
}

#[cfg(test)]
mod tests;
