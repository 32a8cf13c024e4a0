//! What a restart, a kill, a wiped or a damaged file leaves.

use std::fs;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::{DAY, Fixture, MINUTE, count, files, load, open, serve, sql};
use crate::clock::{Clock as _, ManualClock};
use crate::model::leases::FencingToken;
use crate::model::time::Timestamp;
use crate::store::ErrorKind;
use crate::store::embedded::sqlite::OpenError;

#[tokio::test]
async fn acknowledged_writes_survive_kill_and_restart() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("responds"));
    let lease = fixture.lease("l", "me").await.expect("free");
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("responds"));
    assert_eq!(fixture.read_lease("l").await, Some(lease.clone()));
    let fixture = fixture.restart().await;
    assert!(!fixture.lock("a").await.expect("responds"));
    assert_eq!(fixture.read_lease("l").await, Some(lease));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_has_no_time_to_compact_leaves_the_journal_to_the_next_start() {
    let fixture = Fixture::new();
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    fixture.before_next_commit(move |file| {
        file.close_at_once();
        entered.send(()).expect("is awaited");
        may_leave.recv().expect("comes");
    });
    // The stop is asked for while this commit runs, so that no idle moment comes in between.
    let mut lock = Box::pin(fixture.lock("a"));
    assert!(lock.as_mut().now_or_never().is_none());
    tokio::task::block_in_place(|| has_entered.recv()).expect("the commit begins");
    let mut close = Box::pin(fixture.store.close());
    assert!(close.as_mut().now_or_never().is_none());
    leave.send(()).expect("is awaited");
    assert!(lock.await.expect("responds"));
    close.await.expect("closes");
    let folder = fixture.folder.path();
    assert_eq!((count(folder, "journal"), count(folder, "locks")), (1, 0));
    let (store, fences) = open(folder, &fixture.clock).expect("opens again");
    let fixture = Fixture { store, fences, ..fixture };
    assert!(!fixture.lock("a").await.expect("responds"));
    fixture.store.close().await.expect("closes");
    assert_eq!(count(fixture.folder.path(), "journal"), 0);
}

#[tokio::test]
async fn a_lease_lives_at_least_as_long_as_promised_and_no_row_outlives_its_end() {
    let fixture = Fixture::new();
    let lease = fixture.lease("l", "me").await.expect("free");
    fixture.clock.advance(MINUTE - Duration::from_nanos(1));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.read_lease("l").await, Some(lease));
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.read_lease("l").await, None);
    assert_eq!(fixture.entries("leases"), 0);
    assert_eq!(fixture.store.purge().await.expect("purges"), 1);
    assert_eq!(fixture.store.purge().await.expect("purges"), 0);
}

#[tokio::test]
async fn tokens_go_on_growing_when_every_lease_is_gone() {
    let mut fixture = Fixture::new();
    let mut last = FencingToken(0);
    for round in 0..6 {
        let lease = fixture.lease("l", &format!("holder {round}")).await.expect("free");
        assert!(lease.token > last);
        last = lease.token;
        fixture.clock.advance(2 * MINUTE);
        fixture.store.purge().await.expect("purges");
        fixture = if round % 2 == 0 { fixture.kill() } else { fixture.restart().await };
    }
}

