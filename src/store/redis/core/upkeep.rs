//! What the store as a whole asks of each resource. A resource that implements this and stands in the
//! list of `open` is purged and reported.

use async_trait::async_trait;

use crate::store::{ResourceStatus, StoreResult};

/// The upkeep of one resource.
#[async_trait]
pub(crate) trait Upkeep: Send + Sync {
    /// Purges what has expired in all shards, in steps of bounded size; returns how many entries.
    ///
    /// # Errors
    /// When Redis fails; some entries may be purged then.
    async fn purge(&self) -> StoreResult<u64>;

    /// Returns how much is held in all shards.
    ///
    /// # Errors
    /// When Redis fails.
    async fn status(&self) -> StoreResult<Vec<ResourceStatus>>;
}
