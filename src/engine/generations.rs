//! The rules of generations: none beyond those of the store.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::error::EngineResult;
use crate::model::generations::{Generation, GenerationKey};
use crate::model::settings;
use crate::store::GenerationStore;

/// `[generations]`: the cleanup, which is off where one of the two is `None`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct GenerationRules {
    /// How long a generation is kept that is not bumped.
    #[serde(deserialize_with = "settings::optional_duration")]
    pub retention: Option<Duration>,
    /// The time between two cleanups.
    #[serde(deserialize_with = "settings::optional_duration")]
    pub cleanup_interval: Option<Duration>,
}

/// Generations.
pub struct GenerationEngine {
    store: Arc<dyn GenerationStore>,
}

impl GenerationEngine {
    pub(super) fn new(store: Arc<dyn GenerationStore>) -> Self {
        Self { store }
    }

    /// Reads generations, in the order of `keys`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn snapshot(&self, keys: &[GenerationKey]) -> EngineResult<Vec<Generation>> {
        Ok(self.store.snapshot(keys).await?)
    }

    /// Bumps each key; returns the generations after that, in the order of `keys`.
    ///
    /// # Errors
    /// When the store fails. Some keys may have been bumped then.
    pub async fn bump(&self, keys: Vec<GenerationKey>) -> EngineResult<Vec<Generation>> {
        Ok(self.store.bump(keys).await?)
    }

    /// Forgets the keys that were not bumped for `retention`; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cleanup(&self, retention: Duration) -> EngineResult<u64> {
        Ok(self.store.cleanup(retention).await?)
    }
}
