//! Brings the pages up to date with the store, in the background.
//!
//! Not a scrape: none waits for the refresher. The cost of a refresh grows with the number of changes. When the
//! store fails, the last pages stay, the metrics of the store among them; the failure and the age of the pages are
//! metrics.
//! Invariant: mirror and cursor always belong together: the mirror is what a snapshot at the
//! cursor would show.

mod exports;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use self::exports::Exports;
use super::chunks::ChunkReuse;
use super::mirror::Mirror;
use super::own::totals::{CacheRegistry, LastTotal};
use super::scrape::Pages;
use crate::model::cursor::Cursor;
use crate::model::series::SeriesKey;
use crate::model::time::SteadyTime;
use crate::model::{FailureEvent, LastFailure};
use crate::store::{
    Change, Delta, ErrorKind, Operation, SeriesStore, Snapshot, StoreError, StoreResult,
    StoreStatus,
};

/// The number of series that are read at once.
const BATCH_SERIES: usize = 50_000;
/// The number of batches after which the pages are published, even if writers are faster than the refresher.
const MAX_BATCHES: usize = 200;
/// The timeout of one request to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// The refresher. One per server.
pub struct Refresher {
    series: Arc<dyn SeriesStore>,
    operation: Arc<dyn Operation>,
    pages: Arc<Pages>,
    caches: Arc<CacheRegistry>,
    reuse: Arc<ChunkReuse>,
    exports: Exports,
    /// `None` before the first snapshot, and after the store refused the cursor.
    state: Mutex<Option<MirrorState>>,
    totals: parking_lot::Mutex<LastStoreTotals>,
    last_failure: parking_lot::Mutex<LastFailure>,
    batch_series: usize,
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").finish_non_exhaustive()
    }
}

/// The mirror, and the position up to which it has all changes.
struct MirrorState {
    mirror: Mirror,
    cursor: Cursor,
    /// For each export, whether the mirror has its series.
    has_export: Vec<bool>,
}

/// The totals of the store at the last tick.
#[derive(Default)]
struct LastStoreTotals {
    flush_failures: LastTotal,
    commit_failures: LastTotal,
    commits: LastTotal,
    committed_writes: LastTotal,
}

impl Refresher {
    /// Makes a refresher of `pages`. Registers its cache of chunks in `caches`.
    pub fn new(
        series: Arc<dyn SeriesStore>,
        operation: Arc<dyn Operation>,
        pages: Arc<Pages>,
        caches: Arc<CacheRegistry>,
        exports: Exports,
    ) -> Self {
        let reuse = Arc::new(ChunkReuse::default());
        caches.register(Arc::clone(&reuse) as _);
        Self {
            series,
            operation,
            pages,
            caches,
            reuse,
            exports,
            state: Mutex::new(None),
            totals: parking_lot::Mutex::default(),
            last_failure: parking_lot::Mutex::default(),
            batch_series: BATCH_SERIES,
        }
    }

