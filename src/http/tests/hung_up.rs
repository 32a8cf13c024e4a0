//! A push whose client hung up, over a store that is slow to apply it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use tokio::sync::{Notify, Semaphore, watch};

use super::{ask, is_problem, parts};
use crate::engine::{Engine, EngineSettings};
use crate::http::router;
use crate::http::settings::for_tests;
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::StoreSettings;
use crate::store::embedded::{EmbeddedSettings, open};
use crate::store::{
    DeleteOutcome, Delta, Fenced, SeriesStore, SeriesWriter, Snapshot, StoreResult, UpsertOutcome,
};

/// A store that applies a batch only with a permit.
struct Stalled {
    inner: Arc<dyn SeriesStore>,
    reached: Notify,
    permits: Semaphore,
}

#[async_trait]
impl SeriesStore for Stalled {
    async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        self.reached.notify_one();
        self.permits.acquire().await.expect("never closed").forget();
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
        self.inner.delta(after, up_to, limit).await
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

fn push() -> Request<Body> {
    let request = Request::post("/v1/series?role=leader&source=leader_scrape");
    let request = request.header("content-type", "text/plain");
    request.body(Body::from("a 1\n".repeat(10_000))).expect("a request")
}

#[tokio::test]
async fn the_points_of_a_client_that_hung_up_still_count() {
    let (mut stores, clock) =
        open(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests()).expect("opens in memory");
    let inner = Arc::clone(&stores.series);
    let stalled = Arc::new(Stalled { inner, reached: Notify::new(), permits: Semaphore::new(0) });
    stores.series = Arc::clone(&stalled) as Arc<dyn SeriesStore>;
    let mut settings = for_tests();
    settings.limits.buffered_body_bytes = 512 << 10;
    let parts = parts(settings);
    parts.readiness.set_engine(Arc::new(Engine::new(stores, EngineSettings::default(), clock)));
    let router = router(parts);

    let deadline = Duration::from_secs(30);
    let gone = tokio::select! {
        _ = ask(&router, push()) => false,
        reached = tokio::time::timeout(deadline, stalled.reached.notified()) => reached.is_ok(),
    };
    assert!(gone, "the first push hung up while the store was applying it");
    let second = tokio::time::timeout(deadline, ask(&router, push())).await;
    is_problem(&second.expect("is refused at once"), 503, "overloaded");
    stalled.permits.add_permits(100);
    let applied = async {
        while ask(&router, push()).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline, applied).await.expect("there is room again");
}
