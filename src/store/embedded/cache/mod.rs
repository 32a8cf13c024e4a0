//! The cache of the embedded backend: in memory, each value with the number of the last bump at
//! the moment it was put.
//!
//! A value is valid as long as its generation's key was not bumped after that. Bumps are in the
//! durable data; nothing has to be removed here for a value to be refused.
//! Invariant: a lookup takes the value first and reads the generation afterwards, so that no bump
//! can slip in between.

mod departed;
mod fills;
mod namespaces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::departed::Departed;
use self::fills::Fills;
pub(super) use self::namespaces::largest_value;
use self::namespaces::{Held, Insertion, Namespaces, Usage};
use super::durable::DurableStore;
use super::generations::{generation, last_bump};
use crate::clock::Moment;
use crate::model::cache::{CacheKey, CachedValue, ContentHash, FillToken, MissReason};
use crate::model::time::Timestamp;
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheSettings, CacheStore, FillOutcome, PutOutcome,
    ResourceStatus, StoreResult,
};

/// The cached values.
pub(super) struct EmbeddedCache {
    durable: Arc<DurableStore>,
    namespaces: Namespaces,
    departed: Arc<Departed>,
    fills: Fills,
}

impl EmbeddedCache {
    pub(super) fn new(settings: CacheSettings, durable: Arc<DurableStore>, now: Timestamp) -> Self {
        let departed = Arc::new(Departed::default());
        let namespaces = Namespaces::new(settings, Arc::clone(&departed));
        Self { durable, namespaces, departed, fills: Fills::begin_epoch(now) }
    }

    /// Reports how much is held.
    pub(super) fn status(&self) -> ResourceStatus {
        let Usage { values, bytes } = self.namespaces.usage();
        ResourceStatus::sized("cache", values, bytes)
    }

    fn look_up(&self, address: &CacheAddress) -> StoreResult<CacheRead> {
        let CacheAddress { key, generation_key } = address;
        let held = self.namespaces.get(key);
        let (tables, now) = self.durable.read()?;
        let generation = generation(&tables, generation_key, now.steady);
        drop(tables);
        let miss = match held {
            None => self.departed.reason(key),
            Some(held) if !held.depends_on(key, generation_key) => MissReason::Stale,
            Some(held) => {
                let reason = if held.seen < generation.fence {
                    MissReason::Stale
                } else if held.ends <= now.steady {
                    MissReason::Expired
                } else {
                    return Ok(CacheRead { value: Ok(shown(&held, now)), generation });
                };
                if self.namespaces.remove(key, Some(&held)).is_some() {
                    self.departed.note(key, reason);
                }
                reason
            }
        };
        Ok(CacheRead { value: Err(miss), generation })
    }

    fn put_now(&self, put: CachePut) -> StoreResult<PutOutcome> {
        let CachePut { address, seen, bytes, content_type, ttl, .. } = put;
        let CacheAddress { key, generation_key } = address;
        let hash = ContentHash::of(&content_type, &bytes);
        let (tables, now) = self.durable.read()?;
        let generation = generation(&tables, &generation_key, now.steady);
        let last_bump = last_bump(&tables);
        if !seen.holds(&generation, last_bump) {
            return Ok(PutOutcome::Moved(generation));
        }
        let ends = now.end_of(ttl);
        let expires_at = now.shown(ends);
        let value = Arc::new(CachedValue { bytes, content_type, hash, expires_at });
        let held = Held::new(Arc::clone(&value), &key, generation_key, last_bump, ends);
        // While the tables are held, so that no bump comes in between: a value that was made after a
        // bump is never replaced by one that was made before it.
        let insertion = self.namespaces.insert(&key, held, now.steady);
        drop(tables);
        Ok(match insertion {
            Insertion::Held => PutOutcome::Stored(value),
            Insertion::TooLarge { limit_bytes } => PutOutcome::TooLarge { limit_bytes },
            Insertion::TooManyNamespaces => PutOutcome::TooManyNamespaces,
        })
    }
}

/// Returns a value as a response at `now` shows it. It is copied only where the system's clock was set since the put;
/// its bytes are shared.
fn shown(held: &Held, now: Moment) -> Arc<CachedValue> {
    let expires_at = now.shown(held.ends);
    if expires_at == held.value.expires_at {
        return Arc::clone(&held.value);
    }
    Arc::new(CachedValue { expires_at, ..CachedValue::clone(&held.value) })
}

#[async_trait]
impl CacheStore for EmbeddedCache {
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>> {
        addresses.iter().map(|address| self.look_up(address)).collect()
    }

    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome> {
        let (key, fill) = (put.address.key.clone(), put.fill);
        let last_claim = self.fills.last();
        let outcome = self.put_now(put)?;
        match (&outcome, fill) {
            // The value is there, also when another caller made it: the claim has no purpose any more.
            // One that was granted since then has: its claimant did not find the value valid.
            (PutOutcome::Stored(_), _) => self.fills.end_until(&key, last_claim),
            (_, Some(token)) => drop(self.fills.end(&key, Some(token))),
            (_, None) => {}
        }
        Ok(outcome)
    }

    async fn delete(&self, key: &CacheKey) -> StoreResult<bool> {
        self.fills.end(key, None);
        self.departed.forget(key);
        let Some(held) = self.namespaces.remove(key, None) else { return Ok(false) };
        let (tables, now) = self.durable.read()?;
        let fence = generation(&tables, &held.generation_key(key)?, now.steady).fence;
        Ok(held.seen >= fence && now.steady < held.ends)
    }

    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        let (tables, now) = self.durable.read()?;
        drop(tables);
        Ok(self.fills.claim(key, now, now.end_of(ttl)))
    }

    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool> {
        Ok(self.fills.end(key, Some(token)))
    }
}
