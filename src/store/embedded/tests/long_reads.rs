//! Reads of many rows are no work of async threads.

use std::time::Duration;

use futures_util::{pin_mut, poll};

use super::Fixture;
use crate::model::checkpoints::CheckpointKey;
use crate::model::generations::GenerationKey;
use crate::model::time::Timestamp;
use crate::store::{CheckpointStore, GenerationStore, LeaseStore};

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
    }
    assert_eq!(assert_is_elsewhere!(store.cleanup(Duration::from_secs(60))), 0);
    assert_eq!(assert_is_elsewhere!(LeaseStore::list(store, None, 2)).len(), 2);
    assert_eq!(assert_is_elsewhere!(CheckpointStore::list(store, None, None, 100)).len(), 3);
    // And it finds all, over many pieces.
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(assert_is_elsewhere!(store.cleanup(Duration::from_secs(60))), ROWS as u64);
}
