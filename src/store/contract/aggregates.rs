//! The contract of aggregates. What holds for all resources is said in the parent module.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Fenced, StoreResult};
use crate::model::aggregates::{Aggregate, Bucket, Entity, EventId, ProducerSequence, Update};
use crate::model::leases::Fence;
use crate::model::merge::{MergeError, State};
use crate::model::pipelines::{Pipeline, PipelineName};
use crate::model::settings;

/// `[aggregates]`, as far as the store needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct AggregateSettings {
    /// How many bytes of memory the values take that are on disk as well. Only for stores that have a disk.
    #[serde(deserialize_with = "settings::bytes")]
    pub memory: usize,
    /// The most live values, of all pipelines together.
    #[serde(deserialize_with = "settings::count")]
    pub max_values: usize,
    /// The most event ids that are remembered.
    #[serde(deserialize_with = "settings::count")]
    pub max_event_ids: usize,
    /// The most producers whose last batch is remembered, of all pipelines together.
    #[serde(deserialize_with = "settings::count")]
    pub max_producers: usize,
    /// The most notes in the outbox of a pipeline.
    #[serde(deserialize_with = "settings::count")]
    pub max_outbox_notes: usize,
    /// The most bytes that they take.
    #[serde(deserialize_with = "settings::bytes")]
    pub max_outbox_bytes: usize,
}

/// A batch of updates of one pipeline, and what they depend on.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The pipeline. Event ids and a sequence need its deduplication period.
    pub pipeline: Arc<Pipeline>,
    /// The updates, which are applied in this order.
    pub updates: Vec<Update>,
    /// Makes the batch count once.
    pub sequence: Option<ProducerSequence>,
    /// The lease that must be held.
    pub fence: Option<Fence>,
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq)]
pub enum MergeOutcome {
    /// All of it is done. The three numbers add up to the number of updates.
    Merged {
        /// Updates that were merged.
        applied: u64,
        /// Updates that had been merged before, with the same content.
        duplicates: u64,
        /// Updates of buckets that have expired already. They were dropped, and their events are not remembered.
        expired: u64,
    },
    /// This update's event id is remembered with another content. Nothing was changed.
    Conflict {
        /// Its position in the batch.
        index: usize,
    },
    /// The producer's last batch was not the one before this. Nothing was changed.
    SequenceGap {
        /// The number that comes next.
        expected: u64,
    },
    /// This update's delta can't be merged into what is held. Nothing was changed.
    Refused {
        /// Its position in the batch.
        index: usize,
        /// The reason.
        why: MergeError,
    },
}

/// Several buckets of an entity, combined.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// Their values, merged from the oldest to the newest.
    pub state: State,
    /// How many of the buckets have a value.
    pub found: u32,
}

/// Some values of a pipeline, in the order of their entities and buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AggregatePage {
    /// The values.
    pub values: Vec<(Entity, Bucket, Aggregate)>,
    /// The key after which the next page begins; `None` when no value follows. A page may be short, or empty, although
    /// more values follow.
    pub next: Option<(Entity, Bucket)>,
}

/// A pipeline that is declared otherwise than its stored values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclarationChanged {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The signature that its values were stored under.
    pub stored: String,
    /// The signature that it is declared with.
    pub declared: String,
}

/// Values that many writers merge into. A value is identified by its pipeline, entity and bucket.
///
/// *Ends.* In a pipeline with a window, a value expires at its bucket's end plus the retention, by the system's clock at
/// the write that made the value; later writes do not move that. A ttl sets the end of a value, or moves it to a later
/// time. A merge into an expired value starts afresh.
///
/// *Counting once.* An event id that was merged is remembered for the pipeline's deduplication period, and for at most a
/// tenth of it, and five seconds, longer. It is remembered in the same step as its update is merged. So a batch that
/// failed, or whose outcome is unknown, may be sent again: each of its updates counts once. The number of a producer's
/// last batch is remembered in the same way, from the last batch that was applied on. A batch with a number up to that
/// one is a duplicate as a whole; of a producer that is not remembered, any number is the next.
#[async_trait]
pub trait AggregateStore: Send + Sync {
    /// Merges a batch in one step. The same event id twice in a batch is a duplicate, or a conflict, like in two.
    ///
    /// # Errors
    /// [`super::ErrorKind::LimitReached`] when there is no room for new values, event ids or producers; nothing was
    /// changed.
    async fn merge(&self, merge: Merge) -> StoreResult<Fenced<MergeOutcome>>;

    /// Reads values, in the order of `keys`.
    async fn get_many(
        &self,
        pipeline: &Arc<Pipeline>,
        keys: &[(Entity, Bucket)],
    ) -> StoreResult<Vec<Option<Aggregate>>>;

    /// Combines the values of the newest `buckets` buckets up to `newest`, for each of `entities`, in their order;
    /// `None` where no bucket has a value. What is read is of one moment. An entity whose values can't be combined has
    /// the reason instead.
    async fn window(
        &self,
        pipeline: &Arc<Pipeline>,
        entities: &[Entity],
        newest: Bucket,
        buckets: u32,
    ) -> StoreResult<Vec<Result<Option<Combined>, MergeError>>>;

    /// Reads the values of an entity in the buckets `from` to `to`, both included, from the oldest on, at most `limit`.
    async fn range(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
        limit: usize,
    ) -> StoreResult<Vec<(Bucket, Aggregate)>>;

    /// Reads the values of a pipeline after the key `after`, at most `limit`. Each value is as it was at some moment
    /// during the call.
    async fn list(
        &self,
        pipeline: &Arc<Pipeline>,
        after: Option<&(Entity, Bucket)>,
        limit: usize,
    ) -> StoreResult<AggregatePage>;

    /// Deletes the value of an entity in one bucket, or in all of them; returns how many there were. Events that were
    /// merged into them stay remembered. More than ten thousand buckets are deleted in several steps.
    async fn delete(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        bucket: Option<Bucket>,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<u64>>;

    /// Remembers events for `period`; returns for each whether it was not remembered before. Of any number of concurrent
    /// callers exactly one gets `true`. An id that is there twice is new at its first position only.
    ///
    /// A repetition after an error may find that the first attempt was carried out.
    async fn mark_seen(&self, ids: &[EventId], period: Duration) -> StoreResult<Vec<bool>>;

    /// Compares the pipelines that are declared with those whose values are stored, and returns the ones that differ.
    /// Where none differs, remembers them for the next start. Called once, before anything is merged.
    async fn declare(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<Vec<DeclarationChanged>>;
}
