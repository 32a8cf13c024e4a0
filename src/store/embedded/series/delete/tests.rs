//! Deletions by selector: interrupted ones, their purge, and series that expire before the step that deletes.

use std::sync::Arc;

use super::{EmbeddedSeries, Scan, Selector};
use crate::clock::{Clock as _, ManualClock, RetentionClock, SharedClock};
use crate::model::batch::PointBatch;
use crate::model::time::Timestamp;
use crate::store::embedded::buffered::FlushSignal;
use crate::store::embedded::durable::DurableStore;
use crate::store::embedded::durable_tables;
use crate::store::embedded::fences::{FenceLatches, Fences};
use crate::store::embedded::series::SeriesSet;
use crate::store::embedded::sqlite::SyncMode;
use crate::store::{
    DeleteOutcome, ErrorKind, Fenced, SeriesStore as _, SeriesWriter, StoreSettings,
};

fn open(clock: &Arc<ManualClock>) -> EmbeddedSeries {
    let settings = StoreSettings::for_tests();
    let loaded = DurableStore::load(None, SyncMode::Normal, durable_tables(&settings));
    let whole = loaded.expect("loads").make_whole().expect("commits");
    let latches = Arc::new(FenceLatches::default());
    let clock = Arc::clone(clock) as SharedClock;
    let durable = whole.serve(Arc::clone(&clock), Arc::clone(&latches) as _).expect("a thread");
    let retention =
        RetentionClock::start(Arc::clone(&clock), settings.series.retention, clock.read());
    let signal = Arc::new(FlushSignal::new(usize::MAX));
    let set = SeriesSet::new(settings.series);
    EmbeddedSeries::new(&set, Fences::new(durable, latches), signal, clock, retention)
        .expect("the store opens")
}

fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::parse("2026-11-21T10:00:00Z").expect("valid")))
}

async fn push(series: &EmbeddedSeries, names: &[&str]) {
    let mut batch = PointBatch::default();
    for name in names {
        batch.push(name, "", 1.0, None, None);
    }
    series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
}

/// Selects what the selector finds, as the first half of a deletion does.
async fn select(series: &EmbeddedSeries, selector: &str) -> Scan<u32> {
    let scan = Scan::new(vec![Selector::parse(selector).expect("valid")], None, usize::MAX);
    let (mut scan, ()) =
        series.scan(scan, false, |_, _| Ok(Some(()))).await.expect("the store works");
    let found = scan.take_found(usize::MAX);
    series.shared.table.lock().core.select(&found);
    scan
}

#[tokio::test]
async fn the_next_deletion_takes_nothing_that_an_interrupted_one_selected() {
    let series = open(&manual_clock());
    push(&series, &["a", "b"]).await;
    select(&series, "a").await;
    let selectors = [Selector::parse("b").expect("valid")];
    let outcome = series.scan_and_delete(&selectors, false, SeriesWriter::anybody()).await;
    assert_eq!(outcome.expect("works"), Fenced::Done(DeleteOutcome::Deleted(1)));
    select(&series, "a").await;
    assert_eq!(series.shared.table.lock().core.deletion.count(), 1, "it was deleted");
}

#[tokio::test]
async fn what_a_deletion_ended_is_purged_before_it_is_read() {
    let series = open(&manual_clock());
    push(&series, &["a"]).await;
    let mut scan = select(&series, "a").await;
    let writer = SeriesWriter::anybody();
    let outcome = series.shared.delete_selected(&mut scan, false, &writer).expect("works");
    assert_eq!(outcome, Some(Fenced::Done(DeleteOutcome::Deleted(1))));
    assert!(!series.shared.table.lock().is_purged);
    let selected = series.shared.read_purged(|table| table.core.deletion.count());
    assert_eq!(selected.expect("the store is open"), 0);
}

#[tokio::test]
async fn a_closed_table_is_not_written() {
    let series = open(&manual_clock());
    push(&series, &["a"]).await;
    series.close();
    let mut ran = false;
    let error = series.shared.write(None, |_, _| ran = true).expect_err("it is closed");
    assert_eq!((error.kind, ran), (ErrorKind::Unavailable, false));
}

#[tokio::test]
async fn what_expires_between_its_selection_and_the_deletion_is_not_counted() {
    let clock = manual_clock();
    let series = open(&clock);
    let half = StoreSettings::for_tests().series.retention / 2;
    let older = clock.now().saturating_sub(half);
    let mut batch = PointBatch::default();
    batch.push("old", "", 1.0, Some(older), None);
    batch.push("young", "", 1.0, None, None);
    series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
    let mut scan = select(&series, "{__name__=~\"old|young\"}").await;
    assert_eq!(series.shared.table.lock().core.deletion.count(), 2);
    clock.advance(half);
    let writer = SeriesWriter::anybody();
    let outcome = (0..10)
        .find_map(|_| series.shared.delete_selected(&mut scan, false, &writer).expect("works"));
    assert_eq!(outcome, Some(Fenced::Done(DeleteOutcome::Deleted(1))));
}
