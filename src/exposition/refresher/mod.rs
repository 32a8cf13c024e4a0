//! Brings the pages up to date with the store, in the background.
//!
//! Its cost follows what changed. A store that fails leaves the last good page in place; the
//! failure and the page's age are metrics.
//! Invariant: the mirror and the cursor always belong together: the mirror is what a snapshot at
//! the cursor would give.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::blocks::PageReuse;
use super::mirror::Mirror;
use super::scrape::Pages;
use super::totals::{CacheRegistry, Seen};
use crate::model::cursor::Cursor;
use crate::model::series::SeriesKey;
use crate::store::{
    Change, Delta, ErrorKind, Operation, SeriesStore, StoreError, StoreResult, StoreStatus,
};

/// How many series are read at once.
const CHUNK: usize = 50_000;
/// How many chunks are read before a page is made, also when writers are always ahead.
const MAX_CHUNKS: usize = 200;
/// How long one question to the store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// The refresher. One per server.
pub struct Refresher {
    series: Arc<dyn SeriesStore>,
    operation: Arc<dyn Operation>,
    pages: Arc<Pages>,
    caches: Arc<CacheRegistry>,
    reuse: Arc<PageReuse>,
    state: Mutex<Option<Mirrored>>,
    status: parking_lot::Mutex<StatusTotals>,
    chunk: usize,
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").finish_non_exhaustive()
    }
}

/// The mirror, and how far it has come.
struct Mirrored {
    mirror: Mirror,
    cursor: Cursor,
}

#[derive(Default)]
struct StatusTotals {
    flush_failures: Seen,
    commits: Seen,
    committed_writes: Seen,
}

impl Refresher {
    /// Makes a refresher of `pages`. Its own cache of pages joins `caches`.
    pub fn new(
        series: Arc<dyn SeriesStore>,
        operation: Arc<dyn Operation>,
        pages: Arc<Pages>,
        caches: Arc<CacheRegistry>,
    ) -> Self {
        let reuse = Arc::new(PageReuse::default());
        caches.register(Arc::clone(&reuse) as _);
        Self {
            series,
            operation,
            pages,
            caches,
            reuse,
            state: Mutex::new(None),
            status: parking_lot::Mutex::default(),
            chunk: CHUNK,
        }
    }

