//! The cache on Redis: a value lies in the shard of its generation's key, so that it is looked up
//! and held in one step with that generation.
//!
//! A value is true as long as its generation's key was not bumped behind the place that stood when
//! it was put. Who looks with another generation key looks elsewhere: the same key may hold a value
//! under each. The bounds are divided evenly among the shards. Turns at filling lie in the shard of
//! the value's own key. Invariant: lookup and generation are read in the same step.

mod entries;
mod fills;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Cmd;

pub(super) use self::entries::largest_value;
use self::entries::{BY_GENERATION, Bounds, entry_bytes, id_of, queue_of, script};
use self::fills::Fills;
pub(super) use self::upkeep::{collect, count};
use super::generations::{generation, shard_of};
use super::link::Weight;
use super::locks::{millis_of, time_of};
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::model::cache::{CacheKey, CachedValue, ContentHash, ContentType, FillToken, MissReason};
use crate::model::generations::Seen;
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheSettings, CacheStore, ErrorKind, FillOutcome,
    PutOutcome, StoreError, StoreResult,
};

/// So many lookups are answered by one script: values may be large.
const LOOKUPS_A_STEP: usize = 32;

/// The cached values.
pub(super) struct RedisCache {
    shards: Arc<Shards>,
    bounds: Bounds,
    fills: Fills,
    get: Script,
    put: Script,
    delete: Script,
}

/// What a script gives of a lookup: number, fence, why there is none, and else when it ends in
/// milliseconds, hash, content type, bytes.
type Looked = (i64, i64, String, i64, String, String, Vec<u8>);

impl RedisCache {
    pub(super) fn new(shards: Arc<Shards>, settings: CacheSettings) -> Self {
        Self {
            bounds: Bounds::of_a_shard(settings, shards.count()),
            fills: Fills::new(Arc::clone(&shards)),
            shards,
            get: script(include_str!("../lua/get_cached.lua")),
            put: script(include_str!("../lua/put_cached.lua")),
            delete: script(include_str!("../lua/delete_cached.lua")),
        }
    }

    /// Looks up what lies in one shard.
    async fn look_up(
        &self,
        shard: usize,
        addresses: &[&CacheAddress],
    ) -> StoreResult<Vec<CacheRead>> {
        let arguments = |command: &mut Cmd| {
            for address in addresses {
                command.arg(id_of(&address.key)).arg(address.generation_key.as_str());
            }
        };
        let run = self.shards.run(shard, Weight::Heavy, &self.get, &BY_GENERATION, arguments);
        let looked: Vec<Looked> = read(run.await?)?;
        looked.into_iter().map(read_of).collect()
    }

    async fn put_value(&self, put: &CachePut) -> StoreResult<PutOutcome> {
        let CachePut { address, seen, bytes, content_type, ttl, .. } = put;
        let size = entry_bytes(address, bytes, content_type);
        let limit_bytes = self.bounds.namespace_max_bytes;
        if size > limit_bytes {
            return Ok(PutOutcome::TooLarge { limit_bytes });
        }
        let hash = ContentHash::of(content_type, bytes);
        let (kind, place) = match seen {
            Seen::Fence(fence) => ("fence", fence.0),
            Seen::Number(number) => ("number", *number),
        };
        let arguments = |command: &mut Cmd| {
            let namespace = address.key.namespace.as_str();
            command.arg(id_of(&address.key)).arg(namespace).arg(address.generation_key.as_str());
            command.arg(kind).arg(place).arg(size).arg(millis_of(*ttl));
            command.arg(content_type.as_str()).arg(hash.to_string());
            command.arg(limit_bytes).arg(self.bounds.max_bytes).arg(self.bounds.max_namespaces);
            command.arg(&bytes[..]);
        };
        let queue = queue_of(&address.key.namespace);
        let names = [&BY_GENERATION[..], &[&queue]].concat();
        let shard = shard_of(&self.shards, &address.generation_key);
        let run = self.shards.run(shard, Weight::Heavy, &self.put, &names, arguments);
        let (outcome, one, two): (String, i64, i64) = read(run.await?)?;
        match outcome.as_str() {
            "stored" => Ok(PutOutcome::Stored(Arc::new(CachedValue {
                bytes: bytes.clone(),
                content_type: content_type.clone(),
                hash,
                expires_at: time_of(&one.to_string())?,
            }))),
            "moved" => Ok(PutOutcome::Moved(generation(one, two))),
            "too many namespaces" => Ok(PutOutcome::TooManyNamespaces),
            _ => Err(StoreError::new(ErrorKind::Corrupt, "a put ended in an unknown way")),
        }
    }
}

fn read_of(looked: Looked) -> StoreResult<CacheRead> {
    let (number, fence, reason, ends, hash, content_type, bytes) = looked;
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
    Ok(CacheRead { value, generation: generation(number, fence) })
}

#[async_trait]
impl CacheStore for RedisCache {
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>> {
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); self.shards.count()];
        for (index, address) in addresses.iter().enumerate() {
            by_shard[shard_of(&self.shards, &address.generation_key)].push(index);
        }
        let steps = by_shard.iter().enumerate().flat_map(|(shard, indexes)| {
            indexes.chunks(LOOKUPS_A_STEP).map(move |some| (shard, some))
        });
        let runs = steps.map(|(shard, indexes)| async move {
            let some: Vec<&CacheAddress> = indexes.iter().map(|at| &addresses[*at]).collect();
            Ok::<_, StoreError>((indexes, self.look_up(shard, &some).await?))
        });
        let mut found = vec![None; addresses.len()];
        for (indexes, reads) in futures_util::future::try_join_all(runs).await? {
            for (index, read) in indexes.iter().zip(reads) {
                found[*index] = Some(read);
            }
        }
        let whole: Option<Vec<CacheRead>> = found.into_iter().collect();
        whole.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, "an answer is too short"))
    }

    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome> {
        let outcome = self.put_value(&put).await?;
        let key = &put.address.key;
        let ended = match (&outcome, put.fill) {
            // Whoever made it: it is there, and nobody needs to make it.
            (PutOutcome::Stored(_), _) => self.fills.end(key, None).await,
            (_, Some(token)) => self.fills.end(key, Some(token)).await,
            (_, None) => Ok(false),
        };
        if let Err(error) = ended {
            // The outcome stands; the turn ends by its time.
            tracing::debug!(%error, "a turn at filling could not be ended");
        }
        Ok(outcome)
    }

    /// The key does not tell its generation key, so this asks all shards.
    async fn delete(&self, key: &CacheKey) -> StoreResult<bool> {
        let arguments = |_, command: &mut Cmd| {
            command.arg(id_of(key));
        };
        let names = [&BY_GENERATION[..], &fills::KEYS].concat();
        let answers =
            self.shards.run_on_all(Weight::Light, &self.delete, &names, arguments).await?;
        let mut found = false;
        for answer in answers {
            found |= read::<bool>(answer)?;
        }
        Ok(found)
    }

    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        self.fills.claim(key, ttl).await
    }

    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool> {
        self.fills.end(key, Some(token)).await
    }
}
