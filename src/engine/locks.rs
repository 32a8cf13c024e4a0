//! The rules of locks: only that a batch has its order and its outcome.

use std::sync::Arc;
use std::time::Duration;

use super::EngineResult;
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

    /// Claims every key that is free for `ttl`; outcomes in the order of `keys`.
    ///
    /// # Errors
    /// When the store fails: never as "not acquired".
    pub async fn acquire(
        &self,
        keys: Vec<LockKey>,
        ttl: Duration,
    ) -> EngineResult<Vec<LockOutcome>> {
        Ok(self.store.acquire(keys, ttl).await?)
    }

    /// Returns when a lock ends; `None` when it is free.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, key: &LockKey) -> EngineResult<Option<Timestamp>> {
        Ok(self.store.get(key).await?)
    }
}
