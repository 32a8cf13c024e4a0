//! The rules of the cache: who makes a value that many want, and how lookups are counted.
//!
//! Who finds nothing and says that it would fill, gets the turn at it, for a short time. The others
//! may wait until the value is there or the turn is over.
//! Invariant: a lookup is counted once, as what its caller was told.

mod totals;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use self::totals::{NamespaceTotals, Totals};
use self::waiters::Waiters;
use super::{EngineError, EngineResult};
use crate::clock::SharedClock;
use crate::model::cache::{CacheKey, CachedValue, FillToken, MissReason};
use crate::model::generations::Generation;
use crate::model::time::Timestamp;
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheStore, ErrorKind, FillOutcome, PutOutcome, StoreError,
};

/// Where other replicas may fill: who waits alone looks again after this long ...
const POLL: Duration = Duration::from_millis(50);
/// ... and who waits with many others after this long at the latest.
const MAX_POLL: Duration = Duration::from_secs(1);

/// The limits on cached values.
#[derive(Debug, Clone, Copy)]
pub struct CacheRules {
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// How long a value lives that names no ttl.
    pub ttl: Duration,
    /// How long a turn at filling lasts that names no ttl.
    pub fill_ttl: Duration,
    /// How long a turn at filling may last.
    pub max_fill_ttl: Duration,
    /// The most namespaces. So many that hold values are counted apart, and so many others.
    pub max_namespaces: usize,
}

impl Default for CacheRules {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            ttl: Duration::from_secs(3600),
            fill_ttl: Duration::from_secs(10),
            max_fill_ttl: Duration::from_secs(300),
            max_namespaces: 100,
        }
    }
}

/// What a caller will do when it finds nothing.
#[derive(Debug, Clone, Copy)]
pub struct FillWish {
    /// How long it may take to make the value.
    pub ttl: Duration,
    /// How long it waits for somebody else who makes it.
    pub wait: Duration,
}

/// A turn at filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Names the turn.
    pub token: FillToken,
    /// When somebody else may get a turn.
    pub expires_at: Timestamp,
}

/// Why a lookup found nothing, and what a put needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    /// Why.
    pub reason: MissReason,
    /// The turn at filling, where the caller got it.
    pub fill: Option<Fill>,
}

/// What a lookup gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLookup {
    /// The value, or why there is none.
    pub value: Result<Arc<CachedValue>, Miss>,
    /// The generation that the value depends on.
    pub generation: Generation,
}

impl CacheLookup {
    fn new(read: CacheRead, fill: Option<Fill>) -> Self {
        let value = read.value.map_err(|reason| Miss { reason, fill });
        Self { value, generation: read.generation }
    }
}

/// The cache.
pub struct CacheEngine {
    store: Arc<dyn CacheStore>,
    rules: CacheRules,
    clock: SharedClock,
    /// Other replicas put and fill too.
    shared: bool,
    totals: Arc<Totals>,
    waiters: Arc<Waiters>,
}

impl CacheEngine {
    pub(super) fn new(
        store: Arc<dyn CacheStore>,
        rules: CacheRules,
        clock: SharedClock,
        shared: bool,
    ) -> Self {
        let totals = Arc::new(Totals::new(rules.max_namespaces));
        Self { store, rules, clock, shared, totals, waiters: Arc::default() }
    }

    /// Returns the limits.
    pub fn rules(&self) -> &CacheRules {
        &self.rules
    }