    /// Refreshes at once and then every `interval` (longer than zero), until `shutdown`.
    pub async fn run(&self, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                ticks.tick().await;
                // Counted and logged where it happened; the next tick tries again.
                let _ = self.tick().await;
            }
        };
        let () = shutdown.run_until_cancelled(work).await.unwrap_or_default();
    }

    /// Brings the pages and the metrics about the store up to date, once.
    ///
    /// # Errors
    /// When the store failed. The pages are then those of the last time.
    pub async fn tick(&self) -> StoreResult<()> {
        let own = Arc::clone(self.pages.own());
        let started = Instant::now();
        let outcome = self.refresh().await;
        own.refresh_duration.observe(started.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            own.refresh_failures.inc();
            tracing::warn!(%error, "the series were not refreshed; the last page stays");
        }
        self.show_status(within(self.operation.status()).await.ok());
        self.caches.mirror(&own.cache_hits, &own.cache_misses);
        outcome
    }

    async fn refresh(&self) -> StoreResult<()> {
        let mut state = self.state.lock().await;
        let mut built = false;
        let mut caught_up_at = None;
        for _ in 0..MAX_CHUNKS {
            let Some(mirrored) = state.as_ref() else {
                if std::mem::replace(&mut built, true) {
                    let why = "a cursor was gone as soon as its snapshot was read";
                    return Err(StoreError::new(ErrorKind::Unavailable, why));
                }
                *state = Some(self.build().await?);
                continue;
            };
            let read_at = self.pages.now();
            match within(self.series.delta(&mirrored.cursor, self.chunk)).await? {
                Delta::Gone => *state = None,
                Delta::Changes { changes, next, more } => {
                    apply(&mut state, changes, Some(next)).await?;
                    if !more {
                        caught_up_at = Some(read_at);
                        break;
                    }
                }
            }
        }
        self.publish(&mut state).await?;
        if let Some(moment) = caught_up_at {
            self.pages.refreshed(moment);
        }
        Ok(())
    }

    /// Builds a mirror from a snapshot. The cursor is that of its first page: the deltas after
    /// it bring all pages to one moment.
    async fn build(&self) -> StoreResult<Mirrored> {
        let mut state: Option<Mirrored> = None;
        let mut after: Option<SeriesKey> = None;
        loop {
            let read = self.series.snapshot(&[], after.as_ref(), self.chunk);
            let snapshot = within(read).await?;
            state.get_or_insert_with(|| Mirrored {
                mirror: Mirror::new(Arc::clone(&self.reuse)),
                cursor: snapshot.cursor,
            });
            after = snapshot.points.last().map(|point| point.key.clone());
            let changes = snapshot.points.into_iter().map(Change::Upserted).collect();
            apply(&mut state, changes, None).await?;
            if !snapshot.more || after.is_none() {
                return state.ok_or_else(broken);
            }
        }
    }

    async fn publish(&self, state: &mut Option<Mirrored>) -> StoreResult<()> {
        let Some(mut mirrored) = state.take() else { return Ok(()) };
        let pages = Arc::clone(&self.pages);
        *state = Some(
            off_thread(move || {
                pages.own().mirror_clashes.inc_by(mirrored.mirror.take_left_out());
                pages.publish(mirrored.mirror.publish());
                mirrored
            })
            .await?,
        );
        Ok(())
    }

    fn show_status(&self, status: Option<StoreStatus>) {
        let store = &self.pages.own().store;
        store.up.set(i64::from(status.is_some()));
        store.client.show(self.operation.client_status());
        let Some(status) = status else {
            // What the store holds is not known any more.
            let _ = store.entries.replace_all::<[&str; 1]>([]);
            let _ = store.bytes.replace_all::<[&str; 1]>([]);
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
        let shown = store
            .entries
            .replace_all(status.resources.iter().map(|of| ([of.resource], of.entries as f64)))
            .and_then(|()| {
                let bytes = status.resources.iter();
                let bytes = bytes.filter_map(|of| Some(([of.resource], of.bytes? as f64)));
                store.bytes.replace_all(bytes)
            });
        if let Err(error) = shown {
            tracing::error!(%error, "the store's entries are not shown");
        }
        store.unflushed.set(i64::try_from(status.unflushed).unwrap_or(i64::MAX));
        store.oldest_unflushed.set(status.oldest_unflushed.as_secs_f64());
        let mut seen = self.status.lock();
        store.flush_failures.inc_by(seen.flush_failures.growth(status.flush_failures));
        store.commits.inc_by(seen.commits.growth(status.commits));
        store.committed_writes.inc_by(seen.committed_writes.growth(status.committed_writes));
    }
}

/// Applies changes off the async threads. When that panics, the state is gone and the next tick
/// builds a new mirror.
async fn apply(
    state: &mut Option<Mirrored>,
    changes: Vec<Change>,
    next: Option<Cursor>,
) -> StoreResult<()> {
    let Some(mut mirrored) = state.take() else { return Ok(()) };
    if changes.is_empty() {
        mirrored.cursor = next.unwrap_or(mirrored.cursor);
        *state = Some(mirrored);
        return Ok(());
    }
    let work = move || {
        mirrored.mirror.apply(changes);
        mirrored.cursor = next.unwrap_or(mirrored.cursor);
        mirrored
    };
    *state = Some(off_thread(work).await?);
    Ok(())
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| broken())
}

fn broken() -> StoreError {
    StoreError::new(ErrorKind::Internal, "the mirror broke off; it is built again")
}

async fn within<T>(question: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    match tokio::time::timeout(STORE_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::new(ErrorKind::Timeout, "no answer to the refresher")),
    }
}

#[cfg(test)]
mod tests;
