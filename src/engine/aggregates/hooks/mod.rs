//! Hooks: the notes of what was merged, and who reads them.
//!
//! * `settings.rs`: how hooks are declared.
//!
//! Not how notes are kept, which the store does in the step that merges.
//! Invariant: readers of notes never wait for each other, and no merge waits for them.

pub(super) mod settings;

use std::time::Duration;

use tokio::time::Instant;

use super::{AggregateEngine, DeclaredPipeline};
use crate::engine::error::{EngineError, EngineResult};
use crate::store::{After, ErrorKind, NoteLimits, NotePage, OutboxStore, StoreError};

impl AggregateEngine {
    /// Reads the notes of a pipeline after `after`; when there are none, waits for up to `wait`. Returns `None` when
    /// notes after this cursor have left.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when the pipeline has no stream; failures of the store.
    pub async fn notes(
        &self,
        declared: &DeclaredPipeline,
        after: After<'_>,
        limits: NoteLimits,
        wait: Duration,
    ) -> EngineResult<Option<NotePage>> {
        let pipeline = declared.pipeline();
        if !pipeline.hook.as_ref().is_some_and(|hook| hook.stream) {
            return Err(EngineError::NotFound("stream of the pipeline"));
        }
        let outbox = self.outbox()?;
        // Subscribed before the first read, so that no note is missed between the read and the wait.
        let mut signal = outbox.note_changes();
        let deadline = Instant::now() + wait;
        loop {
            let page = outbox.notes(pipeline, after, limits).await?;
            if page.as_ref().is_none_or(|page| !page.notes.is_empty()) {
                return Ok(page);
            }
            // The signal fails when the store is gone, which the next read then says.
            if tokio::time::timeout_at(deadline, signal.changed()).await.is_err() {
                return Ok(page);
            }
        }
    }

    fn outbox(&self) -> EngineResult<&dyn OutboxStore> {
        let unsupported = || StoreError::new(ErrorKind::Unsupported, "no hooks");
        Ok(self.outbox.as_deref().ok_or_else(unsupported)?)
    }
}
