//! Why values that were held are no longer there: a bounded memory, by the hash of the key.
//!
//! Only reported; nothing depends on it. Invariant: bounded, whatever clients do.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use quick_cache::unsync;

use crate::model::cache::{CacheKey, MissReason};

/// How many keys are remembered.
const KEYS: usize = 65_536;

/// The memory.
pub(super) struct Departed {
    hasher: RandomState,
    reasons: Mutex<unsync::Cache<u64, MissReason>>,
}

impl Default for Departed {
    fn default() -> Self {
        Self { hasher: RandomState::default(), reasons: Mutex::new(unsync::Cache::new(KEYS)) }
    }
}

impl Departed {
    /// Notes why a key's value is gone.
    pub(super) fn note(&self, key: &CacheKey, reason: MissReason) {
        self.reasons.lock().insert(self.hasher.hash_one(key), reason);
    }

    /// Forgets a key: its value is there again, or was deleted.
    pub(super) fn forget(&self, key: &CacheKey) {
        self.reasons.lock().remove(&self.hasher.hash_one(key));
    }

    /// Returns why there is no value.
    pub(super) fn reason(&self, key: &CacheKey) -> MissReason {
        let reasons = self.reasons.lock();
        reasons.peek(&self.hasher.hash_one(key)).copied().unwrap_or(MissReason::Absent)
    }
}
