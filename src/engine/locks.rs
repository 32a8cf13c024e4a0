//! The rules of locks: one release token for each acquisition, which only the caller that got locks learns.
//!
//! Not who may release a lock without it: `http` checks that.
//! Invariant: two acquisitions never have the same token.

use std::sync::Arc;
use std::time::Duration;

use super::error::EngineResult;
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{ErrorKind, LockOutcome, LockStore, StoreError, StoreResult};

/// How an attempt to acquire locks ended.
#[derive(Debug)]
pub struct Acquisition {
    /// The outcomes, in the order of the keys.
    pub outcomes: Vec<LockOutcome>,
    /// What releases each of the acquired locks; `None` when there are none.
    pub release_token: Option<ReleaseToken>,
}

/// Locks.
pub struct LockEngine {
    store: Arc<dyn LockStore>,
}

impl LockEngine {
    pub(super) fn new(store: Arc<dyn LockStore>) -> Self {
        Self { store }
    }

    /// Acquires every key that is free, for `ttl`.
    ///
    /// # Errors
    /// When the store fails, which is never reported as "not acquired".
    pub async fn acquire(&self, keys: Vec<LockKey>, ttl: Duration) -> EngineResult<Acquisition> {
        let token = new_token()?;
        let outcomes = self.store.acquire(keys, ttl, token).await?;
        let acquired_any = outcomes.iter().any(|outcome| outcome.acquired);
        Ok(Acquisition { outcomes, release_token: acquired_any.then_some(token) })
    }

    /// Frees a lock that is held under `token`, or under any token where `None`; returns whether it was.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&self, key: &LockKey, token: Option<ReleaseToken>) -> EngineResult<bool> {
        Ok(self.store.release(key, token).await?)
    }

    /// Returns when a lock expires; `None` when it is free.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, key: &LockKey) -> EngineResult<Option<Timestamp>> {
        Ok(self.store.get(key).await?)
    }

    /// Reads the locks of a kind that are held, and when they expire, after the key `after`, at most `limit`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        kind: LockKind,
        after: Option<&str>,
        limit: usize,
    ) -> EngineResult<Vec<(LockKey, Timestamp)>> {
        Ok(self.store.list(kind, after, limit).await?)
    }
}

fn new_token() -> StoreResult<ReleaseToken> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        let detail = format!("the system returns no random bytes: {error}");
        StoreError::new(ErrorKind::Internal, detail)
    })?;
    Ok(ReleaseToken(bytes))
}
