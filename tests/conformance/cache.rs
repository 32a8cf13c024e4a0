//! What every cache must do. Turns at filling stand in `fills`, and that
//! no value outlives its generation in `validity`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdall::model::cache::{
    CacheKey, CachedValue, ContentHash, ContentType, MissReason, Namespace,
};
use holdall::model::generations::{GenerationFence, Seen};
use holdall::store::{CacheAddress, CachePut, CacheRead, CacheStore, PutOutcome};

use super::fixture::{CACHE_BYTES, CACHE_NAMESPACE_BYTES, CACHE_NAMESPACES, Fixture, Random};
use super::generations::{bump, key as generation_key, snapshot};

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

/// A put of bytes that live long.
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

pub(super) async fn what_was_put_is_found_as_it_was(fixture: Fixture) {
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

pub(super) async fn a_value_lives_as_long_as_its_ttl_and_not_longer(fixture: Fixture) {
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

pub(super) async fn a_number_holds_as_long_as_it_stands(fixture: Fixture) {
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
    // Whoever names another key can't be told that it is true. Of several shards, one that does not
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

pub(super) async fn many_lookups_are_answered_each_for_itself(fixture: Fixture) {
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

pub(super) async fn a_cache_starts_empty(fixture: Fixture) {
    fill(&fixture, &address("n", "k"), "v").await;
    let Some(fixture) = fixture.restart(Duration::ZERO).await else { return };
    // Kept or lost, it is never wrong; and a bump ends it in both lives.
    bump(&fixture.stores.generations, "k").await;
    assert!(get(&fixture.stores.cache, &address("n", "k")).await.is_err());
}

pub(super) async fn a_value_larger_than_its_namespace_is_refused(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let address = address("n", "k");
    fill(&fixture, &address, "small").await;
    for bytes in [CACHE_NAMESPACE_BYTES, CACHE_BYTES, 2 * CACHE_BYTES] {
        let outcome = put(store, &address, seen(&fixture, &address).await, vec![0; bytes]).await;
        let PutOutcome::TooLarge { limit_bytes } = outcome else { panic!("{outcome:?}") };
        assert!(limit_bytes <= CACHE_NAMESPACE_BYTES);
        assert_eq!(get(store, &address).await.expect("is there").bytes, "small");
    }
}

/// Also the first one of its namespace, and the largest that is not refused.
pub(super) async fn a_value_that_is_not_refused_is_held(fixture: Fixture) {
    let store = &fixture.stores.cache;
    let mut largest = 0;
    for (n, part) in (1..=64).enumerate() {
        let address = address(["a", "b"][n % 2], &format!("{n}"));
        let bytes = CACHE_NAMESPACE_BYTES / 64 * part;
        match put(store, &address, seen(&fixture, &address).await, vec![7; bytes]).await {
            PutOutcome::Stored(_) => largest = bytes,
            PutOutcome::TooLarge { limit_bytes } => {
                assert!(bytes + 4096 > limit_bytes, "{bytes} with a limit of {limit_bytes}");
                continue;
            }
            other => panic!("{other:?}"),
        }
        let found = get(store, &address).await;
        assert_eq!(found.map(|value| value.bytes.len()), Ok(bytes), "{bytes} bytes are not held");
    }
    let share = CACHE_NAMESPACE_BYTES / fixture.stores.operation.capabilities().shards;
    assert!(largest >= share * 9 / 10, "{largest} is the most");
}

pub(super) async fn there_are_only_so_many_namespaces(fixture: Fixture) {
    let store = &fixture.stores.cache;
    for n in 0..CACHE_NAMESPACES {
        fill(&fixture, &address(&format!("{n}"), "k"), "v").await;
    }
    let one_more = address("more", "k");
    let outcome = put(store, &one_more, seen(&fixture, &one_more).await, "v").await;
    assert_eq!(outcome, PutOutcome::TooManyNamespaces);
    assert_eq!(miss(store, &one_more).await, Some(MissReason::Absent));
    for n in 0..CACHE_NAMESPACES {
        assert!(get(store, &address(&format!("{n}"), "k")).await.is_ok());
        fill(&fixture, &address(&format!("{n}"), "another"), "v").await;
    }
}

pub(super) async fn what_is_held_never_exceeds_the_bounds(fixture: Fixture) {
    let store = &fixture.stores.cache;
    // Alone, a namespace may use all that it may have, and not more.
    for n in 0..200 {
        fill(&fixture, &address("first", &format!("{n}")), vec![0; 8 << 10]).await;
        assert!(cached_bytes(&fixture).await <= CACHE_NAMESPACE_BYTES);
    }
    assert!(cached_bytes(&fixture).await >= CACHE_NAMESPACE_BYTES * 8 / 10);
    let tasks: Vec<_> = (0..4)
        .map(|seed| {
            let (store, operation) = (Arc::clone(store), Arc::clone(&fixture.stores.operation));
            tokio::spawn(async move {
                let mut random = Random::from(seed);
                for _ in 0..500 {
                    let namespace = ["a", "b", "c", "first"][random.below(4)];
                    let address = address(namespace, &format!("{}", random.below(60)));
                    let bytes = match random.below(20) {
                        0 => random.below(CACHE_NAMESPACE_BYTES),
                        _ => random.below(20 << 10),
                    };
                    match random.below(8) {
                        0 => drop(store.delete(&address.key).await.expect("the store works")),
                        1..4 => drop(get(&store, &address).await),
                        _ => drop(put(&store, &address, Seen::Number(0), vec![0; bytes]).await),
                    }
                    let held = operation.status().await.expect("the store works").bytes("cache");
                    assert!(held <= CACHE_BYTES as u64, "{held} bytes are held");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("does not panic");
    }
    for n in 0..400 {
        let namespace = ["a", "b", "c", "first"][n % 4];
        fill(&fixture, &address(namespace, &format!("{n}")), vec![0; 8 << 10]).await;
    }
    let held = cached_bytes(&fixture).await;
    assert!((CACHE_BYTES * 7 / 10..=CACHE_BYTES).contains(&held), "{held} bytes are held");
}

pub(super) async fn a_small_namespace_is_not_pushed_out_by_a_busy_one(fixture: Fixture) {
    let store = &fixture.stores.cache;
    // The busy ones have taken everything first.
    let crowd = async |from: usize| {
        for n in from..from + 300 {
            fill(&fixture, &address(["busy", "busier"][n % 2], &format!("{n}")), vec![0; 8 << 10])
                .await;
        }
    };
    crowd(0).await;
    for n in 0..10 {
        fill(&fixture, &address("small", &format!("{n}")), vec![1; 1 << 10]).await;
    }
    crowd(300).await;
    for n in 0..10 {
        let found = get(store, &address("small", &format!("{n}"))).await;
        assert!(found.is_ok(), "{n}: {found:?}");
    }
    // And it grows to its share when it is used more.
    for n in 0..60 {
        fill(&fixture, &address("small", &format!("{n}")), vec![1; 4 << 10]).await;
    }
    let mut held = 0;
    for n in 0..60 {
        held += usize::from(get(store, &address("small", &format!("{n}"))).await.is_ok());
    }
    assert!(held >= 45, "{held} of 60");
}

pub(super) async fn what_is_read_often_survives_a_scan(fixture: Fixture) {
    const HOT: usize = 20;
    let store = &fixture.stores.cache;
    let hot = |n: usize| address("n", &format!("hot {n}"));
    for n in 0..HOT {
        fill(&fixture, &hot(n), vec![1; 4 << 10]).await;
    }
    // Ten times as much as there is room for, each asked for once.
    let once = 10 * CACHE_NAMESPACE_BYTES / (4 << 10);
    let (mut hits, mut looks) = (0, 0);
    for n in 0..once {
        let scanned = address("n", &format!("{n}"));
        assert!(get(store, &scanned).await.is_err());
        fill(&fixture, &scanned, vec![0; 4 << 10]).await;
        if n % 4 == 0 {
            hits += usize::from(get(store, &hot(n / 4 % HOT)).await.is_ok());
            looks += 1;
        }
    }
    assert!(hits * 100 >= looks * 95, "{hits} of {looks}");
    for n in 0..once {
        let reason = miss(store, &address("n", &format!("{n}"))).await;
        assert!(matches!(reason, None | Some(MissReason::Evicted)), "{n}: {reason:?}");
    }
}

pub(super) async fn what_is_no_longer_used_makes_room_for_what_is(fixture: Fixture) {
    const BYTES: usize = 4 << 10;
    let store = &fixture.stores.cache;
    for n in 0..CACHE_NAMESPACE_BYTES / BYTES {
        fill(&fixture, &address("n", &format!("old {n}")), vec![0; BYTES]).await;
    }
    let used = CACHE_NAMESPACE_BYTES / BYTES / 2;
    let mut hits = 0;
    for _ in 0..5 {
        hits = 0;
        for n in 0..used {
            let address = address("n", &format!("used {n}"));
            match miss(store, &address).await {
                None => hits += 1,
                Some(_) => fill(&fixture, &address, vec![1; BYTES]).await,
            }
        }
    }
    assert!(hits * 100 >= used * 90, "{hits} of {used} after five rounds");
}
