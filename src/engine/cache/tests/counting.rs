//! How lookups are counted, and which puts are refused.

use std::time::Duration;

use super::{Fixture, LONG, MAX_VALUE_BYTES, address, claim_in, patient, seen, soon};
use crate::model::cache::Namespace;
use crate::model::generations::Seen;
use crate::store::{CachePut, PutOutcome};

#[tokio::test]
async fn every_lookup_is_counted_once_as_what_its_caller_gets() {
    let fixture = Fixture::new();
    let absent = fixture.get(None).await;
    assert_eq!(fixture.counted(), (0, [1, 0, 0, 0]));
    let short = CachePut { ttl: Duration::from_nanos(1), ..fixture.put(b"v", seen(&absent), None) };
    fixture.stored(short).await;
    soon(async {
        while fixture.get(None).await.value.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (hits, misses) = fixture.counted();
    assert_eq!(misses, [1, 1, 0, 0]);
    let put = fixture.put(b"v", seen(&absent), None);
    fixture.stored(put.clone()).await;
    fixture.get(None).await;
    // A hit is one also for a caller that asks for the claim.
    fixture.get(patient(LONG)).await;
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 0, 0]));
    fixture.bump().await;
    let stale = fixture.get(None).await;
    let mine = fixture.get(patient(LONG)).await;
    assert!(claim_in(&mine).is_some());
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 2, 0]));
    // Puts are not lookups, whether refused or not.
    fixture.refused_as_moved(put).await;
    fixture.stored(fixture.put(b"w", seen(&stale), None)).await;
    assert_eq!(fixture.counted(), (hits + 2, [1, 1, 2, 0]));
    let mut other = address();
    other.key.key = "other".to_owned();
    let found = fixture.engine.get_many(&[address(), other.clone(), address(), other]).await;
    assert_eq!(found.expect("the store works").len(), 4);
    assert_eq!(fixture.counted(), (hits + 4, [3, 1, 2, 0]));
}

#[tokio::test]
async fn a_lookup_that_fails_is_neither_hit_nor_miss() {
    let fixture = Fixture::new();
    fixture.stores.operation.close().await.expect("closes");
    assert!(fixture.engine.get(&address(), None).await.is_err());
    assert!(fixture.engine.get(&address(), patient(LONG)).await.is_err());
    assert!(fixture.engine.get_many(&[address()]).await.is_err());
    assert_eq!(fixture.counted(), (0, [0; 4]));
    assert_eq!(fixture.engine.waiters.len(), 0);
}

#[tokio::test]
async fn a_namespace_beyond_the_limit_is_refused() {
    let fixture = Fixture::new();
    let seen = Seen::Number(0);
    for (namespace, fits) in [("1", true), ("2", true), ("3", false)] {
        let mut put = fixture.put(&[0; MAX_VALUE_BYTES], seen, None);
        put.address.key.namespace = Namespace::parse(namespace).expect("valid");
        match fixture.engine.put(put).await.expect("the store works") {
            PutOutcome::Stored(_) => assert!(fits),
            outcome => assert!(!fits && matches!(outcome, PutOutcome::TooManyNamespaces)),
        }
    }
}
