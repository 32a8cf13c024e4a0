//! What every store of series must do with roles: keep that of the newest sample, and let a writer change only the
//! series of the roles that it names.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::roles::RoleName;
use holdall::model::selector::Selector;
use holdall::model::series::SeriesId;
use holdall::model::time::Timestamp;
use holdall::store::{
    DeleteOutcome, Fenced, OthersSeries, SeriesStore, SeriesWriter, UpsertCounts, UpsertOutcome,
};

use super::{one, snapshot, view_of};
use crate::conformance::fixture::{Fixture, MAX_SERIES, RETENTION, did_delete};

/// Returns a writer under a role that may change the series of its own role, and of some others.
pub(super) fn bound(role: &str, others: &[&str]) -> SeriesWriter {
    let name = |name: &&str| RoleName::parse(name).expect("valid");
    let may_change = [role].iter().chain(others).map(name).collect();
    SeriesWriter { may_change: Some(may_change), ..unbound(role) }
}

/// Returns a writer under a role that may change every series.
pub(super) fn unbound(role: &str) -> SeriesWriter {
    let role = Some(RoleName::parse(role).expect("valid"));
    SeriesWriter { role, ..SeriesWriter::anybody() }
}

async fn upsert(
    store: &Arc<dyn SeriesStore>,
    batch: PointBatch,
    writer: SeriesWriter,
) -> UpsertOutcome {
    match store.upsert(batch, writer).await.expect("the store works") {
        Fenced::Done(outcome) => outcome,
        Fenced::Refused => panic!("there was no fence"),
    }
}

/// Pushes `m` with a label; returns whether that was done, and not refused as another's series.
async fn push(
    store: &Arc<dyn SeriesStore>,
    label: &str,
    at: Option<Timestamp>,
    writer: SeriesWriter,
) -> bool {
    match upsert(store, one("m", &[("i", label)], 1.0, at), writer).await {
        UpsertOutcome::Applied(_) => true,
        UpsertOutcome::OthersSeries(others) => {
            assert_eq!((others.total, others.first[0].0), (1, 0));
            false
        }
        other => panic!("{other:?}"),
    }
}

fn id(label: &str) -> SeriesId {
    SeriesId::of("m", &format!("i=\"{label}\""))
}

fn batch(labels: impl IntoIterator<Item = usize>) -> PointBatch {
    let mut batch = PointBatch::default();
    for label in labels {
        batch.push("m", &format!("i=\"{label:02}\""), 2.0, None, None);
    }
    batch
}

fn others<T>(first: Vec<T>, role: &str) -> OthersSeries<T> {
    let total = first.len();
    let role = RoleName::parse(role).expect("valid");
    OthersSeries { first: first.into_iter().map(|what| (what, role.clone())).collect(), total }
}

pub(in crate::conformance) async fn a_writer_overwrites_no_series_of_another_role(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    upsert(store, batch((0..60).filter(|i| i % 3 == 0)), bound("leader", &[])).await;
    upsert(store, batch([1, 4]), bound("follower", &[])).await;
    upsert(store, batch([2]), SeriesWriter::anybody()).await;
    let before = snapshot(store).await;
    // Its own series, one without a role, new ones; and every third one is the leader's.
    let outcome = upsert(store, batch(0..60), bound("follower", &[])).await;
    let expected = (0..60).step_by(3).collect();
    assert_eq!(outcome, UpsertOutcome::OthersSeries(others(expected, "leader")));
    // What would be dropped as stale is refused as well.
    let now = fixture.clock.now();
    for at in [now.saturating_sub(Duration::from_secs(60)), now.saturating_sub(2 * RETENTION)] {
        assert!(!push(store, "03", Some(at), bound("follower", &[])).await);
    }
    let after = snapshot(store).await;
    assert_eq!((view_of(before.points), before.cursor), (view_of(after.points), after.cursor));
    let rest = upsert(store, batch((0..60).filter(|i| i % 3 != 0)), bound("follower", &[])).await;
    let counts = UpsertCounts { created: 37, updated: 3, stale: 0 };
    assert_eq!(rest, UpsertOutcome::Applied(counts));
    let outcome = upsert(store, batch([1, 2, 3]), bound("leader", &[])).await;
    assert_eq!(outcome, UpsertOutcome::OthersSeries(others(vec![0, 1], "follower")));
    // One that may write all that the other may write, and one that is bound to no role.
    for writer in [bound("leader", &["follower"]), unbound("leader")] {
        let outcome = upsert(store, batch(0..60), writer).await;
        let counts = UpsertCounts { created: 0, updated: 60, stale: 0 };
        assert_eq!(outcome, UpsertOutcome::Applied(counts));
    }
    assert!(!push(store, "01", None, bound("follower", &[])).await, "it was taken over");
}

