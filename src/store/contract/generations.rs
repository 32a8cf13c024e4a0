//! The contract of generations; what holds for all resources stands in the module above.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreResult;
use crate::model::generations::{Generation, GenerationKey};

/// Generations. A key that is not known has the number 0; its first bump gives 1.
///
/// Invariant: a fence that was given for a key never holds after a bump of that key has been
/// answered: not when the key was forgotten and bumped anew, not after a restart, not on a lost,
/// wiped or restored store. Until then it holds, unless the store was started again, or a cleanup
/// made it unable to tell.
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

    /// Forgets the keys that were not bumped for `retention`; gives how many. Fences that were
    /// given for them, or for keys that were not known, may hold no more; those of other keys go on.
    /// Each key is a step of its own: one that is bumped meanwhile stays.
    async fn cleanup(&self, retention: Duration) -> StoreResult<u64>;
}
