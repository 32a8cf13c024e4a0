//! Times the operations on aggregates: a decorator of their store.
//!
//! Not what the times are kept in. Invariant: an operation does, and returns, exactly what it does without the
//! decorator.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::contract::{
    AggregatePage, AggregateStore, Combined, DeclarationChanged, Fenced, Merge, MergeOutcome,
    StoreResult,
};
use crate::model::aggregates::{Aggregate, Bucket, Entity, EventId};
use crate::model::leases::Fence;
use crate::model::merge::MergeError;
use crate::model::pipelines::{Pipeline, PipelineName};

/// Keeps the times of operations.
pub trait OperationRecorder {
    /// Returns what keeps the times of the operation of this name.
    fn timer(&self, operation: &str) -> Arc<dyn OperationTimer>;
}

/// Keeps the times of one operation.
pub trait OperationTimer: Send + Sync {
    /// Keeps how long an operation took, and whether it failed.
    fn record(&self, took: Duration, failed: bool);
}

/// Runs an operation that `timer` keeps the time of.
pub async fn timed<T, E>(
    timer: Option<&Arc<dyn OperationTimer>>,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(timer) = timer else { return operation.await };
    let started = Instant::now();
    let outcome = operation.await;
    timer.record(started.elapsed(), outcome.is_err());
    outcome
}

/// A store of aggregates whose operations are timed. Those of a pipeline are called `<pipeline>:store_get` and so on.
pub struct TimedAggregates {
    inner: Arc<dyn AggregateStore>,
    by_pipeline: HashMap<PipelineName, Timers>,
    mark_seen: Arc<dyn OperationTimer>,
}

/// The timers of one pipeline.
struct Timers {
    get: Arc<dyn OperationTimer>,
    get_many: Arc<dyn OperationTimer>,
    merge_update: Arc<dyn OperationTimer>,
    window: Arc<dyn OperationTimer>,
    range: Arc<dyn OperationTimer>,
    list: Arc<dyn OperationTimer>,
    delete: Arc<dyn OperationTimer>,
}

impl TimedAggregates {
    /// Times the operations of `inner` on these pipelines.
    pub fn new<'a>(
        inner: Arc<dyn AggregateStore>,
        pipelines: impl Iterator<Item = &'a PipelineName>,
        recorder: &dyn OperationRecorder,
    ) -> Self {
        let timers = |name: &PipelineName| {
            let timer = |operation: &str| recorder.timer(&format!("{name}:store_{operation}"));
            Timers {
                get: timer("get"),
                get_many: timer("get_many"),
                merge_update: timer("merge_update"),
                window: timer("window"),
                range: timer("range"),
                list: timer("list"),
                delete: timer("delete"),
            }
        };
        Self {
            inner,
            by_pipeline: pipelines.map(|name| (name.clone(), timers(name))).collect(),
            mark_seen: recorder.timer("events:store_mark_seen"),
        }
    }

    fn timers(&self, pipeline: &Pipeline) -> Option<&Timers> {
        self.by_pipeline.get(&pipeline.name)
    }
}

#[async_trait]
impl AggregateStore for TimedAggregates {
    async fn merge(&self, merge: Merge) -> StoreResult<Fenced<MergeOutcome>> {
        let timer = self.timers(&merge.pipeline).map(|timers| &timers.merge_update);
        timed(timer, self.inner.merge(merge)).await
    }

    async fn get_many(
        &self,
        pipeline: &Arc<Pipeline>,
        keys: &[(Entity, Bucket)],
    ) -> StoreResult<Vec<Option<Aggregate>>> {
        let timers = self.timers(pipeline);
        let timer = timers.map(|t| if keys.len() == 1 { &t.get } else { &t.get_many });
        timed(timer, self.inner.get_many(pipeline, keys)).await
    }

    async fn window(
        &self,
        pipeline: &Arc<Pipeline>,
        entities: &[Entity],
        newest: Bucket,
        buckets: u32,
    ) -> StoreResult<Vec<Result<Option<Combined>, MergeError>>> {
        let timer = self.timers(pipeline).map(|timers| &timers.window);
        timed(timer, self.inner.window(pipeline, entities, newest, buckets)).await
    }

    async fn range(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        from: Bucket,
        to: Bucket,
        limit: usize,
    ) -> StoreResult<Vec<(Bucket, Aggregate)>> {
        let timer = self.timers(pipeline).map(|timers| &timers.range);
        timed(timer, self.inner.range(pipeline, entity, from, to, limit)).await
    }

    async fn list(
        &self,
        pipeline: &Arc<Pipeline>,
        after: Option<&(Entity, Bucket)>,
        limit: usize,
    ) -> StoreResult<AggregatePage> {
        let timer = self.timers(pipeline).map(|timers| &timers.list);
        timed(timer, self.inner.list(pipeline, after, limit)).await
    }

    async fn delete(
        &self,
        pipeline: &Arc<Pipeline>,
        entity: &Entity,
        bucket: Option<Bucket>,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<u64>> {
        let timer = self.timers(pipeline).map(|timers| &timers.delete);
        timed(timer, self.inner.delete(pipeline, entity, bucket, fence)).await
    }

    async fn mark_seen(&self, ids: &[EventId], period: Duration) -> StoreResult<Vec<bool>> {
        timed(Some(&self.mark_seen), self.inner.mark_seen(ids, period)).await
    }

    async fn declare(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<Vec<DeclarationChanged>> {
        self.inner.declare(pipelines).await
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<bool>>);

    impl OperationTimer for Kept {
        fn record(&self, _took: Duration, failed: bool) {
            self.0.lock().push(failed);
        }
    }

    #[tokio::test]
    async fn each_operation_is_recorded_once_and_its_outcome_stays_what_it_is() {
        let kept = Arc::new(Kept::default());
        let timer: Arc<dyn OperationTimer> = Arc::clone(&kept) as _;
        assert_eq!(timed(Some(&timer), async { Ok::<_, ()>(7) }).await, Ok(7));
        assert_eq!(timed(Some(&timer), async { Err::<(), _>("no") }).await, Err("no"));
        assert_eq!(timed(None, async { Ok::<_, ()>(8) }).await, Ok(8));
        assert_eq!(*kept.0.lock(), [false, true]);
    }
}
