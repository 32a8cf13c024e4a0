//! What the store as a whole asks of each resource. A resource that implements this and stands in the
//! list of `open` is purged and reported.

use async_trait::async_trait;

use redis::Value;

use crate::model::cursor::Cursor;
use crate::store::{ResourceStatus, StoreResult};

/// What a resource adds to the script that reads the status of a shard.
#[derive(Debug)]
pub(crate) struct StatusPart {
    /// The keys behind `info`, without the prefix of the shard.
    pub(crate) keys: &'static [&'static str],
    /// What it runs behind `epoch_check.lua`, with `KEYS` and `ARGV` as if it ran alone. It returns what
    /// [`Upkeep::report`] reads, or a simple string where it has to run again first.
    pub(crate) text: &'static [&'static str],
    /// `ARGV` behind the first.
    pub(crate) arguments: Vec<String>,
}

/// What a resource reports.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) resources: Vec<ResourceStatus>,
    /// As in [`StoreStatus`](crate::store::StoreStatus).
    pub(crate) newest: Option<Cursor>,
}

impl From<ResourceStatus> for Report {
    fn from(status: ResourceStatus) -> Self {
        Self { resources: vec![status], newest: None }
    }
}

/// The upkeep of one resource.
#[async_trait]
pub(crate) trait Upkeep: Send + Sync {
    /// Purges what has expired in all shards, in steps of bounded size; returns how many entries.
    ///
    /// # Errors
    /// When Redis fails; some entries may be purged then.
    async fn purge(&self) -> StoreResult<u64>;

    /// Returns what reads how much is held in a shard.
    fn status_part(&self) -> StatusPart;

    /// Returns how much is held in all shards: `replies` are those of [`Self::status_part`], in the order of the shards.
    ///
    /// # Errors
    /// When a reply has an unknown shape.
    fn report(&self, replies: Vec<Value>) -> StoreResult<Report>;
}
