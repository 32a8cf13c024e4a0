//! The contract of series. What holds for all resources is said in the parent module.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use super::{Fenced, StoreResult};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::roles::RoleName;
use crate::model::selector::Selector;
use crate::model::series::{Metadata, Point, SeriesId, SeriesKey};
use crate::model::settings;

/// `[series]`, as far as the store needs it: what is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct SeriesSettings {
    /// How long a series lives from its last update.
    #[serde(deserialize_with = "settings::duration")]
    pub retention: Duration,
    /// A sample that is held further ahead of the clock than this is older than every new one.
    #[serde(deserialize_with = "settings::duration")]
    pub max_future_skew: Duration,
    /// The most live series.
    #[serde(deserialize_with = "settings::count")]
    pub max_series: usize,
    /// The most bytes of live series, see [`series_bytes`]. The keys of tombstones may take a quarter as much besides.
    #[serde(deserialize_with = "settings::bytes")]
    pub max_bytes: usize,
    /// The most tombstones that are kept for cursors.
    #[serde(deserialize_with = "settings::count")]
    pub max_tombstones: usize,
}

impl SeriesSettings {
    /// Returns how many bytes the keys of tombstones may have: what is kept of deletions is no more than a part of what
    /// is kept of series.
    pub fn max_tombstone_bytes(&self) -> usize {
        self.max_bytes / 4
    }
}

/// Returns how many bytes a series counts as: those of its name, its canonical labels, and the help text and the unit
/// of its metadata, as if it shared none of them with other series.
pub fn series_bytes(name: &str, labels: &str, metadata: Option<&Metadata>) -> usize {
    name.len() + labels.len() + metadata.map_or(0, Metadata::text_bytes)
}

/// Who changes series, and which of them.
#[derive(Debug, Clone, Default)]
pub struct SeriesWriter {
    /// The role of the series from this write on; `None` leaves the role that each has.
    pub role: Option<RoleName>,
    /// The roles whose series may be changed; `None` for those of all. A series that has no role may always be.
    pub may_change: Option<Arc<[RoleName]>>,
    /// What must hold for the write to happen.
    pub fence: Option<Fence>,
}

impl SeriesWriter {
    /// Makes a writer that may change every series, and leaves their roles.
    pub fn anybody() -> Self {
        Self::default()
    }

    /// As [`Self::anybody`], under a fence.
    pub fn fenced(fence: Fence) -> Self {
        Self { fence: Some(fence), ..Self::default() }
    }

    /// Returns whether the writer may change the series of a role.
    pub fn may_change(&self, role: &RoleName) -> bool {
        self.may_change.as_ref().is_none_or(|roles| roles.contains(role))
    }
}

/// The points or series that a writer may not change, since other roles have written these series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OthersSeries<T> {
    /// The first of them, at most [`OthersSeries::REPORTED`], each with the role that its series has.
    pub first: Vec<(T, RoleName)>,
    /// How many there are.
    pub total: usize,
}

impl OthersSeries<()> {
    /// The most that are reported one by one.
    pub const REPORTED: usize = 100;
}

impl<T> Default for OthersSeries<T> {
    fn default() -> Self {
        Self { first: Vec::new(), total: 0 }
    }
}

impl<T> OthersSeries<T> {
    /// Adds one.
    pub fn add(&mut self, what: T, role: &RoleName) {
        self.total += 1;
        if self.first.len() < OthersSeries::REPORTED {
            self.first.push((what, role.clone()));
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// How an upsert ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpsertOutcome {
    /// Every point was applied, or dropped as stale.
    Applied(UpsertCounts),
    /// Points are of series that the writer may not change, whatever their times; nothing was changed. They are named
    /// by their positions in the batch, in order.
    OthersSeries(OthersSeries<usize>),
    /// The batch would create more series than there is room for; nothing was changed.
    OverBudget {
        /// How many of the batch's series are new; where the budget is not exact, of those in full shards.
        new: usize,
        /// How many more series there was room for, in the same shards.
        room: usize,
    },
    /// The batch would make the series larger than there is room for; nothing was changed.
    OverBytes {
        /// By how many bytes the series would grow; more than they do where points of the batch are stale, or name a
        /// series twice. Where the budget is not exact, the growth in full shards.
        more: usize,
        /// By how many bytes they may grow, in the same shards.
        room: usize,
    },
}

/// What became of the points of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpsertCounts {
    /// Points that created a series.
    pub created: usize,
    /// Points that replaced an older or equally old sample.
    pub updated: usize,
    /// Points that were dropped: older than what is held, or already past the retention.
    pub stale: usize,
}

/// How a deletion ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// So many series were deleted, or matched in a dry run.
    Deleted(usize),
    /// Some of the series are of roles whose series the writer may not change; nothing was changed.
    OthersSeries(OthersSeries<SeriesId>),
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
        /// The cursor to continue from.
        next: Cursor,
        /// The newest change when the delta was read, or the `up_to` of the caller.
        head: Cursor,
        /// More changes up to `head` are available already.
        more: bool,
    },
    /// Tombstones after this cursor have been trimmed, or the cursor is of another epoch. The
    /// reader has to take a new snapshot.
    Gone,
}

/// The series.
///
/// The newest sample wins: a point older than what is held is dropped as stale. A point without a time is the
/// newest when it arrives. A sample that is held further ahead than `max_future_skew` was written by a wrong clock,
/// and wins against nothing. A series whose newest sample is older than the retention has expired. Expiry is a deletion like any
/// other: it has a sequence number in the order of changes.
///
/// A series has the role of the writer whose sample it holds. It loses it when it is deleted or expires. A writer that
/// may not change the series of some roles neither overwrites nor deletes them.
#[async_trait]
pub trait SeriesStore: Send + Sync {
    /// Applies a batch, all or nothing. Points of one series apply in their order.
    ///
    /// Idempotent as long as no newer sample comes in between. Costs as much as the batch has
    /// points, however many series are held.
    async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>>;

    /// Reads the series that any of `selectors` matches (all when there is none), sorted by
    /// name and then canonical labels, after `after`, at most `limit`.
    ///
    /// Writers don't wait for a scan, and a selector that names its metrics costs what these hold. A scan ends when
    /// its future is dropped. [`ErrorKind::Throttled`](super::ErrorKind::Throttled) when too many run already.
    ///
    /// A reader of several pages keeps the cursor of its *first* page: later pages may hold newer
    /// states, and the deltas after that cursor bring all pages to one state.
    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot>;

    /// Returns the current cursor.
    async fn cursor(&self) -> StoreResult<Cursor>;

    /// Reads what changed after `after`, oldest first, at most `limit` series.
    ///
    /// With `up_to`, a cursor of the same store, the series that changed after that are left out, so a reader
    /// of several parts that passes the `head` of the first one reads each series once.
    async fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta>;

    /// Returns a signal that changes whenever [`Self::delta`] may have something new.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Reads one series.
    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>>;

    /// Deletes one series; none where it does not exist.
    async fn delete(
        &self,
        id: SeriesId,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>>;

    /// Deletes the series that any of `selectors` matches, or only counts them with `dry_run`.
    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>>;

    /// Turns expired series into deletions now instead of at the next access; returns how many.
    async fn expire(&self) -> StoreResult<usize>;
}