#[tokio::test]
async fn an_epoch_that_knows_nothing_of_earlier_ones_repeats_none_of_their_tokens() {
    const MICROSECOND: Duration = Duration::from_micros(1);
    let clock = Fixture::new().clock;
    let backup = tempfile::tempdir().expect("tempdir");
    open(backup.path(), &clock).expect("opens").0.close().await.expect("closes");
    let mut last = FencingToken(0);
    for epoch in 0..9 {
        // A later start, by no more than the tokens that were given meanwhile need.
        clock.advance(2 * MICROSECOND);
        let wiped = tempfile::tempdir().expect("tempdir");
        let store = match epoch % 3 {
            0 => load(None).map(|loaded| serve(loaded, &clock)),
            1 => open(wiped.path(), &clock),
            _ => {
                for (name, bytes) in files(backup.path()) {
                    fs::write(wiped.path().join(name), bytes).expect("copies");
                }
                open(wiped.path(), &clock)
            }
        };
        let (store, fences) = store.expect("opens");
        let fixture = Fixture { folder: wiped, clock: clock.clone(), store, fences };
        for name in ["a", "b"] {
            let lease = fixture.lease(name, "me").await.expect("free");
            assert!(lease.token > last, "epoch {epoch}: {lease:?} after {last:?}");
            assert!(lease.token.0 < 1 << 53);
            last = lease.token;
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_lower_the_tokens() {
    let fixture = Fixture::new();
    let lease = fixture.lease("l", "me").await.expect("free");
    fixture.store.close().await.expect("closes");
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(0)));
    let (store, fences) = open(fixture.folder.path(), &clock).expect("opens again");
    let fixture = Fixture { store, fences, clock, ..fixture };
    assert!(fixture.lease("other", "me").await.expect("free").token > lease.token);
}

#[tokio::test]
async fn closing_compacts_all_and_ends_the_store() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("responds"));
    fixture.store.close().await.expect("closes");
    fixture.store.close().await.expect("closes twice");
    let error = fixture.lock("b").await.expect_err("is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let error = fixture.store.status().expect_err("is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(fixture.store.ready().await.is_err());
    let folder = fixture.folder.path();
    assert_eq!((count(folder, "locks"), count(folder, "journal")), (1, 0));
}

#[tokio::test]
async fn an_idle_store_compacts_its_journal() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("responds"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let left = count(fixture.folder.path(), "journal");
        if left == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left} entries are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!fixture.kill().lock("a").await.expect("responds"));
}

#[tokio::test]
async fn damage_stops_the_start_and_leaves_the_file_unchanged() {
    for damage in [
        "UPDATE journal SET entry = zeroblob(30)",
        "UPDATE locks SET value = replace(value, '2026', '2036')",
        "UPDATE locks SET key = replace(key, 'a', 'b')",
        "DELETE FROM journal WHERE seq = (SELECT min(seq) FROM journal)",
    ] {
        let fixture = Fixture::new();
        fixture.lock("a").await.expect("responds");
        let fixture = fixture.restart().await;
        fixture.lock("b").await.expect("responds");
        fixture.lock("c").await.expect("responds");
        let folder = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in files(fixture.folder.path()) {
            fs::write(folder.path().join(name), bytes).expect("copies");
        }
        sql(folder.path(), damage);
        let before = fs::read(folder.path().join("durable.db")).expect("reads");
        let error = open(folder.path(), &fixture.clock).err().expect("must be refused");
        assert!(matches!(error, OpenError::Damaged { .. }), "{damage}: {error}");
        assert!(before == fs::read(folder.path().join("durable.db")).expect("reads"), "{damage}");
    }
}

#[tokio::test]
async fn the_time_of_the_last_commit_is_known_before_the_clock_starts() {
    let fixture = Fixture::new();
    fixture.clock.advance(DAY);
    fixture.lock("a").await.expect("responds");
    fixture.store.close().await.expect("closes");
    let loaded = load(Some(fixture.folder.path())).expect("loads");
    let last = loaded.last_commit().expect("something was committed");
    assert_eq!(last.at.steady, fixture.clock.steady());
    assert_eq!(last.at.system, fixture.clock.now());
}

#[tokio::test]
async fn a_commit_records_how_far_the_system_clock_was_set() {
    let fixture = Fixture::new();
    fixture.lock("before").await.expect("responds");
    let set_to = fixture.clock.now().saturating_add(40 * DAY);
    fixture.clock.set_system(set_to);
    fixture.lock("after").await.expect("responds");
    fixture.store.close().await.expect("closes");
    let loaded = load(Some(fixture.folder.path())).expect("loads");
    let last = loaded.last_commit().expect("something was committed");
    assert_eq!(last.at.system, set_to);
}
