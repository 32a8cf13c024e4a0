//! What every cache must do. `bounds` has the cases about its size; `fills` those about fill claims, and
//! `validity` those that hold that no value outlives its generation.

mod bounds;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdall::model::cache::{
    CacheKey, CachedValue, ContentHash, ContentType, MissReason, Namespace,
};
use holdall::model::generations::{GenerationFence, Seen};
use holdall::store::{CacheAddress, CachePut, CacheRead, CacheStore, PutOutcome};

pub(super) use self::bounds::{
    a_small_namespace_is_not_evicted_by_a_busy_one, a_stored_value_is_found,
    a_value_larger_than_its_namespace_is_refused,
    namespaces_without_valid_values_make_room_for_new_ones, the_cache_never_exceeds_its_bounds,
    the_number_of_namespaces_is_bounded, unused_values_make_room_for_used_ones,
    values_read_often_survive_a_scan,
};
use super::fixture::Fixture;
use super::generations::{bump, key as generation_key, snapshot};

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            a_value_is_found_as_it_was_put,
            namespaces_and_keys_are_never_joined,
            a_value_expires_after_its_ttl_and_not_before,
            a_bump_ends_a_value,
            a_put_whose_generation_has_moved_changes_nothing,
            a_generation_number_holds_until_the_next_bump,
            a_value_depends_on_the_key_that_it_was_put_with,
            a_deleted_value_is_absent,
            each_lookup_of_a_batch_is_independent,
            a_value_that_survives_a_restart_is_ended_by_a_bump,
            a_value_larger_than_its_namespace_is_refused,
            a_stored_value_is_found,
            the_number_of_namespaces_is_bounded,
            namespaces_without_valid_values_make_room_for_new_ones,
            the_cache_never_exceeds_its_bounds,
            a_small_namespace_is_not_evicted_by_a_busy_one,
            values_read_often_survive_a_scan,
            unused_values_make_room_for_used_ones,
        }
    };
}
pub(super) use cases;

/// Longer than any case lets pass.
pub(super) const LONG: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_millis(800);

/// A value whose generation has its own key.
pub(super) fn address(namespace: &str, key: &str) -> CacheAddress {
    depending(namespace, key, key)
}

fn depending(namespace: &str, key: &str, on: &str) -> CacheAddress {
    let namespace = Namespace::parse(namespace).expect("valid");
    let key = CacheKey::parse(namespace, key).expect("valid");
    CacheAddress { key, generation_key: generation_key(on) }
}

/// A put of bytes with a long ttl.
pub(super) fn a_put(address: &CacheAddress, seen: Seen, bytes: impl Into<Bytes>) -> CachePut {
    CachePut {
        address: address.clone(),
        seen,
        bytes: bytes.into(),
        content_type: ContentType::default(),
        ttl: LONG,
        fill: None,
    }
}

pub(super) async fn put(
    store: &Arc<dyn CacheStore>,
    address: &CacheAddress,
    seen: Seen,
    bytes: impl Into<Bytes>,
) -> PutOutcome {
    store.put(a_put(address, seen, bytes)).await.expect("the store works")
}

pub(super) async fn read(store: &Arc<dyn CacheStore>, address: &CacheAddress) -> CacheRead {
    let mut reads = store.get(std::slice::from_ref(address)).await.expect("the store works");
    assert_eq!(reads.len(), 1);
    reads.remove(0)
}

async fn get(
    store: &Arc<dyn CacheStore>,
    address: &CacheAddress,
) -> Result<Arc<CachedValue>, MissReason> {
    read(store, address).await.value
}

/// Returns why a lookup finds nothing.
async fn miss(store: &Arc<dyn CacheStore>, address: &CacheAddress) -> Option<MissReason> {
    get(store, address).await.err()
}

/// What stands now, as somebody who makes a value sees it.
pub(super) async fn seen(fixture: &Fixture, address: &CacheAddress) -> Seen {
    let name = address.generation_key.as_str();
    Seen::Fence(snapshot(&fixture.stores.generations, name).await.fence)
}

/// Puts what was made just now.
pub(super) async fn fill(fixture: &Fixture, address: &CacheAddress, bytes: impl Into<Bytes>) {
    let seen = seen(fixture, address).await;
    let outcome = put(&fixture.stores.cache, address, seen, bytes).await;
    assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
}

async fn cached_bytes(fixture: &Fixture) -> usize {
    let status = fixture.stores.operation.status().await.expect("the store works");
    usize::try_from(status.bytes("cache")).expect("small")
}

