//! What an entry of the cache is called in Redis, what it takes, and how much may be held.
//!
//! Invariant: two keys never have the same id, whatever characters they are made of.

use bytes::Bytes;

use crate::model::MAX_KEY_BYTES;
use crate::model::cache::{
    CacheKey, ContentType, MAX_CONTENT_TYPE_BYTES, MAX_NAMESPACE_BYTES, Namespace,
};
use crate::store::redis::generations::GENERATIONS;
use crate::store::redis::script::Script;
use crate::store::{CacheAddress, CacheSettings};

/// The keys of a shard that scripts on entries use, as `cache_entry.lua` says.
pub(super) const BY_GENERATION: [&str; 6] =
    [GENERATIONS, "cache", "cache_values", "cache_ends", "cache_bytes", "cache_departed"];

/// What an entry takes in Redis beside its names and its value, in bytes, as measured.
const ENTRY_BYTES: usize = 512;
/// So often its id is held.
const IDS: usize = 4;

/// Makes a script on entries.
pub(super) fn script(body: &str) -> Script {
    let before = concat!(
        include_str!("../lua/guard.lua"),
        include_str!("../lua/generation.lua"),
        include_str!("../lua/cache_entry.lua"),
    );
    Script::new(&format!("{before}{body}"))
}

/// Returns the id of a key.
pub(super) fn id_of(key: &CacheKey) -> String {
    let namespace = key.namespace.as_str();
    format!("{}:{namespace}{}", namespace.len(), key.key)
}

/// Returns the name of a namespace's queue.
pub(super) fn queue_of(namespace: &Namespace) -> String {
    format!("cache_queue:{}", namespace.as_str())
}

/// Returns what an entry takes, in bytes.
pub(super) fn entry_bytes(address: &CacheAddress, bytes: &Bytes, kind: &ContentType) -> usize {
    let names = IDS * id_of(&address.key).len() + address.generation_key.as_str().len();
    ENTRY_BYTES + names + kind.as_str().len() + bytes.len()
}

/// Returns the largest value that a shard takes, in bytes, whatever its names are.
pub(in crate::store::redis) fn largest_value(settings: CacheSettings, shards: usize) -> usize {
    // An id is two names and the length of one of them.
    let id = MAX_NAMESPACE_BYTES + MAX_KEY_BYTES + 16;
    let beside = ENTRY_BYTES + IDS * id + MAX_KEY_BYTES + MAX_CONTENT_TYPE_BYTES;
    Bounds::of_a_shard(settings, shards).namespace_max_bytes.saturating_sub(beside)
}

/// How much one shard may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes.
    pub(super) max_bytes: usize,
    /// The most bytes of a namespace.
    pub(super) namespace_max_bytes: usize,
    /// The most namespaces.
    pub(super) max_namespaces: usize,
}

impl Bounds {
    /// Divides what all may hold among `shards`.
    pub(super) fn of_a_shard(settings: CacheSettings, shards: usize) -> Self {
        let shards = shards.max(1);
        let max_bytes = settings.max_bytes / shards;
        Self {
            max_bytes,
            namespace_max_bytes: (settings.namespace_max_bytes / shards).min(max_bytes),
            max_namespaces: settings.max_namespaces,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn key(namespace: &str, key: &str) -> CacheKey {
        let namespace = Namespace::parse(namespace).expect("valid");
        CacheKey::parse(namespace, key).expect("valid")
    }

    proptest! {
        #[test]
        fn no_two_keys_share_an_id(a in "[1:a]{1,4}", b in "[1:a]{1,4}", at in any::<usize>()) {
            let joined = format!("{a}{b}");
            let at = 1 + at % (joined.len() - 1);
            let (one, other) = (key(&a, &b), key(&joined[..at], &joined[at..]));
            assert_eq!(id_of(&one) == id_of(&other), one == other);
        }
    }
}
