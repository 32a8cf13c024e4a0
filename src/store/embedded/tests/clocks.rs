//! What the system's clock, when it is set, and a slow disk do to what ends.

use std::time::Duration;

use super::{DAY, Fixture, MINUTE, lease_name};
use crate::clock::Clock as _;
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::time::Timestamp;
use crate::store::{CheckpointStore, ErrorKind, LeaseStore};

/// By how much the system's clock is set, in seconds.
const STEPS: [i64; 6] =
    [3600, -3600, 40 * 86_400, -40 * 86_400, -20 * 365 * 86_400, 20 * 365 * 86_400];

fn set(fixture: &Fixture, seconds: i64) {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let now = fixture.clock.now();
    let now = if seconds < 0 { now.saturating_sub(by) } else { now.saturating_add(by) };
    fixture.clock.set_system(now);
}

fn key() -> CheckpointKey {
    CheckpointKey::parse("org", "repo").expect("valid")
}

async fn checkpoint(fixture: &Fixture) -> Option<Checkpoint> {
    CheckpointStore::get(&*fixture.store, &key()).await.expect("responds")
}

/// Holds the fixture to it that all that [`take_all`] took is held for `left`, as the system's clock counts it now.
async fn assert_held(fixture: &Fixture, left: Duration) {
    assert!(!fixture.lock("a").await.expect("responds"), "a lock was granted twice");
    assert!(fixture.lease("l", "other").await.is_none(), "a lease was granted twice");
    let lease = fixture.read_lease("l").await.expect("it is held");
    let shown = lease.expires_at.saturating_since(fixture.clock.now());
    assert!(shown >= left && shown < left + Duration::from_millis(1), "{shown:?}, not {left:?}");
    let held = LeaseStore::renew(&*fixture.store, &lease_name("l"), lease.token, Some(left)).await;
    assert!(held.expect("responds").is_some());
    assert!(checkpoint(fixture).await.is_some(), "a checkpoint was lost");
}

async fn take_all(fixture: &Fixture) {
    assert!(fixture.lock("a").await.expect("responds"));
    assert!(fixture.lease("l", "me").await.is_some());
    let set = fixture.store.set(key(), Timestamp::from_nanos(7), false, None).await;
    set.expect("responds");
}

#[tokio::test]
async fn setting_the_system_clock_ends_nothing_and_prolongs_nothing() {
    const TICK: Duration = Duration::from_millis(1);
    for step in STEPS {
        let fixture = Fixture::new();
        take_all(&fixture).await;
        set(&fixture, step);
        assert_held(&fixture, MINUTE).await;
        let fixture = fixture.restart().await;
        assert_held(&fixture, MINUTE).await;
        // Set while the server is down.
        set(&fixture, -2 * step);
        let fixture = fixture.kill();
        assert_held(&fixture, MINUTE).await;
        fixture.clock.advance(MINUTE - TICK);
        assert_held(&fixture, TICK).await;
        fixture.clock.advance(2 * TICK);
        assert!(fixture.lock("a").await.expect("responds"), "a lock was prolonged");
        assert!(fixture.lease("l", "other").await.is_some(), "a lease was prolonged");
        fixture.clock.advance(DAY - MINUTE - 2 * TICK);
        assert!(checkpoint(&fixture).await.is_some());
        fixture.clock.advance(TICK);
        assert!(checkpoint(&fixture).await.is_none(), "a checkpoint was prolonged");
    }
}

#[tokio::test]
async fn a_checkpoint_that_was_written_by_a_wrong_clock_lives_for_the_retention() {
    const TICK: Duration = Duration::from_millis(1);
    for step in STEPS {
        let fixture = Fixture::new();
        set(&fixture, step);
        let written = fixture.store.set(key(), Timestamp::from_nanos(7), false, None).await;
        written.expect("responds");
        fixture.clock.advance(DAY / 2);
        assert!(checkpoint(&fixture).await.is_some(), "{step}");
        // Corrected while the server is down.
        set(&fixture, -step);
        let fixture = fixture.restart().await;
        fixture.clock.advance(DAY / 2 - TICK);
        assert!(checkpoint(&fixture).await.is_some(), "{step}");
        fixture.clock.advance(TICK);
        assert!(checkpoint(&fixture).await.is_none(), "{step}");
    }
}

/// Lets the disk take so long for the next commit.
fn stall(fixture: &Fixture, duration: Duration) {
    let clock = fixture.clock.clone();
    fixture.before_next_commit(move |_| clock.advance(duration));
}

#[tokio::test]
async fn a_grant_that_is_over_is_never_acknowledged() {
    let fixture = Fixture::new();
    // An end is a whole millisecond.
    let over = MINUTE + Duration::from_millis(1);
    for (duration, in_time) in [(MINUTE, true), (over, false)] {
        let key = format!("{duration:?}");
        stall(&fixture, duration);
        match fixture.lock(&key).await {
            Ok(acquired) => assert!(acquired && in_time, "{duration:?}"),
            Err(error) => assert!(!in_time && error.kind == ErrorKind::Timeout, "{error}"),
        }
        stall(&fixture, duration);
        let (name, me) = (lease_name(&key), super::Holder::parse("me").expect("valid"));
        let me = super::Claimant::anonymous(me);
        let lease = LeaseStore::acquire(&*fixture.store, &name, &me, MINUTE).await;
        assert_eq!(lease.map_err(|error| error.kind).is_ok(), in_time, "{duration:?}");
    }
    let lease = fixture.lease("renewed", "me").await.expect("free");
    stall(&fixture, over);
    let renewed = fixture.store.renew(&lease_name("renewed"), lease.token, None).await;
    assert_eq!(renewed.expect_err("it is over").kind, ErrorKind::Timeout);
    // What nobody was granted is free.
    assert!(fixture.lock(&format!("{over:?}")).await.expect("responds"));
    assert!(fixture.lease("renewed", "other").await.is_some());
}
