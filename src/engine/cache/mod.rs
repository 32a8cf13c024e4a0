//! The rules of the cache: single flight, and how lookups are counted.
//!
//! A caller that finds no value and asks to fill gets the fill claim, for a short time. The others may wait until
//! the value is there or the claim ends.
//! Invariant: a lookup is counted once, as what its caller gets.

mod totals;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

pub use self::totals::{NamespaceTotals, Totals};
use self::waiters::{Waiter, Waiters};
use super::error::{EngineError, EngineResult};
use crate::clock::SharedClock;
use crate::model::cache::{CacheKey, CachedValue, FillToken, MissReason};
use crate::model::generations::Generation;
use crate::model::settings::{self, Settings, Violations};
use crate::model::time::Timestamp;
use crate::store::{
    CacheAddress, CachePut, CacheRead, CacheStore, ErrorKind, FillOutcome, PutOutcome, StoreError,
};

/// Where other replicas may fill, a single waiter reads again after this long ...
const POLL: Duration = Duration::from_millis(50);
/// ... and one of many waiters after this long at the latest.
const MAX_POLL: Duration = Duration::from_secs(1);

/// `[cache]`, as far as the rules need it: the limits on cached values.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct CacheRules {
    /// The largest value, in bytes.
    #[serde(deserialize_with = "settings::bytes")]
    pub max_value_bytes: usize,
    /// How long a value without a ttl of its own lives.
    #[serde(deserialize_with = "settings::duration")]
    pub ttl: Duration,
    /// How long a fill claim without a ttl of its own lasts.
    #[serde(deserialize_with = "settings::duration")]
    pub fill_ttl: Duration,
    /// How long a fill claim may last.
    #[serde(deserialize_with = "settings::duration")]
    pub max_fill_ttl: Duration,
    /// The most namespaces. So many that hold values are counted separately, and so many others.
    #[serde(deserialize_with = "settings::count")]
    pub max_namespaces: usize,
}

impl Settings for CacheRules {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(
            self.fill_ttl <= self.max_fill_ttl,
            &["cache.fill_ttl", "cache.max_fill_ttl"],
            || "must not be longer than cache.max_fill_ttl".to_owned(),
        );
    }
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

/// Asks for the fill claim in case there is no value.
#[derive(Debug, Clone, Copy)]
pub struct FillRequest {
    /// How long the claim lasts.
    pub ttl: Duration,
    /// How long to wait while another caller has it.
    pub wait: Duration,
}

/// A fill claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillClaim {
    /// Identifies the claim.
    pub token: FillToken,
    /// When another caller may get it.
    pub expires_at: Timestamp,
}

/// Why a lookup found no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    /// Why.
    pub reason: MissReason,
    /// The fill claim, if the caller got it.
    pub fill: Option<FillClaim>,
}

/// The outcome of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLookup {
    /// The value, or why there is none.
    pub value: Result<Arc<CachedValue>, Miss>,
    /// The generation that the value depends on.
    pub generation: Generation,
}

impl CacheLookup {
    fn new(read: CacheRead, fill: Option<FillClaim>) -> Self {
        let value = read.value.map_err(|reason| Miss { reason, fill });
        Self { value, generation: read.generation }
    }
}

/// The cache.
pub struct CacheEngine {
    store: Arc<dyn CacheStore>,
    rules: CacheRules,
    clock: SharedClock,
    /// Whether other replicas put and fill too.
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

