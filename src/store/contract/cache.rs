//! The contract of the cache; what holds for all resources stands in the module above.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreResult;
use crate::model::cache::{CacheKey, CachedValue, ContentType, FillToken, MissReason};
use crate::model::generations::{Generation, GenerationKey, Seen};
use crate::model::time::Timestamp;

/// How much is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes of values and keys over all namespaces.
    pub max_bytes: usize,
    /// The most bytes of values and keys of one namespace.
    pub namespace_max_bytes: usize,
    /// The most namespaces.
    pub max_namespaces: usize,
}

impl Default for CacheSettings {
    /// Returns bounds that are roomy enough for tests.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, namespace_max_bytes: 32 << 20, max_namespaces: 100 }
    }
}

/// Where a value is sought: under its key, and only as long as the generation has not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheAddress {
    /// The value's key.
    pub key: CacheKey,
    /// The key whose generation the value depends on.
    pub generation_key: GenerationKey,
}

/// What a lookup gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRead {
    /// The value, or why there is none.
    pub value: Result<Arc<CachedValue>, MissReason>,
    /// The generation that the value depends on, as it stood at the moment of the lookup.
    pub generation: Generation,
}

/// A value to put into the cache.
#[derive(Debug, Clone)]
pub struct CachePut {
    /// Where to.
    pub address: CacheAddress,
    /// What was seen of the generation before the value was made.
    pub seen: Seen,
    /// The value.
    pub bytes: Bytes,
    /// What it is.
    pub content_type: ContentType,
    /// How long it lives, longer than zero.
    pub ttl: Duration,
    /// The turn at filling that this value ends, also when it is refused.
    pub fill: Option<FillToken>,
}

/// How a put ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The value is held, until something ends it.
    Stored(Arc<CachedValue>),
    /// The generation has moved since it was seen; nothing was changed.
    Moved(Generation),
    /// The value is larger than its namespace may be; nothing was changed.
    TooLarge {
        /// The most bytes of a value, with what its names take.
        limit_bytes: usize,
    },
    /// There are as many namespaces as there may be; nothing was changed.
    TooManyNamespaces,
}

/// How an attempt to get the turn at filling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// The caller should make the value now.
    Granted {
        /// Names the turn; [`CacheStore::put`] ends it.
        token: FillToken,
        /// When somebody else may get a turn.
        expires_at: Timestamp,
    },
    /// Somebody else is making it.
    Held {
        /// When their turn ends at the latest.
        expires_at: Timestamp,
    },
}

/// The cache: values that are true only while the generation of their key has not moved.
///
/// Bounded in bytes over all and for each namespace; what was used least makes room. A value may
/// be lost at any time. Invariant: a lookup never gives a value that was made before a bump of its
/// generation's key which was answered before the lookup began.
#[async_trait]
pub trait CacheStore: Send + Sync {
    /// Looks values up, each for itself; in the order of `addresses`. Whoever names another
    /// generation key than the value was put with does not find it: it counts as stale, or as absent
    /// where the store has several parts.
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>>;

    /// Holds a value, if what was seen of the generation still stands. A value that is held ends
    /// whatever turn there is at filling its key; one that is refused, only the turn that it names.
    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome>;

    /// Drops a value, and ends the turn at filling it; tells whether a lookup would have found it.
    async fn delete(&self, key: &CacheKey) -> StoreResult<bool>;

    /// Takes the turn at filling a key, for `ttl`, unless somebody has it. A turn may be lost at
    /// any time, as values may: it saves work, and guards nothing.
    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome>;

    /// Ends a turn; tells whether it was there. A token whose turn is over ends nobody else's, also
    /// after a restart.
    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool>;
}
