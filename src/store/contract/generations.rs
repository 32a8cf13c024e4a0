//! The contract of generations. What holds for all resources is said in the parent module.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::StoreResult;
use crate::model::generations::{Generation, GenerationKey};
use crate::model::settings;

/// `[generations]`, as far as the store needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct GenerationSettings {
    /// The most keys with a generation above 0.
    #[serde(deserialize_with = "settings::count")]
    pub max_generations: usize,
}

/// Generations. An unknown key has the generation 0; its first bump makes it 1.
///
/// Invariant: a fence that was returned for a key is never valid after a bump of that key was
/// acknowledged: not when the key was cleaned up and bumped anew, not after a restart, not on a lost,
/// wiped or restored store. Before that it is valid, unless a restart or a cleanup raised the
/// minimum fence beyond it.
#[async_trait]
pub trait GenerationStore: Send + Sync {
    /// Reads generations, in the order of `keys`. Does not touch the time of a key's last bump.
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>>;

    /// Raises the generation of each key by one, atomically for each; returns the new
    /// generations in the order of `keys`. A key that is named twice is raised once.
    ///
    /// A repetition after a transient error may raise keys once more, as a bump by another client
    /// would.
    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>>;

    /// Removes the keys that were not bumped for `retention`; returns how many. Fences that were
    /// returned for them, or for unknown keys, may become invalid; those of other keys stay valid.
    /// Each key is a step of its own: one that is bumped meanwhile stays.
    async fn cleanup(&self, retention: Duration) -> StoreResult<u64>;
}
