//! A deletion by selector of which a part expires before its step.

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
use crate::store::{DeleteOutcome, Fenced, SeriesStore as _, SeriesWriter, StoreSettings};

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

#[tokio::test]
async fn what_expires_between_its_selection_and_the_deletion_is_not_counted() {
    let clock = Arc::new(ManualClock::at(Timestamp::parse("2026-11-21T10:00:00Z").expect("valid")));
    let series = open(&clock);
    let half = StoreSettings::for_tests().series.retention / 2;
    let older = clock.now().saturating_sub(half);
    let mut batch = PointBatch::default();
    batch.push("old", "", 1.0, Some(older), None);
    batch.push("young", "", 1.0, None, None);
    series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
    let all = vec![Selector::parse("{__name__=~\"old|young\"}").expect("valid")];
    let scan = Scan::new(all, None, usize::MAX);
    let (mut scan, ()) =
        series.scan(scan, false, |_, _| Ok(Some(()))).await.expect("the store works");
    let found = scan.take_found(usize::MAX);
    series.shared.table.lock().core.select(&found);
    clock.advance(half);
    let writer = SeriesWriter::anybody();
    let outcome = (0..10)
        .find_map(|_| series.shared.delete_selected(&mut scan, false, &writer).expect("works"));
    assert_eq!(found.len(), 2);
    assert_eq!(outcome, Some(Fenced::Done(DeleteOutcome::Deleted(1))));
}
