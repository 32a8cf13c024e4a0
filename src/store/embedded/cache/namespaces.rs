//! The held values by namespace, and how many bytes each namespace may take.
//!
//! Each namespace is a cache of its own that drops what was used least. Its capacity grows in
//! steps as it fills: from what no namespace has yet, and then from the largest one, as long as
//! that has more. So a namespace that is asked for little can't be pushed out by a busy one, and
//! one that is alone may use everything up to its bound.
//! Invariant: the capacities together never exceed the bound over all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::departed::Departed;
use crate::model::MAX_KEY_BYTES;
use crate::model::cache::{
    CacheKey, CachedValue, MAX_CONTENT_TYPE_BYTES, MAX_NAMESPACE_BYTES, MissReason, Namespace,
};
use crate::model::generations::{GenerationFence, GenerationKey};
use crate::model::time::SteadyTime;
use crate::store::{CacheSettings, ErrorKind, StoreError, StoreResult};

/// What an entry takes beside its key and its value, in bytes.
const ENTRY_BYTES: usize = 256;

/// Capacity is handed out in so many steps.
const STEPS: u64 = 64;

/// A value in the cache.
#[derive(Debug)]
pub(super) struct Held {
    /// What lookups return.
    pub(super) value: Arc<CachedValue>,
    /// When it expires.
    pub(super) ends: SteadyTime,
    /// The last bump of all when it was put.
    pub(super) seen: GenerationFence,
    /// What it depends on; its own key where `None`.
    generation_key: Option<GenerationKey>,
}

impl Held {
    /// Makes an entry for `key`.
    pub(super) fn new(
        value: Arc<CachedValue>,
        key: &CacheKey,
        generation_key: GenerationKey,
        seen: GenerationFence,
        ends: SteadyTime,
    ) -> Self {
        let other = generation_key.as_str() != key.key;
        Self { value, ends, seen, generation_key: other.then_some(generation_key) }
    }

    /// Returns whether the entry, held under `key`, depends on `generation_key`.
    pub(super) fn depends_on(&self, key: &CacheKey, generation_key: &GenerationKey) -> bool {
        let depends_on = self.generation_key.as_ref().map_or(&*key.key, GenerationKey::as_str);
        depends_on == generation_key.as_str()
    }

    /// Returns what the entry, held under `key`, depends on.
    pub(super) fn generation_key(&self, key: &CacheKey) -> StoreResult<GenerationKey> {
        match &self.generation_key {
            Some(key) => Ok(key.clone()),
            None => GenerationKey::parse(&key.key)
                .map_err(|why| StoreError::new(ErrorKind::Internal, why.0)),
        }
    }

    fn bytes(&self, key: &CacheKey) -> usize {
        let generation_key = self.generation_key.as_ref().map_or(0, |key| key.as_str().len());
        let names = key.key.len() + key.namespace.as_str().len() + generation_key;
        let value = self.value.bytes.len() + self.value.content_type.as_str().len();
        ENTRY_BYTES + names + value
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<CacheKey, Arc<Held>> for ByBytes {
    fn weight(&self, key: &CacheKey, held: &Arc<Held>) -> u64 {
        held.bytes(key) as u64
    }
}

/// Notes what was evicted, and frees it after the namespace's lock was released.
#[derive(Clone)]
struct NoteEvicted(Arc<Departed>);

impl Lifecycle<CacheKey, Arc<Held>> for NoteEvicted {
    type RequestState = Vec<Arc<Held>>;

    fn on_evict(&self, dropped: &mut Vec<Arc<Held>>, key: CacheKey, held: Arc<Held>) {
        self.0.note(&key, MissReason::Evicted);
        dropped.push(held);
    }
}

type Values = Cache<CacheKey, Arc<Held>, ByBytes, RandomState, NoteEvicted>;

/// How much is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::embedded) struct Usage {
    /// Values.
    pub(in crate::store::embedded) values: u64,
    /// What they take, in bytes.
    pub(in crate::store::embedded) bytes: u64,
}

/// How an insertion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insertion {
    /// It is held.
    Held,
    /// A namespace may not be so large.
    TooLarge {
        /// What an entry of a namespace may take, in bytes.
        limit_bytes: usize,
    },
    /// There are as many as there may be.
    TooManyNamespaces,
}

/// A namespace.
struct Named {
    values: Arc<Values>,
    /// When all values that it ever held have expired, in nanoseconds of the steady time.
    ends: AtomicI64,
}

