//! The contract of every backend: one trait per resource.
//!
//! What holds for all of them:
//! * *Atomic.* Each method is one step: it happens whole or not at all, and readers never see
//!   a part of it.
//! * *Absence is an outcome*: `Option`, or a variant of an enum. An error means that the store
//!   could not do its work, never "no".
//! * *Expiry is exact.* No read returns what has expired, whether it has been purged or not. The
//!   backend's own clock decides.
//! * *Retries.* A method that failed with a transient error may be called again, except where its
//!   documentation says what a repetition does.
//! * *Limits.* A write that would make more live entries than a resource may have fails as
//!   [`ErrorKind::LimitReached`]. The limit is exact under any races; where [`Capabilities::exact_budget`] is
//!   false, each shard has an equal part of it.
//! * *Fences.* A write that takes a [`Fence`](crate::model::leases::Fence) checks it in the same atomic step as it
//!   writes, and does nothing when the lease is not held under that token now.
//! * *Durability.* Locks, leases, checkpoints, generations and aggregates are durable: on disk before the
//!   method returns, as far as [`Capabilities`] says. Series are buffered: in memory at once, on disk with the
//!   next flush. Cached values may be lost at any time.

mod aggregates;
mod cache;
mod checkpoints;
mod error;
mod fenced;
mod generations;
mod leases;
mod locks;
mod operation;
mod outbox;
mod series;
mod settings;

use std::sync::Arc;

pub use self::aggregates::{
    AggregatePage, AggregateSettings, AggregateStore, Combined, DeclarationChanged, Merge,
    MergeOutcome,
};
pub use self::cache::{
    CacheAddress, CachePut, CacheRead, CacheSettings, CacheStore, FillOutcome, PutOutcome,
};
pub use self::checkpoints::{CheckpointOutcome, CheckpointSettings, CheckpointStore};
pub use self::error::{ErrorKind, Limited, StoreError};
pub use self::fenced::Fenced;
pub use self::generations::{GenerationSettings, GenerationStore};
pub use self::leases::{AcquireOutcome, LeaseSettings, LeaseStore};
pub use self::locks::{LockOutcome, LockSettings, LockStore};
pub use self::operation::{Capabilities, ClientStatus, Operation, ResourceStatus, StoreStatus};
pub use self::outbox::{After, NoteLimits, NotePage, OutboxStore};
pub use self::series::{
    Change, DeleteOutcome, Delta, OthersSeries, SeriesSettings, SeriesStore, SeriesWriter,
    Snapshot, UpsertCounts, UpsertOutcome, series_bytes,
};
pub use self::settings::{FlushSettings, PurgeSettings, StoreSettings};

/// What a method of a store returns.
pub type StoreResult<T> = Result<T, StoreError>;

/// The stores of all resources. A resource is one line here.
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
    /// The aggregates; `None` where the backend has none.
    pub aggregates: Option<Arc<dyn AggregateStore>>,
    /// The notes of merges; `None` where the backend has none, and no pipeline can have a hook.
    pub outbox: Option<Arc<dyn OutboxStore>>,
    /// What concerns the store as a whole.
    pub operation: Arc<dyn Operation>,
}