    /// Refreshes at once and then every `interval`, which must not be zero, until `shutdown`.
    pub async fn run(&self, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                ticks.tick().await;
                // `tick` has counted and logged the failure; the next tick tries again.
                let _ = self.tick().await;
            }
        };
        let () = shutdown.run_until_cancelled(work).await.unwrap_or_default();
    }

    /// Brings the pages and the metrics about the store up to date, once.
    ///
    /// # Errors
    /// When the store failed. The last pages then stay.
    pub async fn tick(&self) -> StoreResult<()> {
        let own = Arc::clone(self.pages.own());
        let asked_at = self.pages.now();
        let status = with_timeout(self.operation.status()).await;
        let newest = status.as_ref().ok().and_then(|status| status.newest.as_ref());
        let started = Instant::now();
        let refreshed = self.refresh(newest.map(|newest| (newest, asked_at))).await;
        own.refresh_duration.observe(started.elapsed().as_secs_f64());
        let outcome = refreshed.and(status.as_ref().map(drop).map_err(StoreError::clone));
        own.store.up.set(i64::from(outcome.is_ok()));
        own.store.client.show(self.operation.client_status());
        if let Ok(status) = &status {
            self.show_status(status);
        }
        self.caches.update_counters(&own.cache_hits, &own.cache_misses);
        if outcome.is_ok() {
            self.pages.set_complete();
        } else {
            own.refresh_failures.inc();
        }
        self.log(&outcome);
        outcome
    }

    /// Logs a failure when it begins, when its cause changes, and when it ends.
    fn log(&self, outcome: &StoreResult<()>) {
        let cause = outcome.as_ref().err().map(StoreError::with_causes);
        let attempt = cause.as_deref().map_or(Ok(()), Err);
        match self.last_failure.lock().record(attempt) {
            Some(FailureEvent::Began) => {
                tracing::warn!(cause, "a refresh failed; the last pages stay");
            }
            Some(FailureEvent::Ended) => tracing::info!("refreshes succeed again"),
            None => {}
        }
    }

    /// Brings the mirror up to date, and publishes it. `newest` is the position of the newest change at a moment, where
    /// it is known: a mirror that is there has all changes until that moment.
    async fn refresh(&self, newest: Option<(&Cursor, SteadyTime)>) -> StoreResult<()> {
        let mut state = self.state.lock().await;
        // Whether this refresh has built the mirror from a snapshot already.
        let mut built = false;
        // When the delta was read that had no more changes behind it: the pages are as new as that.
        let mut caught_up_at = None;
        for _ in 0..MAX_BATCHES {
            let Some(mirror_state) = state.as_ref() else {
                if std::mem::replace(&mut built, true) {
                    let why = "the cursor of a new snapshot was refused";
                    return Err(StoreError::new(ErrorKind::Unavailable, why));
                }
                *state = Some(self.build().await?);
                continue;
            };
            // A mirror that was just built lacks what changed while its parts were read.
            let newest = newest.filter(|(newest, _)| !built && **newest == mirror_state.cursor);
            if let Some((_, at)) = newest {
                caught_up_at = Some(at);
                break;
            }
            let read_at = self.pages.now();
            match with_timeout(self.series.delta(&mirror_state.cursor, None, self.batch_series))
                .await?
            {
                Delta::Gone => *state = None,
                Delta::Changes { changes, next, more, .. } => {
                    apply(&mut state, changes, Some(next)).await?;
                    if !more {
                        caught_up_at = Some(read_at);
                        break;
                    }
                }
            }
        }
        // What a failing store of aggregates does not export keeps no series from the pages.
        let exported = self.refresh_exports(&mut state).await;
        self.publish(&mut state).await?;
        exported?;
        if let Some(moment) = caught_up_at {
            self.pages.set_refreshed(moment);
        }
        Ok(())
    }

    /// Builds a mirror from a snapshot that is read in several parts. Its cursor is that of the first part:
    /// changes while the others were read come again with the next delta, which brings all parts to the
    /// same state.
    async fn build(&self) -> StoreResult<MirrorState> {
        let first = self.read_part(None).await?;
        let mut mirror = Mirror::new(Arc::clone(&self.reuse));
        mirror.reserve(self.exports.names());
        let has_export = self.exports.none_mirrored();
        let mut state = Some(MirrorState { mirror, cursor: first.cursor, has_export });
        let (mut points, mut more) = (first.points, first.more);
        loop {
            let after: Option<SeriesKey> =
                points.last().filter(|_| more).map(|point| point.key.clone());
            let changes = points.into_iter().map(Change::Upserted).collect();
            let applied = apply(&mut state, changes, None);
            let Some(after) = after else {
                applied.await?;
                return state.ok_or_else(|| StoreError::new(ErrorKind::Internal, MIRROR_LOST));
            };
            // The next part is read while this one is applied: a start waits for both.
            let (next, ()) = tokio::try_join!(self.read_part(Some(&after)), applied)?;
            (points, more) = (next.points, next.more);
        }
    }

    async fn read_part(&self, after: Option<&SeriesKey>) -> StoreResult<Snapshot> {
        with_timeout(self.series.snapshot(&[], after, self.batch_series)).await
    }

    async fn publish(&self, state: &mut Option<MirrorState>) -> StoreResult<()> {
        let Some(mut taken) = state.take() else { return Ok(()) };
        let pages = Arc::clone(&self.pages);
        *state = Some(
            off_thread(move || {
                pages.own().mirror_clashes.inc_by(taken.mirror.take_skipped());
                pages.publish(taken.mirror.publish());
                taken
            })
            .await?,
        );
        Ok(())
    }

    fn show_status(&self, status: &StoreStatus) {
        let store = &self.pages.own().store;
        #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
        let shown = store
            .entries
            .replace_all(status.resources.iter().map(|of| ([of.resource], of.entries as f64)))
            .and_then(|()| {
                let limits = status.resources.iter();
                let limits = limits.filter_map(|of| Some(([of.resource], of.limit? as f64)));
                store.limits.replace_all(limits)
            })
            .and_then(|()| {
                let bytes = status.resources.iter();
                let bytes = bytes.filter_map(|of| Some(([of.resource], of.bytes? as f64)));
                store.bytes.replace_all(bytes)
            })
            .and_then(|()| {
                let limits = status.resources.iter();
                let limits = limits.filter_map(|of| Some(([of.resource], of.bytes_limit? as f64)));
                store.bytes_limits.replace_all(limits)
            });
        if let Err(error) = shown {
            tracing::error!(%error, "the metrics of the store's entries can't be set");
        }
        store.unflushed.set(i64::try_from(status.unflushed).unwrap_or(i64::MAX));
        store.oldest_unflushed.set(status.oldest_unflushed.as_secs_f64());
        let mut last = self.totals.lock();
        store.flush_failures.inc_by(last.flush_failures.increase(status.flush_failures));
        store.commit_failures.inc_by(last.commit_failures.increase(status.commit_failures));
        store.commits.inc_by(last.commits.increase(status.commits));
        store.committed_writes.inc_by(last.committed_writes.increase(status.committed_writes));
    }
}