    /// Looks a value up. With `fill`, a lookup that finds none gets the fill claim, or waits for its claimant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(
        &self,
        address: &CacheAddress,
        fill: Option<FillRequest>,
    ) -> EngineResult<CacheLookup> {
        self.get_waiting(address, fill, || Ok(())).await
    }

    /// Looks a value up as [`Self::get`] does, and calls `may_wait`, once, when the lookup has to wait: most lookups
    /// with a `fill` don't.
    ///
    /// # Errors
    /// When the store fails, and what `may_wait` returns.
    pub async fn get_waiting<E: From<EngineError>>(
        &self,
        address: &CacheAddress,
        fill: Option<FillRequest>,
        may_wait: impl FnOnce() -> Result<(), E> + Send,
    ) -> Result<CacheLookup, E> {
        let counter = self.totals.of(&address.key.namespace);
        let found = match fill {
            None => CacheLookup::new(self.read(address).await?, None),
            Some(request) => self.get_or_claim(address, request, may_wait).await?,
        };
        counter.count(found.value.as_ref().err().map(|miss| miss.reason));
        Ok(found)
    }

    /// Looks many values up, each on its own; returns the outcomes in the order of `addresses`.
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
        let missing = || StoreError::new(ErrorKind::Internal, "a lookup returned no outcome");
        Ok(read.ok_or_else(missing)?)
    }

    async fn get_or_claim<E: From<EngineError>>(
        &self,
        address: &CacheAddress,
        request: FillRequest,
        may_wait: impl FnOnce() -> Result<(), E> + Send,
    ) -> Result<CacheLookup, E> {
        let deadline = Instant::now() + request.wait;
        let mut may_wait = Some(may_wait);
        let key = &address.key;
        loop {
            // Joined before the read, so that every change after the read wakes this waiter.
            let mut waiter = self.waiters.join(key);
            let read = self.read(address).await?;
            if read.value.is_ok() {
                if may_wait.is_none() {
                    // Another replica may have put the value, and the other waiters here have not been woken yet.
                    self.waiters.wake(key);
                }
                return Ok(CacheLookup::new(read, None));
            }
            let claim = self.store.claim_fill(key, request.ttl).await;
            let claim_ends = match claim.map_err(EngineError::from)? {
                FillOutcome::Granted { token, expires_at } => {
                    return Ok(self.granted(address, FillClaim { token, expires_at }).await?);
                }
                FillOutcome::Held { expires_at } => expires_at,
            };
            if deadline <= Instant::now() {
                return Ok(CacheLookup::new(read, None));
            }
            if let Some(may_wait) = may_wait.take() {
                may_wait()?;
            }
            let retry_at = deadline.min(Instant::now() + self.retry_in(&waiter, claim_ends));
            drop(timeout_at(retry_at, waiter.woken()).await);
        }
    }

    /// Returns after how long a waiter should read again though nothing woke it.
    fn retry_in(&self, waiter: &Waiter, claim_ends: Timestamp) -> Duration {
        let ends_in = claim_ends.saturating_since(self.clock.now());
        // At least a millisecond: the claim may end in a fraction of one, which the clock shows as none.
        let ends_in = ends_in.max(Duration::from_millis(1));
        if self.shared {
            // All waiters of the key together read as often as one alone would.
            ends_in.min((POLL * waiter.count()).min(MAX_POLL))
        } else {
            ends_in
        }
    }

    /// Reads once more, since the value may have been put between the read and the claim.
    async fn granted(&self, address: &CacheAddress, fill: FillClaim) -> EngineResult<CacheLookup> {
        let read = self.read(address).await?;
        if read.value.is_err() {
            return Ok(CacheLookup::new(read, Some(fill)));
        }
        self.store.end_fill(&address.key, fill.token).await?;
        self.waiters.wake(&address.key);
        Ok(CacheLookup::new(read, None))
    }

    /// Puts a value. The fill claim of the put ends whatever the outcome, or when it expires where the store can't be
    /// reached.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put(&self, put: CachePut) -> EngineResult<PutOutcome> {
        let (key, fill) = (put.address.key.clone(), put.fill);
        let limit_bytes = self.rules.max_value_bytes;
        if put.bytes.len() > limit_bytes {
            self.give_up(&key, fill).await;
            return Ok(PutOutcome::TooLarge { limit_bytes });
        }
        let outcome = match self.store.put(put).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.give_up(&key, fill).await;
                return Err(error.into());
            }
        };
        self.waiters.wake(&key);
        if let PutOutcome::Stored(_) = &outcome {
            self.totals.name(&key.namespace);
        }
        Ok(outcome)
    }

    /// Ends a fill claim without a value, so that the next caller can try at once. Where the store can't be reached,
    /// the claim ends when it expires.
    pub async fn give_up(&self, key: &CacheKey, fill: Option<FillToken>) {
        if let Some(token) = fill
            && let Err(error) = self.store.end_fill(key, token).await
        {
            let cause = error.with_causes();
            tracing::warn!(cause, "a fill claim could not be ended before it expires");
        }
        self.waiters.wake(key);
    }

    /// Deletes a value, and ends the fill claim of its key.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when a lookup would not have found the value either, and failures of the store.
    pub async fn delete(&self, key: &CacheKey) -> EngineResult<()> {
        let deleted = self.store.delete(key).await?;
        self.waiters.wake(key);
        if deleted { Ok(()) } else { Err(EngineError::NotFound("cached value")) }
    }
}

#[cfg(test)]
mod tests;
