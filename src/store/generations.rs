//! The contract of generations; what holds for all resources stands in the module above.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreResult;
use crate::model::generations::{Generation, GenerationKey};

/// Generations. A key that is not known has the number 0; its first bump gives 1.
///
/// Invariant: a fence that was given for a key holds until a bump of that key has been answered,
/// and never again after that: not when the key was forgotten and bumped anew, not after a
/// restart, not on a lost, wiped or restored store.
#[async_trait]
pub trait GenerationStore: Send + Sync {
    /// Reads generations, in the order of `keys`. Does not touch the time of a key's last bump.
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>>;

    /// Raises the generation of each key by one, atomically for each; gives what stands
    /// then, in the order of `keys`. A key that stands twice is raised once.
    ///
    /// A repetition after a transient error may raise keys once more, which nobody can tell from
    /// somebody else's bump.
    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>>;

    /// Forgets the keys that were not bumped for `retention`; gives how many. The fences that
    /// were given for them may hold no more, but never hold wrongly.
    async fn cleanup(&self, retention: Duration) -> StoreResult<u64>;
}
