//! The contract of every backend: one trait per resource.
//!
//! What holds for all of them:
//! * *Atomic.* Each method is one step: it happens whole or not at all, and readers never see
//!   a part of it.
//! * *Absence is an answer*: `Option`, or a variant of an outcome. An error means that the store
//!   could not do its work, never "no".
//! * *Expiry is exact.* No read returns what has expired, also before anything removed it. The
//!   backend's own clock decides.
//! * *Retries.* A method that failed with a transient error may be called again, except where its
//!   documentation says what a repetition does.
//! * *Fences.* A write that takes a [`Fence`] checks it in the same atomic step as it
//!   writes, and does nothing when the lease is not held under that token now.
//! * *Durability.* Locks, leases, checkpoints and generations are strong: on disk before the
//!   answer, as far as [`Capabilities`] says. Series are weak: in memory at once, on disk with the
//!   next flush. Cached values may be lost at any time.

mod cache;
pub mod embedded;
mod error;
mod generations;
pub mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

pub use self::cache::{
    CacheAddress, CachePut, CacheRead, CacheSettings, CacheStore, FillOutcome, PutOutcome,
};
pub use self::error::{ErrorKind, StoreError};
pub use self::generations::GenerationStore;
use crate::model::batch::PointBatch;
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::cursor::Cursor;
use crate::model::leases::{Fence, FencingToken, Holder, Lease, LeaseName};
use crate::model::locks::LockKey;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::model::time::Timestamp;

/// The outcome of a store's method.
pub type StoreResult<T> = Result<T, StoreError>;

/// Everything that a server keeps, by resource.
#[derive(Clone)]
pub struct Stores {
    /// The series.
    pub series: Arc<dyn SeriesStore>,
    /// The locks.
    pub locks: Arc<dyn LockStore>,
    /// The leases.
    pub leases: Arc<dyn LeaseStore>,
    /// The checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The generations.
    pub generations: Arc<dyn GenerationStore>,
    /// The cached values.
    pub cache: Arc<dyn CacheStore>,
    /// What concerns the store as a whole.
    pub operation: Arc<dyn Operation>,
}

/// What a backend can do and how well: data, so that no floor above asks which backend it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: &'static str,
    /// Acknowledged strong writes survive the end of the process.
    pub survives_restart: bool,
    /// Acknowledged strong writes survive a power cut.
    pub survives_power_cut: bool,
    /// Other replicas see the same data.
    pub shared: bool,
    /// A fence and the write that it guards are one atomic step. Where not, a write that was let pass
    /// may still be under way when its lease ends by itself; a lease that was acquired or
    /// released was told to all parts before that was answered.
    pub atomic_fencing: bool,
    /// A batch of several keys or series is one atomic step. Where not, it is checked as a whole first,
    /// then each part of the store takes its share in one step, and a failure in between leaves
    /// some done; sending it again completes it.
    pub atomic_batches: bool,
    /// Of how many parts the store is made that number their changes, and remember their
    /// deletions, on their own. A cached value lies in the part of its generation's key, and each
    /// part has its share of what may be cached.
    pub parts: usize,
}

/// What a fenced write answers when its fence does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced<T> {
    /// The fence held, or there was none.
    Done(T),
    /// The lease is not held under this token: nothing was changed.
    Refused,
}

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

    /// Gives the cursor of now.
    async fn cursor(&self) -> StoreResult<Cursor>;

    /// Reads what changed after `after`, oldest first, at most `limit` series.
    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta>;

    /// Gives a value that changes whenever there may be something new for [`Self::delta`].
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

/// How an attempt to get a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockOutcome {
    /// The caller is the one that got it.
    pub acquired: bool,
    /// When the lock ends, whoever has it.
    pub expires_at: Timestamp,
}

/// Locks without a holder. Exactly one of any number of concurrent callers gets a lock.
///
/// A repetition after a transient error may find that the first attempt got the lock.
#[async_trait]
pub trait LockStore: Send + Sync {
    /// Claims every key that is free, in one step; outcomes in the order of `keys`. A key that
    /// stands twice is acquired at its first place only.
    async fn acquire(&self, keys: Vec<LockKey>, ttl: Duration) -> StoreResult<Vec<LockOutcome>>;

    /// Gives when a lock ends; `None` when it is free.
    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>>;
}

/// How an attempt to get a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireOutcome {
    /// The caller holds the lease.
    Acquired(Lease),
    /// Somebody else does.
    Held(Lease),
}

