//! The rules of locks: none beyond those of the store.

use std::sync::Arc;
use std::time::Duration;

use super::error::EngineResult;
use crate::model::locks::LockKey;
use crate::model::time::Timestamp;
use crate::store::{LockOutcome, LockStore};

/// Locks.
pub struct LockEngine {
    store: Arc<dyn LockStore>,
}

impl LockEngine {
    pub(super) fn new(store: Arc<dyn LockStore>) -> Self {
        Self { store }
    }

    /// Acquires every key that is free, for `ttl`; returns the outcomes in the order of `keys`.
    ///
    /// # Errors
    /// When the store fails, which is never reported as "not acquired".
    pub async fn acquire(
        &self,
        keys: Vec<LockKey>,
        ttl: Duration,
    ) -> EngineResult<Vec<LockOutcome>> {
        Ok(self.store.acquire(keys, ttl).await?)
    }

    /// Returns when a lock expires; `None` when it is free.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, key: &LockKey) -> EngineResult<Option<Timestamp>> {
        Ok(self.store.get(key).await?)
    }
}
