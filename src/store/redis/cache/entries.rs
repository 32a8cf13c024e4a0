//! The entries of the cache in Redis: their ids, their size, and the limits of a shard.
//!
//! Invariant: two keys never have the same id, whatever characters they are made of.

use bytes::Bytes;

use crate::model::MAX_KEY_BYTES;
use crate::model::cache::{CacheKey, ContentType, MAX_CONTENT_TYPE_BYTES, MAX_NAMESPACE_BYTES};
use crate::store::{CacheAddress, CacheSettings};

/// The bytes of an entry in Redis beside its names and its value, as measured.
const ENTRY_BYTES: usize = 512;
/// How often Redis holds the id of an entry.
const ID_COPIES: usize = 4;

/// Returns the id of a key.
pub(super) fn id_of(key: &CacheKey) -> String {
    let namespace = key.namespace.as_str();
    format!("{}:{namespace}{}", namespace.len(), key.key)
}

/// Returns the size of an entry in bytes.
pub(super) fn entry_bytes(address: &CacheAddress, bytes: &Bytes, kind: &ContentType) -> usize {
    let names = ID_COPIES * id_of(&address.key).len() + address.generation_key.as_str().len();
    ENTRY_BYTES + names + kind.as_str().len() + bytes.len()
}

/// Returns the size of the largest value that fits into a shard with the longest names, in bytes.
pub(in crate::store::redis) fn largest_value(settings: CacheSettings, shards: usize) -> usize {
    // An id is two names and the length of one of them.
    let id = MAX_NAMESPACE_BYTES + MAX_KEY_BYTES + 16;
    let beside = ENTRY_BYTES + ID_COPIES * id + MAX_KEY_BYTES + MAX_CONTENT_TYPE_BYTES;
    Limits::of_a_shard(settings, shards).namespace_max_bytes.saturating_sub(beside)
}

/// The limits of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most bytes.
    pub(super) max_bytes: usize,
    /// The most bytes of a namespace.
    pub(super) namespace_max_bytes: usize,
    /// The most namespaces.
    pub(super) max_namespaces: usize,
}

impl Limits {
    /// Divides the limits of the whole cache among `shards`.
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
    use crate::model::cache::Namespace;

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