/// Applies changes off the async threads, and advances the cursor to `next`.
async fn apply(
    state: &mut Option<MirrorState>,
    changes: Vec<Change>,
    next: Option<Cursor>,
) -> StoreResult<()> {
    if changes.is_empty() {
        if let (Some(state), Some(next)) = (state, next) {
            state.cursor = next;
        }
        return Ok(());
    }
    let apply = |state: &mut MirrorState| {
        state.mirror.apply(changes);
        state.cursor = next.unwrap_or_else(|| state.cursor.clone());
    };
    change_state(state, apply).await
}

/// Changes the state off the async threads.
///
/// It is taken out while this runs. If the change panics, it is lost, and the next tick builds a new mirror: a mirror
/// that has a part of the changes is never used.
async fn change_state(
    state: &mut Option<MirrorState>,
    change: impl FnOnce(&mut MirrorState) + Send + 'static,
) -> StoreResult<()> {
    let Some(mut taken) = state.take() else { return Ok(()) };
    let work = move || {
        change(&mut taken);
        taken
    };
    *state = Some(off_thread(work).await?);
    Ok(())
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> StoreResult<T> {
    let lost = |error| StoreError::caused_by(ErrorKind::Internal, MIRROR_LOST, error);
    tokio::task::spawn_blocking(work).await.map_err(lost)
}

const MIRROR_LOST: &str = "the mirror was lost; it is built again";

async fn with_timeout<T>(request: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    match tokio::time::timeout(STORE_TIMEOUT, request).await {
        Ok(response) => response,
        Err(error) => {
            let detail = "the store did not respond to the refresher";
            Err(StoreError::caused_by(ErrorKind::Timeout, detail, error))
        }
    }
}

#[cfg(test)]
mod tests;
