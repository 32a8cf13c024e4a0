//! What a store of series does with samples that a wrong clock has stamped.

use std::time::Duration;

use holdall::model::time::Timestamp;
use holdall::store::UpsertCounts;

use super::super::fixture::{Fixture, MAX_FUTURE_SKEW, RETENTION};
use super::{counts, one, snapshot};

const NANO: Duration = Duration::from_nanos(1);
const UPDATED: UpsertCounts = UpsertCounts { created: 0, updated: 1, stale: 0 };
const STALE: UpsertCounts = UpsertCounts { created: 0, updated: 0, stale: 1 };

/// Pushes a value of the one series, and returns what became of it.
async fn push(fixture: &Fixture, value: f64, at: Option<Timestamp>) -> UpsertCounts {
    counts(&fixture.stores.series, one("m", &[], value, at)).await
}

async fn held(fixture: &Fixture) -> Option<(f64, Timestamp)> {
    let points = snapshot(&fixture.stores.series).await.points;
    points.first().map(|point| (point.sample.value, point.sample.updated_at))
}

pub(crate) async fn a_sample_too_far_ahead_wins_against_nothing(fixture: Fixture) {
    let now = fixture.clock.now();
    let latest = now.saturating_add(MAX_FUTURE_SKEW);
    push(&fixture, 1.0, Some(latest)).await;
    assert_eq!(push(&fixture, 2.0, Some(now)).await, STALE, "it is just not too far ahead");
    push(&fixture, 3.0, Some(latest.saturating_add(NANO))).await;
    assert_eq!(push(&fixture, 4.0, Some(now)).await, UPDATED);
    assert_eq!(held(&fixture).await, Some((4.0, now)));
    push(&fixture, 5.0, Some(latest.saturating_add(NANO))).await;
    assert_eq!(push(&fixture, 6.0, None).await, UPDATED);
    assert_eq!(held(&fixture).await, Some((6.0, now)));
}

pub(crate) async fn a_clock_that_is_set_back_freezes_no_series(fixture: Fixture) {
    push(&fixture, 1.0, None).await;
    let (_, before) = held(&fixture).await.expect("it is there");
    fixture.clock.set_back(MAX_FUTURE_SKEW);
    assert_eq!(push(&fixture, 2.0, None).await, UPDATED);
    assert_eq!(held(&fixture).await, Some((2.0, before)), "what arrives later is the newest");
    fixture.clock.set_back(RETENTION / 2);
    let now = fixture.clock.now();
    assert_eq!(push(&fixture, 3.0, Some(now)).await, UPDATED);
    assert_eq!(held(&fixture).await, Some((3.0, now)));
    // The earlier time counts for the retention, too.
    fixture.pass(RETENTION - NANO).await;
    assert_eq!(held(&fixture).await, Some((3.0, now)));
    fixture.pass(NANO).await;
    assert_eq!(held(&fixture).await, None);
}

pub(crate) async fn a_sample_that_is_older_by_a_nanosecond_is_stale(fixture: Fixture) {
    let newer = fixture.clock.now().saturating_sub(Duration::from_secs(1));
    let older = newer.saturating_sub(NANO);
    push(&fixture, 1.0, Some(newer)).await;
    assert_eq!(push(&fixture, 2.0, Some(older)).await, STALE);
    assert_eq!(held(&fixture).await, Some((1.0, newer)));
    let newest = newer.saturating_add(NANO);
    assert_eq!(push(&fixture, 3.0, Some(newest)).await, UPDATED);
    assert_eq!(held(&fixture).await, Some((3.0, newest)));
}