    /// Returns the totals of hits and misses, by namespace.
    pub fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// Looks a value up. With a `fill`, finding nothing gives the turn at making the value, or
    /// waits for whoever has it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(
        &self,
        address: &CacheAddress,
        fill: Option<FillWish>,
    ) -> EngineResult<CacheLookup> {
        self.get_waiting(address, fill, || Ok(())).await
    }

    /// Looks a value up as [`Self::get`] does, and asks `may_wait`, once, when it turns out that the
    /// lookup has to wait: most lookups that would wait need not.
    ///
    /// # Errors
    /// When the store fails, and what `may_wait` refuses with.
    pub async fn get_waiting(
        &self,
        address: &CacheAddress,
        fill: Option<FillWish>,
        may_wait: impl FnOnce() -> EngineResult<()> + Send,
    ) -> EngineResult<CacheLookup> {
        let counter = self.totals.of(&address.key.namespace);
        let answer = match fill {
            None => CacheLookup::new(self.read(address).await?, None),
            Some(wish) => self.get_or_turn(address, wish, may_wait).await?,
        };
        counter.count(answer.value.as_ref().err().map(|miss| miss.reason));
        Ok(answer)
    }

    /// Looks many values up, each for itself; in the order of `addresses`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_many(&self, addresses: &[CacheAddress]) -> EngineResult<Vec<CacheLookup>> {
        let reads = self.store.get(addresses).await?;
        for (address, read) in addresses.iter().zip(&reads) {
            let reason = read.value.as_ref().err().copied();
            self.totals.of(&address.key.namespace).count(reason);
        }
        Ok(reads.into_iter().map(|read| CacheLookup::new(read, None)).collect())
    }

    async fn read(&self, address: &CacheAddress) -> EngineResult<CacheRead> {
        let read = self.store.get(std::slice::from_ref(address)).await?.pop();
        read.ok_or_else(|| StoreError::new(ErrorKind::Internal, "a lookup gave no answer").into())
    }

    async fn get_or_turn(
        &self,
        address: &CacheAddress,
        wish: FillWish,
        may_wait: impl FnOnce() -> EngineResult<()> + Send,
    ) -> EngineResult<CacheLookup> {
        let deadline = Instant::now() + wish.wait;
        let mut may_wait = Some(may_wait);
        let key = &address.key;
        loop {
            // Before the look, so that nothing which happens behind it is missed.
            let mut waiter = self.waiters.join(key);
            let read = self.read(address).await?;
            if read.value.is_ok() {
                if may_wait.is_none() {
                    // Another replica may have made it, and nobody else here has seen that yet.
                    self.waiters.wake(key);
                }
                return Ok(CacheLookup::new(read, None));
            }
            let turn_ends = match self.store.claim_fill(key, wish.ttl).await? {
                FillOutcome::Granted { token, expires_at } => {
                    return self.granted(address, Fill { token, expires_at }).await;
                }
                FillOutcome::Held { expires_at } => expires_at,
            };
            if deadline <= Instant::now() {
                return Ok(CacheLookup::new(read, None));
            }
            if let Some(may_wait) = may_wait.take() {
                may_wait()?;
            }
            let ends_in = turn_ends.saturating_since(self.clock.now());
            let ends_in = ends_in.max(Duration::from_millis(1));
            let look_again = if self.shared {
                // All who wait here look together so often as one would alone.
                ends_in.min((POLL * waiter.count()).min(MAX_POLL))
            } else {
                ends_in
            };
            drop(timeout_at(deadline.min(Instant::now() + look_again), waiter.woken()).await);
        }
    }

    /// Looks once more: the value may have come between the look and the turn.
    async fn granted(&self, address: &CacheAddress, fill: Fill) -> EngineResult<CacheLookup> {
        let read = self.read(address).await?;
        if read.value.is_err() {
            return Ok(CacheLookup::new(read, Some(fill)));
        }
        self.store.end_fill(&address.key, fill.token).await?;
        self.waiters.wake(&address.key);
        Ok(CacheLookup::new(read, None))
    }

    /// Holds a value.
    ///
    /// # Errors
    /// [`EngineError::GenerationMoved`], [`EngineError::ValueTooLarge`],
    /// [`EngineError::TooManyNamespaces`], and failures of the store. The turn at filling that the
    /// put named is over in any case, or ends by its time where the store can't be told.
    pub async fn put(&self, put: CachePut) -> EngineResult<Arc<CachedValue>> {
        let (key, fill) = (put.address.key.clone(), put.fill);
        let limit_bytes = self.rules.max_value_bytes;
        if put.bytes.len() > limit_bytes {
            self.give_up(&key, fill).await;
            return Err(EngineError::ValueTooLarge { limit_bytes });
        }
        let outcome = match self.store.put(put).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.give_up(&key, fill).await;
                return Err(error.into());
            }
        };
        self.waiters.wake(&key);
        match outcome {
            PutOutcome::Stored(value) => {
                self.totals.name(&key.namespace);
                Ok(value)
            }
            PutOutcome::Moved(generation) => Err(EngineError::GenerationMoved(generation)),
            PutOutcome::TooLarge { limit_bytes } => Err(EngineError::ValueTooLarge { limit_bytes }),
            PutOutcome::TooManyNamespaces => Err(EngineError::TooManyNamespaces),
        }
    }

    /// Ends a turn at filling whose value does not come, so that the next one can try at once. Where
    /// the store can't be told, the turn ends by its time.
    pub async fn give_up(&self, key: &CacheKey, fill: Option<FillToken>) {
        if let Some(token) = fill
            && let Err(error) = self.store.end_fill(key, token).await
        {
            tracing::warn!(%error, "a turn at filling could not be ended before its time");
        }
        self.waiters.wake(key);
    }

    /// Drops a value, and ends the turn at filling it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when a lookup would not have found it either, and failures of the
    /// store.
    pub async fn delete(&self, key: &CacheKey) -> EngineResult<()> {
        let deleted = self.store.delete(key).await?;
        self.waiters.wake(key);
        if deleted { Ok(()) } else { Err(EngineError::NotFound("cached value")) }
    }
}

#[cfg(test)]
mod tests;
