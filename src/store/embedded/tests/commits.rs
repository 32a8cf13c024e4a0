//! Commits: who gets what, what a failed one leaves, how groups are cut.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Fixture, MINUTE, count};
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::store::embedded::durable::{Counter, DurableFile, MAX_GROUP_ROWS};
use crate::store::embedded::locks::{LockRow, Locks};
use crate::store::{ErrorKind, LockStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_one_of_many_concurrent_callers_gets_a_lock() {
    let fixture = Arc::new(Fixture::new());
    for round in 0..20 {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let fixture = Arc::clone(&fixture);
                tokio::spawn(async move { fixture.lock(&format!("k{round}")).await })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += u32::from(task.await.expect("ends").expect("responds"));
        }
        assert_eq!(winners, 1);
    }
}

#[tokio::test]
async fn a_key_that_is_twice_in_a_batch_is_acquired_once() {
    let fixture = Fixture::new();
    let key = |key| LockKey::parse(LockKind::Dedup, key).expect("valid");
    let keys = vec![key("a"), key("b"), key("a")];
    let outcomes = LockStore::acquire(&*fixture.store, keys, MINUTE, ReleaseToken([0; 16]))
        .await
        .expect("responds");
    let acquired: Vec<bool> = outcomes.iter().map(|outcome| outcome.acquired).collect();
    assert_eq!(acquired, [true, true, false]);
}

#[tokio::test]
async fn a_commit_that_a_full_disk_fails_leaves_no_trace_and_a_later_one_works() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|file| {
        let pages: i64 =
            file.connection().pragma_query_value(None, "page_count", |r| r.get(0)).expect("reads");
        file.connection().pragma_update(None, "max_page_count", pages).expect("sets");
    });
    let keys: Vec<_> = (0..1000)
        .map(|n| LockKey::parse(LockKind::Job, format!("key {n}")).expect("valid"))
        .collect();
    let error = LockStore::acquire(&*fixture.store, keys, MINUTE, ReleaseToken([0; 16]))
        .await
        .expect_err("the disk is full");
    assert_eq!(error.kind, ErrorKind::Full);
    fixture.assert_untouched();
    let fixture = fixture.kill();
    fixture.assert_untouched();
    assert!(fixture.lock("key 1").await.expect("responds"));
}

#[tokio::test]
async fn a_failed_commit_leaves_no_trace_and_the_next_one_works() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|file| {
        let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON journal BEGIN
            SELECT RAISE(ABORT, 'as the test wants'); END";
        file.connection().execute_batch(trigger).expect("creates");
    });
    fixture.lock("a").await.expect_err("the commit fails");
    fixture.lock("a").await.expect_err("it fails still");
    fixture.assert_untouched();
    assert!(fixture.store.status().expect("reports").commit_failures >= 2);
    let why = fixture.store.ready().await.expect_err("no commit works");
    assert!(why.contains("as the test wants"), "{why}");
    fixture.before_next_commit(|file| {
        file.connection().execute_batch("DROP TRIGGER fail").expect("drops");
    });
    assert!(fixture.lock("a").await.expect("responds"));
    assert_eq!(fixture.store.status().expect("reports").commits, 1);
    assert_eq!(fixture.store.ready().await, Ok(()));
    // What the failed ones may have left in SQLite's log was written over before.
    assert_eq!(count(fixture.folder.path(), "journal"), 2);
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("responds"));
}

#[tokio::test]
async fn a_commit_moves_older_entries_into_the_tables_on_its_way() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("responds"));
    fixture.before_next_commit(DurableFile::overfill);
    assert!(fixture.lock("b").await.expect("responds"));
    // The idle thread may already have moved the second entry too.
    assert!(count(fixture.folder.path(), "locks") >= 1);
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("responds"));
    assert!(!fixture.lock("b").await.expect("responds"));
}

#[tokio::test]
async fn a_compaction_that_fails_does_not_fail_the_commit_that_it_came_with() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("responds"));
    fixture.before_next_commit(|file| {
        file.overfill();
        let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON locks BEGIN
            SELECT RAISE(ABORT, 'as the test wants'); END";
        file.connection().execute_batch(trigger).expect("creates");
    });
    assert!(fixture.lock("b").await.expect("commits alone"));
    let why = fixture.store.ready().await.expect_err("the journal only grows");
    assert!(why.contains("as the test wants"), "{why}");
    let folder = fixture.folder.path();
    // The entry that writes over what the first attempt may have left is one of them.
    assert_eq!((count(folder, "locks"), count(folder, "journal")), (0, 3));
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("responds"));
    assert!(!fixture.lock("b").await.expect("responds"));
}

#[tokio::test]
async fn a_command_that_panics_fails_and_the_store_keeps_serving() {
    let fixture = Fixture::new();
    let error = fixture
        .store
        .write(|txn| {
            let key = LockKey::parse(LockKind::Job, "half done").expect("valid");
            let expires_at = txn.now.end_of(MINUTE);
            txn.put::<Locks>(key, LockRow { expires_at, token: None });
            assert!(expires_at < txn.now.steady, "as the test wants");
        })
        .await
        .expect_err("panics");
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(fixture.lock("half done").await.expect("responds"));
}

#[tokio::test]
async fn a_group_of_large_batches_is_committed_in_parts() {
    const BATCHES: u64 = 8;
    let fixture = Arc::new(Fixture::new());
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    fixture.before_next_commit(move |_| {
        entered.send(()).expect("is awaited");
        may_leave.recv().expect("comes");
    });
    let store = Arc::clone(&fixture.store);
    let first =
        tokio::spawn(
            async move { store.write(|txn| txn.next(Counter::named("of this test"))).await },
        );
    tokio::task::spawn_blocking(move || has_entered.recv()).await.expect("ends").expect("enters");
    // They all wait in the queue together; each is polled once, which is when it is queued.
    let mut batches = futures_util::stream::FuturesUnordered::new();
    for batch in 0..BATCHES {
        let key = |n| LockKey::parse(LockKind::Job, format!("{batch} {n}")).expect("valid");
        let keys: Vec<_> = (0..MAX_GROUP_ROWS / 2).map(key).collect();
        batches.push(LockStore::acquire(&*fixture.store, keys, MINUTE, ReleaseToken([0; 16])));
    }
    let next = futures_util::StreamExt::next;
    assert!(tokio::time::timeout(Duration::ZERO, next(&mut batches)).await.is_err());
    leave.send(()).expect("is awaited");
    while let Some(outcomes) = next(&mut batches).await {
        assert!(outcomes.expect("responds").iter().all(|outcome| outcome.acquired));
    }
    first.await.expect("ends").expect("responds");
    let status = fixture.store.status().expect("reports");
    assert_eq!((status.commits, status.committed_writes), (1 + BATCHES / 2, 1 + BATCHES));
}

#[tokio::test]
async fn a_writer_that_dies_is_noticed_and_one_that_is_closed_is_not_lost() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|_| panic!("as the test wants"));
    let error = fixture.lock("a").await.expect_err("the writer dies");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let why = tokio::time::timeout(MINUTE, fixture.store.lost()).await.expect("in time");
    assert!(why.contains("failed"), "{why}");
    assert!(fixture.store.ready().await.is_err());
    fixture.store.close().await.expect("closes nevertheless");

    let fixture = Fixture::new();
    fixture.store.close().await.expect("closes");
    let lost = fixture.store.lost();
    assert!(tokio::time::timeout(Duration::ZERO, lost).await.is_err());
}
