//! The boundary of the clock skew, and waiting for changes over a store that changes at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PushOutcome, Writer};
use crate::clock::{Clock as _, ManualClock, SharedClock};
use crate::engine::{Engine, EngineSettings};
use crate::model::batch::{PointBatch, Position};
use crate::model::cursor::Cursor;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::embedded::{EmbeddedSettings, open, open_with};
use crate::store::{
    DeleteOutcome, Delta, Fenced, SeriesStore, SeriesWriter, Snapshot, StoreResult, StoreSettings,
    Stores, UpsertOutcome,
};

/// A store in which a series is created right after the first delta was read.
struct ChangesAfterTheFirstRead {
    inner: Arc<dyn SeriesStore>,
    was_read: AtomicBool,
}

#[async_trait]
impl SeriesStore for ChangesAfterTheFirstRead {
    async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        self.inner.upsert(batch, writer).await
    }

    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        self.inner.snapshot(selectors, after, limit).await
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        self.inner.cursor().await
    }

    async fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        let found = self.inner.delta(after, up_to, limit).await;
        if !self.was_read.swap(true, Ordering::AcqRel) {
            let mut batch = PointBatch::default();
            batch.push("m", "", 1.0, None, None);
            self.inner.upsert(batch, SeriesWriter::anybody()).await?;
        }
        found
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>> {
        self.inner.get(id).await
    }

    async fn delete(
        &self,
        id: SeriesId,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        self.inner.delete(id, writer).await
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        self.inner.delete_matching(selectors, dry_run, writer).await
    }

    async fn expire(&self) -> StoreResult<usize> {
        self.inner.expire().await
    }
}

#[tokio::test]
async fn a_change_between_the_first_read_and_the_wait_is_not_missed() {
    let (stores, clock) =
        open(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests()).expect("opens in memory");
    let inner = Arc::clone(&stores.series);
    let series = ChangesAfterTheFirstRead { inner, was_read: AtomicBool::new(false) };
    let stores = Stores { series: Arc::new(series), ..stores };
    let engine = Engine::new(stores, EngineSettings::default(), clock);
    let cursor = engine.series.cursor().await.expect("the store works");
    let hour = Duration::from_secs(3600);
    let delta = engine.series.delta(&cursor, 10, hour);
    let delta = tokio::time::timeout(Duration::from_secs(60), delta).await.expect("no long wait");
    let changes = delta.expect("the store works").expect("the cursor is known").changes;
    assert_eq!(changes.len(), 1);
}

const WRITER: Writer<'_> = Writer { role: "leader", source: "leader_scrape", bound_role: None };

#[tokio::test]
async fn a_point_is_refused_from_the_first_nanosecond_beyond_the_skew() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1 << 60)));
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let settings = EmbeddedSettings::in_memory();
    let (stores, shared) =
        open_with(&settings, &StoreSettings::for_tests(), |_| shared).expect("opens");
    let engine = Engine::new(stores, EngineSettings::default(), shared).series;
    let push = async |ahead: Duration| {
        let mut batch = PointBatch::default();
        batch.push("m", "", 1.0, Some(clock.now().saturating_add(ahead)), None);
        engine.push(batch, Position::Index, &WRITER, None).await.expect("responds")
    };
    // Also right after the system's clock was set: the check does not follow it slowly.
    for hours in [0, 1, 40 * 24] {
        clock.set_system(clock.now().saturating_add(Duration::from_secs(3600 * hours)));
        let skew = EngineSettings::default().series.max_future_skew;
        assert!(matches!(push(skew).await, PushOutcome::Applied(_)));
        let refused = push(skew + Duration::from_nanos(1)).await;
        assert!(matches!(refused, PushOutcome::InvalidPoints(_)), "{refused:?}");
    }
}
