//! The cache on Redis: a value lies in the shard of its generation's key, so that a lookup reads both
//! in one step.
//!
//! A value is valid as long as its generation's key has no bump after those that the shard had when the
//! value was put. A lookup with another generation key looks in another place: the same key may hold a
//! value under each. The limits are divided evenly among the shards. Invariant: a lookup reads the value
//! and its generation in the same step.

mod entries;
pub(super) mod fill_claims;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};

pub(super) use self::entries::largest_value;
use self::entries::{Limits, entry_bytes, id_of};
use self::fill_claims::FillClaims;
use super::core::client::Traffic;
use super::core::generation::{GENERATIONS, generation_of, shard_of};
use super::core::replies::read;
use super::core::script::scripts;
use super::core::shards::{Scatter, Shards};
use super::core::time::{millis_of, time_of};
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::cache::{CacheKey, CachedValue, ContentHash, ContentType, FillToken, MissReason};
use crate::model::generations::Seen;
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheSettings, CacheStore, ErrorKind, FillOutcome,
    PutOutcome, ResourceStatus, StoreError, StoreResult,
};

/// The most lookups of one script: values may be large.
const LOOKUPS_STEP: usize = 32;

/// The most values that one script purges: other commands wait for it.
const PURGE_STEP: u64 = 200;

/// The keys of the scripts on entries, as `lua/entry.lua` describes them.
const KEYS: &[&str] =
    &[GENERATIONS, "cache", "cache_values", "cache_ends", "cache_namespaces", "cache_miss_reasons"];