/// Leases. A token, once given, is greater than all that were given before it, for ever.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes the lease when it is free or already held by the same `holder`; the latter
    /// gets a new token, so that an earlier incarnation of the holder is fenced off.
    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome>;

    /// Makes the lease last `ttl` (its own when `None`) from now; `None` when it is not held
    /// under `token` now.
    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>>;

    /// Ends the lease; `false` when it is not held under `token` now.
    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool>;

    /// Reads a lease; `None` when nobody holds it.
    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>>;

    /// Reads all leases that are held, sorted by name, beginning behind `after`, at most `limit`.
    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>>;
}

/// How a write of a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointOutcome {
    /// It stands now.
    Stored(Checkpoint),
    /// A later one stands and `if_later` was asked for; nothing was changed.
    NotLater(Checkpoint),
}

/// Checkpoints. They expire with the configured retention, counted from their last write.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Writes a checkpoint; with `if_later` only when none stands that is later.
    async fn set(
        &self,
        key: CheckpointKey,
        checkpoint: Timestamp,
        if_later: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<CheckpointOutcome>>;

    /// Reads a checkpoint.
    async fn get(&self, key: &CheckpointKey) -> StoreResult<Option<Checkpoint>>;

    /// Deletes a checkpoint; tells whether it was there.
    async fn delete(&self, key: CheckpointKey, fence: Option<Fence>) -> StoreResult<Fenced<bool>>;

    /// Reads the checkpoints of `org` (of all when `None`), sorted by key, beginning
    /// behind `after`, at most `limit`.
    async fn list(
        &self,
        org: Option<&str>,
        after: Option<&CheckpointKey>,
        limit: usize,
    ) -> StoreResult<Vec<(CheckpointKey, Checkpoint)>>;
}

/// What a store reports about itself, for /metrics and /v1/status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreStatus {
    /// Live series.
    pub series: u64,
    /// Deletions that are still remembered.
    pub tombstones: u64,
    /// Locks that are held.
    pub locks: u64,
    /// Leases that are held.
    pub leases: u64,
    /// Checkpoints that stand.
    pub checkpoints: u64,
    /// Keys with a generation above 0.
    pub generations: u64,
    /// Cached values.
    pub cached_values: u64,
    /// What they take, in bytes, with their keys.
    pub cached_bytes: u64,
    /// Weak writes that are not on disk yet.
    pub unflushed: u64,
    /// How long the oldest of them has been waiting.
    pub oldest_unflushed: Duration,
    /// Flushes that failed since the start.
    pub flush_failures: u64,
    /// Groups of strong writes that were committed since the start.
    pub commits: u64,
    /// Strong writes in those groups.
    pub committed_writes: u64,
}

/// How the line to a store on the network does, since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkStatus {
    /// Round trips that run.
    pub in_flight: u64,
    /// Round trips that failed: no answer, none in time, or a refusal.
    pub failures: u64,
    /// Round trips that ended within so many seconds, for each of a few bounds, growing.
    pub within_seconds: Vec<(f64, u64)>,
    /// Round trips that ended.
    pub round_trips: u64,
    /// How long these took together, in seconds.
    pub seconds: f64,
}

/// What concerns the store as a whole.
#[async_trait]
pub trait Operation: Send + Sync {
    /// Gives what the backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Tells whether the store can serve now, and if not why.
    async fn ready(&self) -> Result<(), String>;

    /// Waits until the store can't serve any more, nor ever will in this process, and says why.
    /// Trouble that may pass is none of this, and neither is [`Self::close`].
    async fn lost(&self) -> String {
        std::future::pending().await
    }

    /// Looks after what others may have done to the store, such as a Redis that was started
    /// again with less than it had. To be called every second or so.
    async fn keep_watch(&self) -> StoreResult<()> {
        Ok(())
    }

    /// Waits until so many weak writes wait for the disk that a flush is worth while before
    /// its time has come.
    async fn flush_wanted(&self);

    /// Brings every weak write to disk; gives how many.
    async fn flush(&self) -> StoreResult<u64>;

    /// Removes what has expired; gives how much.
    async fn collect_garbage(&self) -> StoreResult<u64>;

    /// Reports on the store.
    async fn status(&self) -> StoreResult<StoreStatus>;

    /// Reports on the line to the store; `None` where there is none.
    fn link(&self) -> Option<LinkStatus> {
        None
    }

    /// Ends the store: a last flush, then every file is closed. Calls afterwards fail as
    /// [`ErrorKind::Unavailable`].
    async fn close(&self) -> StoreResult<()>;
}
