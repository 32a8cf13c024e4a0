//! The contract of the cache. What holds for all resources is said in the parent module.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::StoreResult;
use crate::model::cache::{CacheKey, CachedValue, ContentType, FillToken, MissReason};
use crate::model::generations::{Generation, GenerationKey, Seen};
use crate::model::settings::{self, Settings, Violations};
use crate::model::time::Timestamp;

/// `[cache]`, as far as the store needs it: how much is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct CacheSettings {
    /// The most bytes of values and keys over all namespaces.
    #[serde(deserialize_with = "settings::bytes")]
    pub max_bytes: usize,
    /// The most bytes of values and keys of one namespace.
    #[serde(deserialize_with = "settings::bytes")]
    pub namespace_max_bytes: usize,
    /// The most namespaces.
    #[serde(deserialize_with = "settings::count")]
    pub max_namespaces: usize,
}

impl Settings for CacheSettings {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(
            self.namespace_max_bytes <= self.max_bytes,
            &["cache.namespace_max_bytes", "cache.max_bytes"],
            || "must not be larger than cache.max_bytes".to_owned(),
        );
    }
}

impl Default for CacheSettings {
    /// Returns bounds that are large enough for tests.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, namespace_max_bytes: 32 << 20, max_namespaces: 100 }
    }
}

/// Where a value is looked up: under its key, and only while the generation has not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheAddress {
    /// The value's key.
    pub key: CacheKey,
    /// The key whose generation the value depends on.
    pub generation_key: GenerationKey,
}

/// What a lookup returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRead {
    /// The value, or why there is none.
    pub value: Result<Arc<CachedValue>, MissReason>,
    /// The generation that the value depends on, at the moment of the lookup.
    pub generation: Generation,
}

/// A value to put into the cache.
#[derive(Debug, Clone)]
pub struct CachePut {
    /// Where to.
    pub address: CacheAddress,
    /// The fence or number of the generation that was read before the value was made.
    pub seen: Seen,
    /// The value.
    pub bytes: Bytes,
    /// What it is.
    pub content_type: ContentType,
    /// How long it lives, longer than zero.
    pub ttl: Duration,
    /// The fill claim that this put ends, also when it is refused.
    pub fill: Option<FillToken>,
}

/// How a put ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The value is held until it expires, is evicted, deleted, or its generation moves.
    Stored(Arc<CachedValue>),
    /// The generation has moved since it was seen; nothing was changed.
    Moved(Generation),
    /// The value is larger than its namespace may be; nothing was changed.
    TooLarge {
        /// The most bytes of a value, with what its names take.
        limit_bytes: usize,
    },
    /// The limit on namespaces is reached; nothing was changed.
    TooManyNamespaces,
}

/// How an attempt to get the fill claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// The caller is the claimant: it should make the value now.
    Granted {
        /// Identifies the claim; [`CacheStore::put`] ends it.
        token: FillToken,
        /// When another caller may get the claim.
        expires_at: Timestamp,
    },
    /// Another caller has the claim.
    Held {
        /// When that claim ends at the latest.
        expires_at: Timestamp,
    },
}

/// The cache: values that are valid only while the generation of their key has not moved.
///
/// Bounded in bytes in total and per namespace; the least used values are evicted. A value may
/// be lost at any time. Invariant: a lookup never returns a value that was made before a bump of its
/// generation's key which was acknowledged before the lookup began.
#[async_trait]
pub trait CacheStore: Send + Sync {
    /// Looks values up, each on its own; in the order of `addresses`. A lookup that names another
    /// generation key than the put did does not find the value: it is reported as stale, or as absent
    /// where the store has several shards.
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>>;

    /// Stores a value if its generation has not moved since it was seen. A value that is stored ends
    /// any fill claim of its key that was granted before; one that is refused ends only the claim that it names.
    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome>;

    /// Deletes a value and ends its fill claim; returns whether a lookup would have found it.
    async fn delete(&self, key: &CacheKey) -> StoreResult<bool>;

    /// Claims the fill of a key for `ttl`, unless another caller has the claim. A claim may be lost
    /// at any time, as values may: it saves work, and guarantees nothing.
    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome>;

    /// Ends a fill claim; returns whether it existed. The token of an expired claim never ends a
    /// later one, also after a restart.
    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool>;
}