impl Named {
    /// Returns whether it holds no value that is valid at `now`, and nobody is about to insert one: for
    /// that, they have a reference, which they get while the map is locked.
    fn is_unused(&self, now: SteadyTime) -> bool {
        let has_expired = self.ends.load(Ordering::Relaxed) <= now.as_nanos();
        (has_expired || self.values.is_empty()) && Arc::strong_count(&self.values) == 1
    }
}

/// The values.
pub(super) struct Namespaces {
    settings: CacheSettings,
    departed: Arc<Departed>,
    by_name: RwLock<HashMap<Namespace, Named, RandomState>>,
    /// The bytes that no namespace has; locked while capacities change.
    free_bytes: Mutex<u64>,
}

impl Namespaces {
    pub(super) fn new(settings: CacheSettings, departed: Arc<Departed>) -> Self {
        let free_bytes = Mutex::new(settings.max_bytes as u64);
        Self { settings, departed, by_name: RwLock::default(), free_bytes }
    }

    /// Reads an entry, and counts it as used.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Held>> {
        self.of(&key.namespace)?.get(key)
    }

    /// Removes an entry, only if it is still `expected` where that is given.
    pub(super) fn remove(&self, key: &CacheKey, expected: Option<&Arc<Held>>) -> Option<Arc<Held>> {
        let is_expected = |held: &Arc<Held>| expected.is_none_or(|e| Arc::ptr_eq(e, held));
        self.of(&key.namespace)?.remove_if(key, is_expected).map(|(_, held)| held)
    }

    /// Holds an entry, and makes room for it. `now` tells which namespaces are used no more.
    pub(super) fn insert(&self, key: &CacheKey, held: Held, now: SteadyTime) -> Insertion {
        let bytes = held.bytes(key) as u64;
        let limit_bytes = largest_entry(self.namespace_bound());
        if bytes > limit_bytes {
            let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
            return Insertion::TooLarge { limit_bytes };
        }
        let ends = held.ends;
        let existing = self.of(&key.namespace);
        let Some(values) = existing.or_else(|| self.add(&key.namespace, now)) else {
            return Insertion::TooManyNamespaces;
        };
        // While `values` is referred to, the namespace stays.
        if let Some(named) = self.by_name.read().get(&key.namespace) {
            named.ends.fetch_max(ends.as_nanos(), Ordering::Relaxed);
        }
        self.make_room(&values, bytes);
        values.insert(key.clone(), Arc::new(held));
        // Whatever was noted about the one before it. It can be gone already, when another
        // namespace has just taken the room.
        if values.contains_key(key) {
            self.departed.forget(key);
        }
        Insertion::Held
    }

    /// Returns how much is held.
    pub(super) fn usage(&self) -> Usage {
        // No capacity moves meanwhile: else bytes could be counted where they were, and again where
        // others have taken their room.
        let fixed = self.free_bytes.lock();
        let by_name = self.by_name.read();
        let usage = by_name.values().fold(Usage::default(), |sum, named| Usage {
            values: sum.values + named.values.len() as u64,
            bytes: sum.bytes + named.values.weight(),
        });
        drop(fixed);
        usage
    }

    fn step_bytes(&self) -> u64 {
        (self.settings.max_bytes as u64 / STEPS).max(1)
    }

    /// Returns the most that one namespace may take, in bytes.
    fn namespace_bound(&self) -> u64 {
        self.settings.namespace_max_bytes.min(self.settings.max_bytes) as u64
    }

    fn of(&self, namespace: &Namespace) -> Option<Arc<Values>> {
        self.by_name.read().get(namespace).map(|named| Arc::clone(&named.values))
    }

    fn add(&self, namespace: &Namespace, now: SteadyTime) -> Option<Arc<Values>> {
        // In this order everywhere.
        let mut free = self.free_bytes.lock();
        let mut by_name = self.by_name.write();
        if let Some(named) = by_name.get(namespace) {
            return Some(Arc::clone(&named.values));
        }
        if by_name.len() >= self.settings.max_namespaces {
            by_name.retain(|_, named| {
                let stays = !named.is_unused(now);
                if !stays {
                    *free += named.values.capacity();
                }
                stays
            });
        }
        drop(free);
        if by_name.len() >= self.settings.max_namespaces {
            return None;
        }
        // One shard: a value may be as large as the whole. The estimate is of one step; it grows
        // with the capacity.
        let items = self.step_bytes().div_ceil(4 * ENTRY_BYTES as u64);
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(usize::try_from(items).ok()?)
            .weight_capacity(0)
            .build()
            .ok()?;
        let lifecycle = NoteEvicted(Arc::clone(&self.departed));
        let values = Cache::with_options(options, ByBytes, RandomState::default(), lifecycle);
        let values = Arc::new(values);
        let ends = AtomicI64::new(i64::MIN);
        by_name.insert(namespace.clone(), Named { values: Arc::clone(&values), ends });
        Some(values)
    }

    /// Raises the capacity of a namespace by `more` bytes, as far as it is entitled to them.
    fn make_room(&self, values: &Arc<Values>, more: u64) {
        let held = values.weight();
        let enough = |capacity| held + more <= capacity && more <= largest_entry(capacity);
        if enough(values.capacity()) {
            return;
        }
        let mut free = self.free_bytes.lock();
        let bound = self.namespace_bound();
        loop {
            let capacity = values.capacity();
            if enough(capacity) || capacity >= bound {
                return;
            }
            let wanted = self.step_bytes().max(capacity_for(more)).min(bound - capacity);
            if *free == 0 && !self.take_from_largest(values, wanted, more, &mut free) {
                return;
            }
            let granted = wanted.min(*free);
            *free -= granted;
            values.set_capacity(capacity + granted);
        }
    }

    /// Frees `wanted` bytes of the namespace with the most, if it then still has as many as the
    /// one that asks, or the one that asks could not hold an entry of `more` bytes otherwise.
    fn take_from_largest(
        &self,
        asking: &Arc<Values>,
        wanted: u64,
        more: u64,
        free: &mut u64,
    ) -> bool {
        let by_name = self.by_name.read();
        let others = by_name.values().map(|named| &named.values);
        let others = others.filter(|values| !Arc::ptr_eq(values, asking));
        let Some(largest) = others.max_by_key(|values| values.capacity()) else { return false };
        let (theirs, ours) = (largest.capacity(), asking.capacity());
        if theirs < ours + 2 * wanted && more <= largest_entry(ours) {
            return false;
        }
        let taken = wanted.min(theirs);
        largest.set_capacity(theirs - taken);
        *free += taken;
        taken > 0
    }
}