scripts! {
    GET(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/entry.lua", "lua/get.lua";
    PUT(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/entry.lua",
        "lua/evict.lua", "lua/put.lua";
    DELETE(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/entry.lua",
        "lua/delete.lua";
    PURGE(KEYS) =
        "../core/lua/epoch_check.lua", "../core/lua/generation.lua", "lua/entry.lua",
        "lua/purge.lua";
}

/// The cached values.
pub(super) struct RedisCache {
    shards: Arc<Shards>,
    limits: Limits,
    claims: FillClaims,
}

/// What the script returns for a lookup: the generation's number and fence; why there is no value, or
/// nothing; and then the value's end in milliseconds, hash, content type, bytes.
type Lookup = (i64, i64, String, i64, String, String, Vec<u8>);

impl RedisCache {
    pub(super) fn new(shards: Arc<Shards>, settings: CacheSettings) -> Self {
        Self {
            limits: Limits::of_a_shard(settings, shards.count()),
            claims: FillClaims::new(Arc::clone(&shards)),
            shards,
        }
    }

    async fn put_value(&self, put: &CachePut) -> StoreResult<PutOutcome> {
        let CachePut { address, seen, bytes, content_type, ttl, .. } = put;
        let size = entry_bytes(address, bytes, content_type);
        let limit_bytes = self.limits.namespace_max_bytes;
        if size > limit_bytes {
            return Ok(PutOutcome::TooLarge { limit_bytes });
        }
        let hash = ContentHash::of(content_type, bytes);
        let (kind, seen) = match seen {
            Seen::Fence(fence) => ("fence", fence.0),
            Seen::Number(number) => ("number", *number),
        };
        let arguments = |command: &mut Cmd| {
            let namespace = address.key.namespace.as_str();
            command.arg(id_of(&address.key)).arg(namespace).arg(address.generation_key.as_str());
            command.arg(kind).arg(seen).arg(size).arg(millis_of(*ttl));
            command.arg(content_type.as_str()).arg(hash.to_string());
            command.arg(limit_bytes).arg(self.limits.max_bytes).arg(self.limits.max_namespaces);
            command.arg(&bytes[..]);
        };
        let shard = shard_of(&self.shards, &address.generation_key);
        let (outcome, one, two) = loop {
            let reply = self.shards.run(shard, Traffic::Values, &PUT, arguments).await?;
            let reply: (String, i64, i64) = read(reply)?;
            // Each run evicts some, so that this ends: only a lowered limit makes it take several.
            if reply.0 != "evicting" {
                break reply;
            }
        };
        match outcome.as_str() {
            "stored" => Ok(PutOutcome::Stored(Arc::new(CachedValue {
                bytes: bytes.clone(),
                content_type: content_type.clone(),
                hash,
                expires_at: time_of(&one.to_string())?,
            }))),
            "moved" => Ok(PutOutcome::Moved(generation_of((one, two)))),
            "too many namespaces" => Ok(PutOutcome::TooManyNamespaces),
            _ => Err(StoreError::new(ErrorKind::Corrupt, "a put ended in an unknown way")),
        }
    }
}

fn read_of(lookup: Lookup) -> StoreResult<CacheRead> {
    let (number, fence, reason, ends, hash, content_type, bytes) = lookup;
    let corrupt = || StoreError::new(ErrorKind::Corrupt, "a cached value can't be read");
    let value = if reason.is_empty() {
        let hash = u128::from_str_radix(&hash, 16).map_err(|_| corrupt())?;
        Ok(Arc::new(CachedValue {
            bytes: Bytes::from(bytes),
            content_type: ContentType::parse(&content_type).map_err(|_| corrupt())?,
            hash: ContentHash(hash),
            expires_at: time_of(&ends.to_string())?,
        }))
    } else {
        let known = MissReason::ALL.into_iter().find(|known| known.as_str() == reason);
        Err(known.ok_or_else(corrupt)?)
    };
    Ok(CacheRead { value, generation: generation_of((number, fence)) })
}

#[async_trait]
impl CacheStore for RedisCache {
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>> {
        let scatter = Scatter {
            script: &GET,
            traffic: Traffic::Values,
            shard_of: |address: &CacheAddress| shard_of(&self.shards, &address.generation_key),
            step: LOOKUPS_STEP,
            changes: false,
        };
        let lookups: Vec<Lookup> = self
            .shards
            .scatter(scatter, addresses, |command, _, addresses| {
                addresses.for_each(|address| {
                    command.arg(id_of(&address.key)).arg(address.generation_key.as_str());
                });
            })
            .await?;
        lookups.into_iter().map(read_of).collect()
    }

    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome> {
        let outcome = self.put_value(&put).await?;
        let key = &put.address.key;
        let ended = match (&outcome, put.fill) {
            // The value is there, so no claimant needs to make it.
            (PutOutcome::Stored(_), _) => self.claims.end(key, None).await,
            (_, Some(token)) => self.claims.end(key, Some(token)).await,
            (_, None) => Ok(false),
        };
        if let Err(error) = ended {
            // The outcome of the put stands; the claim ends by its ttl.
            tracing::debug!(error = %error.with_causes(), "a fill claim could not be ended");
        }
        Ok(outcome)
    }

    /// A key does not tell which generation keys its values were put under, so this asks all shards. The
    /// claim lies in the shard of the key itself.
    async fn delete(&self, key: &CacheKey) -> StoreResult<bool> {
        let arguments = |command: &mut Cmd| {
            command.arg(id_of(key));
        };
        let values = self.shards.run_on_all(&DELETE, arguments);
        let (deleted, _) = tokio::try_join!(values, self.claims.end(key, None))?;
        let mut found = false;
        for reply in deleted {
            found |= read::<bool>(reply)?;
        }
        Ok(found)
    }

    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        self.claims.claim(key, ttl).await
    }

    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool> {
        self.claims.end(key, Some(token)).await
    }
}

#[async_trait]
impl Upkeep for RedisCache {
    /// Purges expired values and expired fill claims.
    async fn purge(&self) -> StoreResult<u64> {
        let arguments = |command: &mut Cmd| {
            command.arg(PURGE_STEP);
        };
        // A shard that fails for one must not keep the other from being purged.
        let values = self.shards.run_until_done(&PURGE, PURGE_STEP, arguments).await;
        let claims = self.claims.purge().await;
        Ok(values? + claims?)
    }

    fn status_part(&self) -> StatusPart {
        let text = &[include_str!("lua/count.lua")];
        StatusPart { keys: &["cache"], text, arguments: Vec::new() }
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let (mut entries, mut bytes) = (0, 0);
        for reply in replies {
            let (more_entries, more_bytes): (u64, u64) = read(reply)?;
            entries += more_entries;
            bytes += more_bytes;
        }
        Ok(ResourceStatus::sized("cache", entries, bytes).into())
    }
}
