//! Reads of many rows are no work of async threads.

use std::time::Duration;

use futures_util::{pin_mut, poll};

use super::Fixture;
use crate::model::checkpoints::CheckpointKey;
use crate::model::generations::GenerationKey;
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{CheckpointStore, GenerationStore, LeaseStore, LockStore};

/// Polls a read while the only thread for work that blocks is busy. Where the read began on the thread that polls it,
/// the first poll would return its result: nothing else makes it wait.
macro_rules! assert_is_elsewhere {
    ($read:expr) => {{
        let (busy, done) = std::sync::mpsc::channel::<()>();
        let occupant = tokio::task::spawn_blocking(move || done.recv().is_err());
        let read = $read;
        pin_mut!(read);
        assert!(poll!(&mut read).is_pending());
        drop(busy);
        assert!(occupant.await.expect("ends"));
        read.await.expect("responds")
    }};
}

#[test]
fn lists_and_a_cleanup_with_nothing_to_do_leave_the_async_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("starts");
    runtime.block_on(read_all());
}

#[test]
fn a_list_is_read_piece_by_piece_so_that_it_ends_with_its_caller() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("starts");
    runtime.block_on(list_past_expired_locks());
}

/// Occupies the only thread for work that blocks, after what was given to it before: from when the receiver returns
/// until the sender is dropped.
fn occupy() -> (std::sync::mpsc::Sender<()>, tokio::sync::oneshot::Receiver<()>) {
    let (free, occupied) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        assert!(begin.send(()).is_ok());
        occupied.recv().is_err()
    });
    (free, begun)
}

async fn list_past_expired_locks() {
    const PIECES: usize = 3;
    let fixture = Fixture::new();
    let store = &*fixture.store;
    let lock = |n: usize| LockKey::parse(LockKind::Job, format!("{n:05}")).expect("valid");
    let (ttl, token) = (Duration::from_secs(60), ReleaseToken([0; 16]));
    let locks = (0..PIECES * 1_000).map(lock).collect();
    LockStore::acquire(store, locks, ttl, token).await.expect("responds");
    fixture.clock.advance(ttl + Duration::from_secs(1));
    let list = LockStore::list(store, LockKind::Job, None, 10);
    pin_mut!(list);
    let (mut free, begun) = occupy();
    begun.await.expect("it begins");
    for piece in 0..PIECES {
        assert!(poll!(&mut list).is_pending(), "piece {piece} waits for the thread");
        // Whoever comes next has the thread as soon as that piece is read.
        let (next, begun) = occupy();
        drop(std::mem::replace(&mut free, next));
        begun.await.expect("it begins");
    }
    assert!(poll!(&mut list).is_pending(), "the list is not at its end yet");
    drop(free);
    assert!(list.await.expect("responds").is_empty());
}

async fn read_all() {
    const ROWS: usize = 3_000;
    let fixture = Fixture::new();
    let store = &*fixture.store;
    let keys = (0..ROWS).map(|n| GenerationKey::parse(format!("{n:05}")).expect("valid"));
    store.bump(keys.collect()).await.expect("responds");
    for n in 0..3 {
        assert!(fixture.lease(&format!("lease {n}"), "holder").await.is_some());
        let key = CheckpointKey::parse("org", &format!("repo {n}")).expect("valid");
        let at = Timestamp::from_nanos(1);
        CheckpointStore::set(store, key, at, false, None).await.expect("responds");
        let key = LockKey::parse(LockKind::Job, n.to_string()).expect("valid");
        let (ttl, token) = (Duration::from_secs(600), ReleaseToken([0; 16]));
        LockStore::acquire(store, vec![key], ttl, token).await.expect("responds");
    }
    assert_eq!(assert_is_elsewhere!(store.cleanup(Duration::from_secs(60))), 0);
    assert_eq!(assert_is_elsewhere!(LeaseStore::list(store, None, 2)).len(), 2);
    assert_eq!(assert_is_elsewhere!(CheckpointStore::list(store, None, None, 100)).len(), 3);
    assert_eq!(assert_is_elsewhere!(LockStore::list(store, LockKind::Job, None, 2)).len(), 2);
    // And it finds all, over many pieces.
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(assert_is_elsewhere!(store.cleanup(Duration::from_secs(60))), ROWS as u64);
}