/// Returns the largest entry that a namespace with this capacity takes: quick_cache refuses
/// one that would leave it no room for newcomers, which is some 3 % of the capacity.
fn largest_entry(capacity: u64) -> u64 {
    capacity - capacity / 16
}

/// Returns the largest value that a namespace takes, in bytes, whatever its names are.
pub(in crate::store::embedded) fn largest_value(settings: &CacheSettings) -> usize {
    let beside = ENTRY_BYTES + MAX_NAMESPACE_BYTES + 2 * MAX_KEY_BYTES + MAX_CONTENT_TYPE_BYTES;
    let bound = settings.namespace_max_bytes.min(settings.max_bytes) as u64;
    usize::try_from(largest_entry(bound)).unwrap_or(usize::MAX).saturating_sub(beside)
}

/// Returns a capacity with which a namespace takes an entry of so many bytes.
fn capacity_for(bytes: u64) -> u64 {
    bytes + bytes / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::{ContentHash, ContentType};
    use crate::model::time::Timestamp;

    #[test]
    fn the_largest_value_is_held_under_the_longest_names() {
        let settings = CacheSettings { namespace_max_bytes: 64 << 10, ..CacheSettings::default() };
        let namespaces = Namespaces::new(settings, Arc::default());
        let namespace = Namespace::parse("n".repeat(MAX_NAMESPACE_BYTES)).expect("valid");
        let key = CacheKey::parse(namespace, "k".repeat(MAX_KEY_BYTES)).expect("valid");
        let insert = |bytes: usize| {
            let value = CachedValue {
                bytes: vec![0; bytes].into(),
                content_type: ContentType::parse(&"t".repeat(MAX_CONTENT_TYPE_BYTES))
                    .expect("valid"),
                hash: ContentHash(0),
                expires_at: Timestamp::MAX,
            };
            let depends_on = GenerationKey::parse("g".repeat(MAX_KEY_BYTES)).expect("valid");
            let held = Held::new(
                Arc::new(value),
                &key,
                depends_on,
                GenerationFence(0),
                SteadyTime::from_nanos(0),
            );
            namespaces.insert(&key, held, SteadyTime::from_nanos(0))
        };
        let largest = largest_value(&settings);
        assert_eq!(insert(largest), Insertion::Held);
        assert!(namespaces.get(&key).is_some_and(|held| held.value.bytes.len() == largest));
        assert!(matches!(insert(largest + 1), Insertion::TooLarge { .. }));
    }
}
