//! What every cache must do about its bounds: what it refuses, what it evicts, and what it keeps.

use std::sync::Arc;

use holdall::model::cache::MissReason;
use holdall::model::generations::Seen;
use holdall::store::{CachePut, PutOutcome};

use super::{TTL, a_put, address, cached_bytes, fill, get, miss, put, seen};
use crate::conformance::fixture::{
    CACHE_BYTES, CACHE_NAMESPACE_BYTES, CACHE_NAMESPACES, Fixture, Random,
};

pub(in crate::conformance) async fn a_value_larger_than_its_namespace_is_refused(fixture: Fixture) {
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
pub(in crate::conformance) async fn a_stored_value_is_found(fixture: Fixture) {
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

pub(in crate::conformance) async fn the_number_of_namespaces_is_bounded(fixture: Fixture) {
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

pub(in crate::conformance) async fn namespaces_without_valid_values_make_room_for_new_ones(
    fixture: Fixture,
) {
    let store = &fixture.stores.cache;
    // So often that all room would be gone, if it left with the namespaces.
    for round in 0..12 {
        let deleted = |n: usize| address(&format!("deleted {round} {n}"), "k");
        for n in 0..CACHE_NAMESPACES {
            fill(&fixture, &deleted(n), vec![0; 8 << 10]).await;
        }
        for n in 0..CACHE_NAMESPACES {
            assert!(store.delete(&deleted(n).key).await.expect("the store works"));
        }
    }
    for n in 0..CACHE_NAMESPACES {
        let address = address(&format!("expired {n}"), "k");
        let put = a_put(&address, seen(&fixture, &address).await, vec![0; 8 << 10]);
        let outcome = store.put(CachePut { ttl: TTL, ..put }).await.expect("the store works");
        assert!(matches!(outcome, PutOutcome::Stored(_)), "{outcome:?}");
    }
    let early = address("early", "k");
    let outcome = put(store, &early, seen(&fixture, &early).await, "v").await;
    assert_eq!(outcome, PutOutcome::TooManyNamespaces);
    fixture.pass(2 * TTL).await;
    fixture.stores.operation.collect_garbage().await.expect("the store works");
    // They have all the room that the others had.
    for n in 0..100 {
        fill(&fixture, &address("new", &format!("{n}")), vec![0; 8 << 10]).await;
    }
    assert!(cached_bytes(&fixture).await >= CACHE_NAMESPACE_BYTES * 8 / 10);
    for n in 1..CACHE_NAMESPACES {
        fill(&fixture, &address(&format!("new {n}"), "k"), "v").await;
    }
}

pub(in crate::conformance) async fn the_cache_never_exceeds_its_bounds(fixture: Fixture) {
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

pub(in crate::conformance) async fn a_small_namespace_is_not_evicted_by_a_busy_one(
    fixture: Fixture,
) {
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

pub(in crate::conformance) async fn values_read_often_survive_a_scan(fixture: Fixture) {
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

pub(in crate::conformance) async fn unused_values_make_room_for_used_ones(fixture: Fixture) {
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
