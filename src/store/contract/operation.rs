//! The contract of what concerns a store as a whole: what it can do, how it is, its end.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreResult;
use crate::model::cursor::Cursor;

/// What a backend can do and how well: data, so that no layer above asks which backend it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: &'static str,
    /// Acknowledged durable writes survive the end of the process.
    pub survives_restart: bool,
    /// Acknowledged durable writes survive a power cut.
    pub survives_power_cut: bool,
    /// Acknowledged writes are never lost because another server of the store takes over; true where there is no other
    /// one. Where not, the last writes before a failover can be lost: what was acquired may be acquired by another
    /// caller, what was released or deleted may be back, a checkpoint or a sample may be older, a bump may be forgotten.
    /// A server that was cut off may serve what is out of date until it notices.
    pub survives_failover: bool,
    /// Other replicas see the same data. The time is that of the store, in whole milliseconds. Queues and waiters are
    /// those of one replica: what happens at another one is noticed after a moment.
    pub shared: bool,
    /// A fence is checked in the same atomic step as the write. Where not, a write that was admitted
    /// may still be running when its lease expires; an acquisition or a release returns only after
    /// every shard knows of it, so no write under an earlier token happens afterwards. Where a failover loses the
    /// acquisition or the release itself ([`Self::survives_failover`]), the former holder has the lease again until its
    /// ttl ends.
    pub atomic_fencing: bool,
    /// A batch of several keys or series is one atomic step. Where not, it is checked as a whole first,
    /// then each shard applies its part in one step. A failure or a refusal in between leaves some parts applied,
    /// and the error says so; sending the batch again completes it.
    pub atomic_batches: bool,
    /// The limits on live series, locks, leases, checkpoints, generations and aggregates are exact: a batch is refused only when all
    /// entries together would exceed one. Where not, each shard has an equal part of the limit, and a batch is refused
    /// when one of its shards is full, though others have room. The limit is never exceeded either way.
    pub exact_budget: bool,
    /// Of how many shards the store is made that number their changes, and remember their
    /// deletions, on their own: there is no order between the changes of two shards, and a snapshot is that of each
    /// shard at a moment of its own. A cached value lies in the shard of its generation's key, and each
    /// shard has its part of what may be cached.
    pub shards: usize,
}

/// What a store reports about itself, for /metrics and /v1/status.
///
/// Resources report themselves, as entries, so that a new one needs no field here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreStatus {
    /// What is held, one entry for each resource, sorted as the backend lists its resources.
    pub resources: Vec<ResourceStatus>,
    /// The position of the newest change of series, where the backend reads it along: a reader of deltas that is there
    /// already needs none.
    pub newest: Option<Cursor>,
    /// Buffered writes that are not on disk yet.
    pub unflushed: u64,
    /// How long the oldest of them has been waiting.
    pub oldest_unflushed: Duration,
    /// Flushes that failed since the start.
    pub flush_failures: u64,
    /// Commits of durable writes that failed since the start.
    pub commit_failures: u64,
    /// Groups of durable writes that were committed since the start.
    pub commits: u64,
    /// Durable writes in those groups.
    pub committed_writes: u64,
}

impl StoreStatus {
    /// Returns the number of entries of a resource; 0 for one that is not listed.
    pub fn entries(&self, resource: &str) -> u64 {
        self.find(resource).map_or(0, |status| status.entries)
    }

    /// Returns what the entries of a resource take, in bytes; 0 where it does not count them.
    pub fn bytes(&self, resource: &str) -> u64 {
        self.find(resource).and_then(|status| status.bytes).unwrap_or(0)
    }

    fn find(&self, resource: &str) -> Option<&ResourceStatus> {
        self.resources.iter().find(|status| status.resource == resource)
    }
}

/// How much of one resource is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceStatus {
    /// The resource, as it is called in paths and labels: `series`, `locks`.
    pub resource: &'static str,
    /// Live entries.
    pub entries: u64,
    /// What they take in bytes, with their keys, where the resource is bounded in bytes.
    pub bytes: Option<u64>,
    /// The most live entries, where their number has a limit.
    pub limit: Option<u64>,
    /// The most bytes of all entries, where that has a limit.
    pub bytes_limit: Option<u64>,
}

impl ResourceStatus {
    /// Makes the status of a resource that is counted in bytes, too.
    pub fn sized(resource: &'static str, entries: u64, bytes: u64) -> Self {
        Self { resource, entries, bytes: Some(bytes), limit: None, bytes_limit: None }
    }

    /// Makes the status of a resource that is counted in entries only.
    pub fn counted(resource: &'static str, entries: u64) -> Self {
        Self { resource, entries, bytes: None, limit: None, bytes_limit: None }
    }

    /// Adds the most live entries that there may be.
    #[must_use]
    pub fn limited(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Adds the most bytes that all entries may have together.
    #[must_use]
    pub fn limited_in_bytes(self, limit: u64) -> Self {
        Self { bytes_limit: Some(limit), ..self }
    }
}

/// How the client of a store on the network does, since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientStatus {
    /// Round trips that run.
    pub in_flight: u64,
    /// Round trips that failed: no reply, none in time, or a refusal.
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
    /// Returns what the backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Returns whether the store can serve now, and if not why.
    async fn ready(&self) -> Result<(), String>;

    /// Waits until the store has failed for good in this process, and returns why. Transient
    /// failures do not count, nor does [`Self::close`].
    async fn lost(&self) -> String {
        std::future::pending().await
    }

    /// Waits until [`Self::check_backend`] is due, where the backend can tell before the next second.
    async fn check_wanted(&self) {
        std::future::pending().await
    }

    /// Checks for what others may have done to the backend, such as a Redis that was restarted
    /// with less data than it had; does nothing where a read of the status has just done so. To be called once a
    /// second, and when it is wanted.
    async fn check_backend(&self) -> StoreResult<()> {
        Ok(())
    }

    /// Waits until enough buffered writes have gathered for a flush before the flush interval
    /// ends.
    async fn flush_wanted(&self);

    /// Writes every buffered write to disk; returns how many.
    async fn flush(&self) -> StoreResult<u64>;

    /// Purges what has expired; returns how many entries.
    async fn collect_garbage(&self) -> StoreResult<u64>;

    /// Reports on the store.
    async fn status(&self) -> StoreResult<StoreStatus>;

    /// Reports on the client of a store on the network; `None` where there is none.
    fn client_status(&self) -> Option<ClientStatus> {
        None
    }

    /// Closes the store: a last flush, then every file is closed. Calls afterwards fail as
    /// [`super::ErrorKind::Unavailable`].
    async fn close(&self) -> StoreResult<()>;
}