pub(super) async fn a_value_is_found_as_it_was_put(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    assert_eq!(miss(store, &address).await, Some(MissReason::Absent));
    let json = ContentType::parse("application/json; charset=utf-8").expect("valid");
    let bytes = Bytes::from_static(b"{\"a\":\0\xff}");
    let put = CachePut {
        content_type: json.clone(),
        ttl: TTL,
        ..a_put(&address, seen(&fixture, &address).await, bytes.clone())
    };
    let start = fixture.clock.now();
    let outcome = store.put(put.clone()).await.expect("the store works");
    let PutOutcome::Stored(stored) = outcome else { panic!("{outcome:?}") };
    assert!(stored.expires_at >= start.saturating_add(TTL));
    assert_eq!(stored.hash, ContentHash::of(&json, &bytes));
    let found = read(store, &address).await;
    assert_eq!(found.generation, snapshot(&fixture.stores.generations, "k").await);
    assert_eq!(found.value.expect("is there"), stored);
    assert_eq!((&stored.bytes, &stored.content_type), (&bytes, &json));
    // An empty value is a value, and the last one stands.
    fill(&fixture, &address, "").await;
    assert!(get(store, &address).await.expect("is there").bytes.is_empty());
}

pub(super) async fn namespaces_and_keys_are_never_joined(fixture: Fixture) {
    let long = "k".repeat(1024);
    let all =
        [("a/b", "c"), ("a", "b/c"), ("a\0b", "c"), ("a", "b\0c"), ("{a}", ":"), ("a", &long)];
    for (n, (namespace, key)) in all.iter().enumerate() {
        fill(&fixture, &address(namespace, key), vec![u8::try_from(n).expect("small")]).await;
    }
    for (n, (namespace, key)) in all.iter().enumerate() {
        let found = get(&fixture.stores.cache, &address(namespace, key)).await;
        assert_eq!(usize::from(found.expect("is there").bytes[0]), n);
    }
}

pub(super) async fn a_value_expires_after_its_ttl_and_not_before(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    let put = CachePut { ttl: TTL, ..a_put(&address, seen(&fixture, &address).await, "v") };
    let outcome = store.put(put).await.expect("the store works");
    assert!(matches!(outcome, PutOutcome::Stored(_)));
    fixture.pass(TTL / 2).await;
    assert!(get(store, &address).await.is_ok(), "a look does not end it");
    fixture.pass(TTL / 2).await;
    for _ in 0..2 {
        assert_eq!(miss(store, &address).await, Some(MissReason::Expired));
    }
    assert!(!store.delete(&address.key).await.expect("the store works"));
    fill(&fixture, &address, "w").await;
    assert!(get(store, &address).await.is_ok());
}

pub(super) async fn a_bump_ends_a_value(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    fill(&fixture, &address, "old").await;
    bump(&fixture.stores.generations, "other").await;
    assert!(get(store, &address).await.is_ok());
    let bumped = bump(&fixture.stores.generations, "k").await;
    let looked = read(store, &address).await;
    assert_eq!((looked.value, looked.generation), (Err(MissReason::Stale), bumped));
    assert_eq!(miss(store, &address).await, Some(MissReason::Stale));
    assert!(!store.delete(&address.key).await.expect("the store works"));
    fill(&fixture, &address, "new").await;
    assert_eq!(get(store, &address).await.expect("is there").bytes, "new");
}

pub(super) async fn a_put_whose_generation_has_moved_changes_nothing(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    let before = seen(&fixture, &address).await;
    let first = bump(&fixture.stores.generations, "k").await;
    assert_eq!(put(store, &address, before, "old").await, PutOutcome::Moved(first));
    assert_eq!(miss(store, &address).await, Some(MissReason::Absent));
    assert_eq!(cached_bytes(&fixture).await, 0);
    fill(&fixture, &address, "first").await;
    for wrong in [before, Seen::Number(0), Seen::Number(2), Seen::Fence(GenerationFence(i64::MAX))]
    {
        assert_eq!(put(store, &address, wrong, "old").await, PutOutcome::Moved(first));
        assert_eq!(get(store, &address).await.expect("is there").bytes, "first");
    }
}

pub(super) async fn a_generation_number_holds_until_the_next_bump(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    for number in 0..3 {
        let stored = put(store, &address, Seen::Number(number), "v").await;
        assert!(matches!(stored, PutOutcome::Stored(_)), "{stored:?}");
        assert!(get(store, &address).await.is_ok());
        let bumped = bump(&fixture.stores.generations, "k").await;
        assert_eq!(bumped.number, number + 1);
        assert_eq!(miss(store, &address).await, Some(MissReason::Stale));
        let refused = put(store, &address, Seen::Number(number), "v").await;
        assert_eq!(refused, PutOutcome::Moved(bumped));
    }
    // As documented: a number alone can come again. What it lets in is still ended by a bump.
    fixture.pass(TTL).await;
    fixture.stores.generations.cleanup(TTL).await.expect("the store works");
    bump(&fixture.stores.generations, "k").await;
    let stored = put(store, &address, Seen::Number(1), "v").await;
    assert!(matches!(stored, PutOutcome::Stored(_)), "{stored:?}");
    bump(&fixture.stores.generations, "k").await;
    assert_eq!(miss(store, &address).await, Some(MissReason::Stale));
}

