//! The values of a pipeline as series on /metrics, brought up to date by what has changed.
//!
//! Not the pages: these take the changes. Where the server alone writes to its store, only the entities that were merged
//! into are read again; where replicas share a store, all that are exported, whose number is bounded. Invariant: after
//! [`Export::changes`], what was returned so far adds up to the values of the store at some moment since the call.

mod marks;
mod rows;
mod settings;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Mutex;

use self::marks::Marks;
use self::rows::Rows;
pub use self::settings::ExportSettings;
pub(super) use self::settings::shared_names;
use crate::clock::SharedClock;
use crate::model::aggregates::{Aggregate, Bucket, Entity};
use crate::model::pipelines::Pipeline;
use crate::store::{AggregateStore, Change, ErrorKind, StoreError, StoreResult};

/// How many values are read at once.
const PAGE: usize = 1000;

/// The export of one pipeline.
pub struct Export {
    pipeline: Arc<Pipeline>,
    settings: ExportSettings,
    /// Whether others write to the store as well, whose changes nobody marks here.
    shared: bool,
    clock: SharedClock,
    marks: Arc<Marks>,
    rows: Mutex<Rows>,
    entities: AtomicUsize,
    unreadable: AtomicUsize,
    truncated: AtomicBool,
}

impl Export {
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        settings: ExportSettings,
        shared: bool,
        clock: SharedClock,
    ) -> Self {
        Self {
            marks: Marks::new(settings.max_entities),
            shared: shared || pipeline.kind.changes_with_time(),
            pipeline,
            settings,
            clock,
            rows: Mutex::default(),
            entities: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
            truncated: AtomicBool::new(false),
        }
    }

    /// Returns the pipeline.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Returns the settings.
    pub fn settings(&self) -> &ExportSettings {
        &self.settings
    }

    /// Returns how many entities are exported.
    pub fn entities(&self) -> usize {
        self.entities.load(Ordering::Relaxed)
    }

    /// Returns how many of them are not shown, since they are no labels or their values no numbers.
    pub fn unreadable(&self) -> usize {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Returns whether there are more entities than may be exported.
    pub fn is_truncated(&self) -> bool {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Does something to the store that may change `entities`, and marks them when it is done. It is done to its end
    /// also when the caller is gone: the store would not stop either.
    pub(super) async fn marking<T: Send + 'static>(
        &self,
        entities: Vec<Entity>,
        change: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        let marks = Arc::clone(&self.marks);
        let change = tokio::spawn(async move {
            let outcome = change.await;
            marks.add(entities);
            outcome
        });
        let lost = |error| StoreError::caused_by(ErrorKind::Internal, "a change was lost", error);
        change.await.map_err(lost)?
    }

    /// Returns what has changed since the last call, or with `whole` all series that are exported. A call that fails or
    /// is cancelled changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn changes(
        &self,
        store: &dyn AggregateStore,
        whole: bool,
    ) -> StoreResult<Vec<Change>> {
        let mut rows = self.rows.lock().await;
        let taken = self.marks.take();
        let mut changes = Vec::new();
        // All that is awaited comes first: from then on nothing is cancelled half-way.
        if self.shared || taken.marked.all {
            let values = self.read_all(store).await?;
            rows.replace(self, values, &mut changes);
        } else {
            let mut entities: Vec<Entity> = taken.marked.entities.iter().cloned().collect();
            entities.extend(rows.ended(self.clock.now()));
            let values = self.read(store, &entities).await?;
            if rows.update(self, entities.into_iter().zip(values), &mut changes) {
                // One of those that found no room can take the place of one that is gone.
                self.marks.add_all();
            }
        }
        taken.used();
        self.entities.store(rows.len(), Ordering::Relaxed);
        self.unreadable.store(rows.unreadable(), Ordering::Relaxed);
        if rows.is_truncated() != self.truncated.swap(rows.is_truncated(), Ordering::Relaxed) {
            self.log_truncated(rows.is_truncated());
        }
        Ok(if whole { rows.all(self) } else { changes })
    }

    /// Reads the first entities, one more than may be exported.
    async fn read_all(&self, store: &dyn AggregateStore) -> StoreResult<Vec<(Entity, Aggregate)>> {
        let most = self.settings.max_entities + 1;
        let (mut values, mut after) = (Vec::new(), None);
        loop {
            let limit = PAGE.min(most - values.len());
            let page = store.list(&self.pipeline, after.as_ref(), limit).await?;
            values.extend(page.values.into_iter().map(|(entity, _, value)| (entity, value)));
            after = page.next;
            if after.is_none() || values.len() >= most {
                return Ok(values);
            }
        }
    }

    async fn read(
        &self,
        store: &dyn AggregateStore,
        entities: &[Entity],
    ) -> StoreResult<Vec<Option<Aggregate>>> {
        let mut values = Vec::with_capacity(entities.len());
        for part in entities.chunks(PAGE) {
            let keys: Vec<_> = part.iter().map(|entity| (entity.clone(), Bucket::WHOLE)).collect();
            values.extend(store.get_many(&self.pipeline, &keys).await?);
        }
        Ok(values)
    }

    fn log_truncated(&self, truncated: bool) {
        let (pipeline, most) = (self.pipeline.name.as_str(), self.settings.max_entities);
        if truncated {
            tracing::warn!(pipeline, most, "a pipeline has more entities than it may export");
        } else {
            tracing::info!(pipeline, "all entities of a pipeline are exported again");
        }
    }
}

#[cfg(test)]
mod tests;
