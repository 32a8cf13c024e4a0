//! The contract of the outbox: the notes of updates that were merged into pipelines with a hook.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::StoreResult;
use crate::model::cursor::Cursor;
use crate::model::hooks::{Note, OutboxState};
use crate::model::pipelines::Pipeline;

/// Where a reader of notes begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After<'a> {
    /// At the oldest note.
    Nothing,
    /// Behind the last note that the webhook has, or at the oldest note, where later ones were dropped.
    Delivered,
    /// Behind this cursor.
    Cursor(&'a Cursor),
}

/// The most that is read at a time. One note is read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteLimits {
    /// Notes.
    pub notes: usize,
    /// Bytes of their texts.
    pub bytes: usize,
}

/// Some notes of a pipeline, in the order in which their updates were merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotePage {
    /// The notes.
    pub notes: Vec<Note>,
    /// The cursor behind the last one.
    pub next: Cursor,
}

/// The outbox: for each pipeline with a hook, the notes of what was merged, in order.
///
/// *Whole.* A note is committed in the same step as its update is merged and its event id is remembered. So an update that
/// is merged has one note, and one that is not, such as a duplicate, has none. Deletions have none, either.
///
/// *Numbers.* The notes of a pipeline have growing sequence numbers, and no number comes twice, not even where notes that
/// were committed were lost. The numbers have gaps.
///
/// *Bounds.* A note leaves once the webhook has it; where the hook has a stream, it stays until newer notes need its room.
/// When a pipeline's notes would be more than they may, in number or in bytes, the oldest leave, and those that the
/// webhook does not have are counted as dropped. The newest note stays in any case. No merge is refused for the outbox.
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// Reads the next notes; returns `None` when notes after this cursor have left, or when the cursor is of an outbox
    /// that was removed.
    async fn notes(
        &self,
        pipeline: &Arc<Pipeline>,
        after: After<'_>,
        limits: NoteLimits,
    ) -> StoreResult<Option<NotePage>>;

    /// Remembers that the webhook has all notes up to `cursor`. An earlier cursor changes nothing.
    async fn set_delivered(&self, pipeline: &Arc<Pipeline>, cursor: &Cursor) -> StoreResult<()>;

    /// Reports on the outbox of a pipeline.
    async fn outbox_state(&self, pipeline: &Arc<Pipeline>) -> StoreResult<OutboxState>;

    /// Begins outboxes for `pipelines` that have none, and removes those of all other pipelines. Called once, before
    /// anything is merged.
    async fn open_outboxes(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<()>;

    /// Returns a signal that changes whenever [`Self::notes`] may have something new.
    fn note_changes(&self) -> watch::Receiver<u64>;
}
