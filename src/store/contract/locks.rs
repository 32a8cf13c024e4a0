//! The contract of locks. What holds for all resources is said in the parent module.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::StoreResult;
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::settings;
use crate::model::time::Timestamp;

/// `[locks]`, as far as the store needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct LockSettings {
    /// The most live locks.
    #[serde(deserialize_with = "settings::count")]
    pub max_locks: usize,
}

/// How an attempt to acquire a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockOutcome {
    /// The caller acquired it.
    pub acquired: bool,
    /// When the lock expires, also where another caller acquired it.
    pub expires_at: Timestamp,
}

/// Locks without a holder. Exactly one of any number of concurrent callers gets a lock. Only that caller knows the
/// token under which it is held.
///
/// A repetition after a transient error may find that the first attempt got the lock.
#[async_trait]
pub trait LockStore: Send + Sync {
    /// Claims every key that is free, in one step; outcomes in the order of `keys`. A key that
    /// is named twice is acquired at its first position only. What is acquired is held under `token`.
    async fn acquire(
        &self,
        keys: Vec<LockKey>,
        ttl: Duration,
        token: ReleaseToken,
    ) -> StoreResult<Vec<LockOutcome>>;

    /// Frees a lock that is held under `token`, or under any token where `None`; returns whether it was held so. A lock
    /// that has expired, or that was acquired again under another token, is not.
    async fn release(&self, key: &LockKey, token: Option<ReleaseToken>) -> StoreResult<bool>;

    /// Returns when a lock expires; `None` when it is free.
    async fn get(&self, key: &LockKey) -> StoreResult<Option<Timestamp>>;

    /// Reads the locks of a kind that are held, and when each expires: sorted by key, after the key `after`, at most
    /// `limit`. Each was held at some moment of the call; one that is held during the whole call is among them.
    async fn list(
        &self,
        kind: LockKind,
        after: Option<&str>,
        limit: usize,
    ) -> StoreResult<Vec<(LockKey, Timestamp)>>;
}