pub(in crate::conformance) async fn a_writer_deletes_no_series_of_another_role(fixture: Fixture) {
    let store = &fixture.stores.series;
    upsert(store, batch((0..60).filter(|i| i % 3 == 0)), bound("leader", &[])).await;
    upsert(store, batch((0..60).filter(|i| i % 3 == 1)), bound("follower", &[])).await;
    upsert(store, batch((0..60).filter(|i| i % 3 == 2)), SeriesWriter::anybody()).await;
    let before = snapshot(store).await;
    let follower = || bound("follower", &[]);
    let refused = Fenced::Done(DeleteOutcome::OthersSeries(others(vec![id("03")], "leader")));
    assert_eq!(store.delete(id("03"), follower()).await.expect("the store works"), refused);
    let all = [Selector::parse("m").expect("valid")];
    let expected = (0..60).step_by(3).map(|i| id(&format!("{i:02}"))).collect();
    let refused = Fenced::Done(DeleteOutcome::OthersSeries(others(expected, "leader")));
    for dry_run in [true, false] {
        let matching = store.delete_matching(&all, dry_run, follower()).await;
        assert_eq!(matching.expect("the store works"), refused);
    }
    let after = snapshot(store).await;
    assert_eq!((view_of(before.points), before.cursor), (view_of(after.points), after.cursor));
    let of_follower = [Selector::parse("m{i=~\"01|02|04\"}").expect("valid")];
    for dry_run in [true, false] {
        let matching = store.delete_matching(&of_follower, dry_run, follower()).await;
        assert_eq!(matching.expect("the store works"), did_delete(3));
    }
    assert_eq!(store.delete(id("07"), follower()).await.expect("the store works"), did_delete(1));
    assert_eq!(store.delete(id("07"), follower()).await.expect("the store works"), did_delete(0));
    let matching = store.delete_matching(&all, false, bound("leader", &["follower"])).await;
    assert_eq!(matching.expect("the store works"), did_delete(56));
}

pub(in crate::conformance) async fn a_series_has_the_role_of_its_newest_sample(fixture: Fixture) {
    let store = &fixture.stores.series;
    let (leader, follower) = (|| bound("leader", &[]), || bound("follower", &[]));
    let now = fixture.clock.now();
    let earlier = now.saturating_sub(Duration::from_secs(60));
    assert!(push(store, "x", Some(now), leader()).await);
    // A stale sample, and one of a writer that leaves the role.
    assert!(push(store, "x", Some(earlier), unbound("follower")).await);
    assert!(push(store, "x", Some(now), SeriesWriter::anybody()).await);
    assert!(!push(store, "x", None, follower()).await);
    // The same sample of another role's writer.
    assert!(push(store, "x", Some(now), unbound("follower")).await);
    assert!(!push(store, "x", None, leader()).await);
    // One without a role gets that of the next writer.
    assert!(push(store, "y", None, SeriesWriter::anybody()).await);
    assert!(push(store, "y", None, follower()).await);
    assert!(!push(store, "y", None, leader()).await);
    // A deleted or expired series has none.
    assert_eq!(store.delete(id("y"), follower()).await.expect("the store works"), did_delete(1));
    assert!(push(store, "y", None, SeriesWriter::anybody()).await, "without a role again");
    assert!(push(store, "y", None, leader()).await);
    fixture.pass(RETENTION + Duration::from_secs(1)).await;
    for label in ["x", "y"] {
        assert!(push(store, label, None, SeriesWriter::anybody()).await);
        assert!(push(store, label, None, leader()).await);
        assert!(!push(store, label, None, follower()).await);
    }
}

pub(in crate::conformance) async fn the_first_points_of_others_are_named_and_all_are_counted(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let shards = fixture.stores.operation.capabilities().shards;
    let held = MAX_SERIES / shards / 2 + 5;
    upsert(store, batch(0..held), unbound("leader")).await;
    // Each of them many times, behind one that is new.
    let labels = std::iter::once(99).chain((0..150).map(|i| i % held));
    let outcome = upsert(store, batch(labels), bound("follower", &[])).await;
    let UpsertOutcome::OthersSeries(others) = outcome else { panic!("{outcome:?}") };
    assert_eq!(others.total, 150);
    let positions: Vec<usize> = others.first.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=OthersSeries::REPORTED).collect::<Vec<_>>());
    assert_eq!(snapshot(store).await.points.len(), held);
}

pub(in crate::conformance) async fn the_roles_of_series_survive_a_restart(fixture: Fixture) {
    let store = &fixture.stores.series;
    upsert(store, batch(0..10), unbound("leader")).await;
    upsert(store, batch(10..20), unbound("follower")).await;
    upsert(store, batch(20..30), SeriesWriter::anybody()).await;
    fixture.stores.operation.flush().await.expect("the store works");
    // Known series get another role, and nothing else changes.
    upsert(store, batch(0..5), unbound("a third one")).await;
    let Some(fixture) = fixture.restart(Duration::from_secs(1)).await else { return };
    let store = &fixture.stores.series;
    let outcome = upsert(store, batch(0..30), bound("follower", &[])).await;
    let UpsertOutcome::OthersSeries(others) = outcome else { panic!("{outcome:?}") };
    let roles: Vec<&str> = others.first.iter().map(|(_, role)| role.as_str()).collect();
    assert_eq!(roles, [["a third one"; 5], ["leader"; 5]].concat());
    assert_eq!(others.total, 10);
}

pub(in crate::conformance) async fn racing_roles_never_share_a_series(fixture: Fixture) {
    for round in 0..40 {
        let race = ["leader", "follower"].map(|role| {
            let store = Arc::clone(&fixture.stores.series);
            tokio::spawn(async move {
                let writer = bound(role, &[]);
                push(&store, &round.to_string(), None, writer).await
            })
        });
        let mut won = Vec::new();
        for writer in race {
            won.push(writer.await.expect("no writer panics"));
        }
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    }
}
