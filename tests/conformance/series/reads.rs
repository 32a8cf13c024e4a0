//! What every store of series must do for its readers: snapshots, selectors, cursors, and the signal of a change.

use holdall::model::batch::PointBatch;
use holdall::model::cursor::Cursor;
use holdall::model::selector::Selector;
use holdall::model::series::SeriesId;
use holdall::store::{Delta, SeriesWriter};

use super::{View, add, counts, follow, one, snapshot};
use crate::conformance::fixture::{Fixture, MAX_TOMBSTONES, RETENTION, did_delete};

pub(in crate::conformance) async fn a_snapshot_is_sorted_paged_and_selected(fixture: Fixture) {
    let store = &fixture.stores.series;
    let mut batch = PointBatch::default();
    for i in (0..50).rev() {
        add(&mut batch, if i % 2 == 0 { "even" } else { "odd" }, &[("i", &format!("{i:02}"))], 1.0);
    }
    counts(store, batch).await;
    let all: Vec<_> = snapshot(store).await.points.into_iter().map(|p| p.key).collect();
    assert_eq!(all.len(), 50);
    assert!(all.is_sorted());
    let mut paged = Vec::new();
    loop {
        let page = store.snapshot(&[], paged.last(), 7).await.expect("the store works");
        paged.extend(page.points.into_iter().map(|point| point.key));
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, all);
    let selectors = ["{i=~\"0.\"}", "odd{i=\"49\"}"].map(|s| Selector::parse(s).expect("valid"));
    let some = store.snapshot(&selectors, None, 100).await.expect("the store works");
    assert_eq!(some.points.len(), 11);
    let exact = [Selector::parse("odd").expect("valid"), Selector::parse("odd").expect("valid")];
    let odd = store.snapshot(&exact, None, 100).await.expect("the store works");
    assert_eq!(odd.points.len(), 25, "a selector that stands twice selects nothing twice");
}

pub(in crate::conformance) async fn a_dry_run_counts_deletions_and_deletes_nothing(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let mut batch = PointBatch::default();
    for i in 0..10 {
        add(&mut batch, "m", &[("i", &i.to_string())], 1.0);
    }
    counts(store, batch).await;
    let selectors = [Selector::parse("m{i=~\"[0-3]\"}").expect("valid")];
    let tried = store
        .delete_matching(&selectors, true, SeriesWriter::anybody())
        .await
        .expect("the store works");
    assert_eq!(tried, did_delete(4));
    assert_eq!(snapshot(store).await.points.len(), 10);
    let done = store
        .delete_matching(&selectors, false, SeriesWriter::anybody())
        .await
        .expect("the store works");
    assert_eq!(done, did_delete(4));
    assert_eq!(snapshot(store).await.points.len(), 6);
}

pub(in crate::conformance) async fn a_cursor_is_honoured_until_a_deletion_behind_it_is_trimmed(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    counts(store, one("kept", &[], 0.0, None)).await;
    let old = store.cursor().await.expect("the store works");
    for i in 0..MAX_TOMBSTONES {
        counts(store, one("m", &[("i", &i.to_string())], 1.0, None)).await;
    }
    let all = [Selector::parse("m").expect("valid")];
    store.delete_matching(&all, false, SeriesWriter::anybody()).await.expect("the store works");
    for _ in 0..10 * MAX_TOMBSTONES {
        counts(store, one("kept", &[], 1.0, None)).await;
    }
    let mut view = View::new();
    assert!(follow(store, &mut view, &mut old.clone(), 10).await, "nothing was forgotten yet");
    // Each part remembers so many of its own: one deletion more than all can is forgotten by some part.
    let shards = fixture.stores.operation.capabilities().shards;
    for i in 0..=(shards - 1) * MAX_TOMBSTONES {
        let labels = i.to_string();
        counts(store, one("last", &[("i", &labels)], 1.0, None)).await;
        let straw = SeriesId::of("last", &format!("i=\"{labels}\""));
        assert_eq!(
            store.delete(straw, SeriesWriter::anybody()).await.expect("the store works"),
            did_delete(1)
        );
    }
    assert_eq!(store.delta(&old, None, 10).await.expect("the store works"), Delta::Gone);
    let other = Cursor { epoch: old.epoch ^ 1, seqs: old.seqs.clone() };
    assert_eq!(store.delta(&other, None, 10).await.expect("the store works"), Delta::Gone);
    let ahead = store.cursor().await.expect("the store works");
    let ahead = Cursor { seqs: ahead.seqs.iter().map(|seq| seq + 1).collect(), ..ahead };
    assert_eq!(store.delta(&ahead, None, 10).await.expect("the store works"), Delta::Gone);
}

pub(in crate::conformance) async fn waiting_readers_are_woken_by_every_change(fixture: Fixture) {
    let store = &fixture.stores.series;
    let mut signal = store.changes();
    signal.mark_unchanged();
    counts(store, one("m", &[], 1.0, None)).await;
    assert!(signal.has_changed().expect("the store is open"));
    signal.mark_unchanged();
    fixture.pass(RETENTION).await;
    assert_eq!(store.expire().await.expect("the store works"), 1);
    assert!(signal.has_changed().expect("the store is open"));
}
