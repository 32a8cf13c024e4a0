//! The contract of series; what holds for all resources stands in the module above.

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Fenced, StoreResult};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};

/// How an upsert ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsertOutcome {
    /// Every point was applied, or dropped as stale.
    Applied(UpsertCounts),
    /// The batch would create more series than there is room for; nothing was changed.
    OverBudget {
        /// How many of the batch's series are new.
        new: usize,
        /// How many more series there was room for.
        room: usize,
    },
}

/// What became of the points of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpsertCounts {
    /// Points that made a new series.
    pub created: usize,
    /// Points that replaced an older or equally old sample.
    pub updated: usize,
    /// Points that were dropped: older than what is held, or already past the retention.
    pub stale: usize,
}

/// Some of the live series, in the order of their keys, and the cursor of the moment they were read at.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The series.
    pub points: Vec<Point>,
    /// The last change that `points` include.
    pub cursor: Cursor,
    /// More series follow after the last of `points`.
    pub more: bool,
}

/// One series that changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The series was created or updated; this is its newest state.
    Upserted(Point),
    /// The series was deleted, or has expired.
    Deleted(SeriesKey),
}

/// What changed after a cursor.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// The changes.
    Changes {
        /// Each series at most once, at its newest state.
        changes: Vec<Change>,
        /// What to ask with next.
        next: Cursor,
        /// More changes are there already.
        more: bool,
    },
    /// Deletions after this cursor have been forgotten, or it belongs to another life of the
    /// store. Only a new snapshot helps.
    Gone,
}

/// The series.
///
/// The newest sample wins: a point older than what is held is dropped as stale. A series
/// whose newest sample is older than the retention has expired, which is a deletion like any
/// other: it has a place in the order of changes.
#[async_trait]
pub trait SeriesStore: Send + Sync {
    /// Applies a batch, all or nothing. Points of one series apply in their order.
    ///
    /// Idempotent as long as no newer sample comes in between. Costs as much as the batch has
    /// points, however many series are held.
    async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>>;

    /// Reads the series that any of `selectors` matches (all when there is none), sorted by
    /// name and then canonical labels, beginning behind `after`, at most `limit`.
    ///
    /// A reader that pages keeps the cursor of its *first* page: later pages may hold newer
    /// states, and the deltas after that cursor bring all pages to one moment.
    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot>;

    /// Returns the cursor of now.
    async fn cursor(&self) -> StoreResult<Cursor>;

    /// Reads what changed after `after`, oldest first, at most `limit` series.
    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta>;

    /// Returns a value that changes whenever there may be something new for [`Self::delta`].
    fn changes(&self) -> watch::Receiver<u64>;

    /// Reads one series.
    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>>;

    /// Deletes one series; tells whether it was there.
    async fn delete(&self, id: SeriesId, fence: Option<Fence>) -> StoreResult<Fenced<bool>>;

    /// Deletes what any of `selectors` matches, or with `dry_run` only counts it.
    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>>;

    /// Turns expired series into deletions now instead of at the next access; gives how many.
    async fn expire(&self) -> StoreResult<usize>;
}