pub(super) async fn a_value_depends_on_the_key_that_it_was_put_with(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let value = depending("n", "page", "table");
    fill(&fixture, &value, "v").await;
    bump(&fixture.stores.generations, "page").await;
    assert!(get(store, &value).await.is_ok());
    // A lookup that names another key must not find it. Of several shards, one that does not
    // hold the value knows nothing of it.
    let shards = fixture.stores.operation.capabilities().shards;
    for other in ["page", "table2"] {
        let reason = miss(store, &depending("n", "page", other)).await;
        let is_elsewhere = shards > 1 && reason == Some(MissReason::Absent);
        assert!(reason == Some(MissReason::Stale) || is_elsewhere, "{other}: {reason:?}");
    }
    assert!(get(store, &value).await.is_ok(), "for the right one it is still there");
    bump(&fixture.stores.generations, "table").await;
    assert_eq!(miss(store, &value).await, Some(MissReason::Stale));
    // Two values of one source end together.
    let (one, two) = (depending("n", "1", "table"), depending("n", "2", "table"));
    fill(&fixture, &one, "v").await;
    fill(&fixture, &two, "v").await;
    bump(&fixture.stores.generations, "table").await;
    assert_eq!(miss(store, &one).await, Some(MissReason::Stale));
    assert_eq!(miss(store, &two).await, Some(MissReason::Stale));
    // The key that a value depends on may change.
    fill(&fixture, &depending("n", "page", "page"), "w").await;
    bump(&fixture.stores.generations, "table").await;
    assert!(get(store, &depending("n", "page", "page")).await.is_ok());
}

pub(super) async fn a_deleted_value_is_absent(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let delete =
        async |address: &CacheAddress| store.delete(&address.key).await.expect("the store works");
    let (one, two) = (address("n", "1"), depending("n", "2", "table"));
    assert!(!delete(&one).await);
    fill(&fixture, &one, "v").await;
    fill(&fixture, &two, "v").await;
    assert!(delete(&one).await);
    assert!(!delete(&one).await);
    assert_eq!(miss(store, &one).await, Some(MissReason::Absent));
    assert!(get(store, &two).await.is_ok());
    // What a lookup would not have found is not there, whatever the reason.
    bump(&fixture.stores.generations, "table").await;
    assert!(!delete(&two).await);
    assert_eq!(miss(store, &two).await, Some(MissReason::Absent));
    let short = CachePut { ttl: TTL, ..a_put(&one, seen(&fixture, &one).await, "v") };
    store.put(short).await.expect("the store works");
    fixture.pass(TTL).await;
    assert!(!delete(&one).await);
    assert_eq!(miss(store, &one).await, Some(MissReason::Absent));
}

pub(super) async fn each_lookup_of_a_batch_is_independent(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let names = ["hit", "absent", "stale", "expired", "deleted"];
    for name in ["hit", "stale", "deleted"] {
        fill(&fixture, &address("n", name), name).await;
    }
    let expiring = address("n", "expired");
    let put = CachePut { ttl: TTL, ..a_put(&expiring, seen(&fixture, &expiring).await, "v") };
    store.put(put).await.expect("the store works");
    bump(&fixture.stores.generations, "stale").await;
    store.delete(&address("n", "deleted").key).await.expect("the store works");
    fixture.pass(TTL).await;
    let mut addresses: Vec<_> = names.iter().map(|name| address("n", name)).collect();
    addresses.push(address("m", "hit"));
    addresses.push(address("n", "hit"));
    let reads = store.get(&addresses).await.expect("the store works");
    let found: Vec<_> = reads
        .iter()
        .map(|read| read.value.as_ref().map(|value| value.bytes.clone()).map_err(|why| *why))
        .collect();
    assert_eq!(
        found,
        [
            Ok(Bytes::from("hit")),
            Err(MissReason::Absent),
            Err(MissReason::Stale),
            Err(MissReason::Expired),
            Err(MissReason::Absent),
            Err(MissReason::Absent),
            Ok(Bytes::from("hit")),
        ]
    );
    let generations: Vec<_> = reads.iter().map(|read| read.generation.number).collect();
    assert_eq!(generations, [0, 0, 1, 0, 0, 0, 0]);
    assert!(store.get(&[]).await.expect("the store works").is_empty());
}

pub(super) async fn a_value_that_survives_a_restart_is_ended_by_a_bump(fixture: Fixture) {
    fill(&fixture, &address("n", "k"), "v").await;
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    // Kept or lost, it is never wrong; and a bump before or after the restart ends it.
    bump(&fixture.stores.generations, "k").await;
    assert!(get(&fixture.stores.cache, &address("n", "k")).await.is_err());
}
