//! Snapshots and deletions by selector: scans, step by step on threads that may block.
//!
//! Each step is short and all scans take turns, so a scan of everything keeps neither writers nor other
//! scans waiting. A scan ends with its caller: no step begins after the future was dropped.
//! Invariant: matching never happens on an async thread.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::scan::Scan;
use super::{EmbeddedSeries, Shared};
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::SeriesKey;
use crate::store::embedded::blocking::off_thread;
use crate::store::{ErrorKind, Fenced, Snapshot, StoreError, StoreResult};

/// The most scans with selectors at a time, those included that wait for their next step. Further ones are refused.
const MOST_SCANS: usize = 64;

/// The turns of the scans.
#[derive(Debug)]
pub(super) struct ScanTurns {
    admitted: Arc<Semaphore>,
    /// Half of the processors, so that scans leave the others to everybody else. Fair: turns are taken in order.
    steps: Arc<Semaphore>,
    /// Reads without selectors. They are short, but each thread that they run on keeps memory of the allocator: a
    /// thousand readers that begin at one moment would take half a gigabyte for as many threads.
    reads: Arc<Semaphore>,
}

impl ScanTurns {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            admitted: Arc::new(Semaphore::new(MOST_SCANS)),
            steps: Arc::new(Semaphore::new(processors.div_ceil(2))),
            reads: Arc::new(Semaphore::new(2 * processors)),
        }
    }

    /// Waits for the turn of a read without selectors.
    pub(super) async fn read(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.reads).acquire_owned().await.ok()
    }

    fn admit(&self) -> StoreResult<OwnedSemaphorePermit> {
        Arc::clone(&self.admitted).try_acquire_owned().map_err(|error| {
            let detail = "too many scans with selectors are running";
            StoreError::caused_by(ErrorKind::Throttled, detail, error)
        })
    }
}

impl EmbeddedSeries {
    /// See [`crate::store::SeriesStore::snapshot`].
    pub(super) async fn scan_snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        let scan = Scan::new(selectors.to_vec(), after.cloned(), limit);
        // Without selectors a scan costs what it returns, and is one step.
        let finish = move |shared: &Shared, scan: &mut Scan| shared.finish_snapshot(scan, limit);
        self.scan(scan, selectors.is_empty(), finish).await
    }

    /// See [`crate::store::SeriesStore::delete_matching`].
    pub(super) async fn scan_and_delete(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        let scan = Scan::new(selectors.to_vec(), None, usize::MAX);
        let finish = move |shared: &Shared, scan: &mut Scan| {
            shared.finish_deletion(scan, dry_run, fence.as_ref())
        };
        self.scan(scan, false, finish).await
    }

    /// Takes steps until `finish` returns a result; it is called whenever the scan may be complete.
    async fn scan<T: Send + 'static>(
        &self,
        mut scan: Scan,
        at_once: bool,
        finish: impl Fn(&Shared, &mut Scan) -> StoreResult<Option<T>> + Send + Sync + 'static,
    ) -> StoreResult<T> {
        let admitted = if at_once { None } else { Some(self.shared.turns.admit()?) };
        let finish = Arc::new(finish);
        loop {
            let turn = match admitted {
                None => self.shared.turns.read().await,
                // Never closed.
                Some(_) => Arc::clone(&self.shared.turns.steps).acquire_owned().await.ok(),
            };
            let (shared, finish) = (Arc::clone(&self.shared), Arc::clone(&finish));
            let step = move || {
                // Kept by the step, which goes on when its caller is gone.
                let _turn = turn;
                let outcome = loop {
                    let outcome = shared.scan_step(&mut scan, &*finish)?;
                    if outcome.is_some() || !at_once {
                        break outcome;
                    }
                };
                Ok((scan, outcome))
            };
            let (back, outcome) = off_thread(step).await?;
            scan = back;
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }
}

impl Shared {
    fn scan_step<T>(
        &self,
        scan: &mut Scan,
        finish: &impl Fn(&Self, &mut Scan) -> StoreResult<Option<T>>,
    ) -> StoreResult<Option<T>> {
        let piece = self.read(|table| scan.read_piece(table))?;
        scan.take(piece);
        if scan.is_ready() { finish(self, scan) } else { Ok(None) }
    }

    fn finish_snapshot(&self, scan: &mut Scan, limit: usize) -> StoreResult<Option<Snapshot>> {
        self.read(|table| {
            if !scan.finish(table) {
                return None;
            }
            let points = scan.found().take(limit).map(|(_, slot)| table.core.point(slot)).collect();
            let cursor = self.cursor(table.log.head());
            Some(Snapshot { points, cursor, more: scan.count() > limit })
        })
    }

    /// The deletions are one step with the check of the fence, and no reader sees a part of them.
    fn finish_deletion(
        &self,
        scan: &mut Scan,
        dry_run: bool,
        fence: Option<&Fence>,
    ) -> StoreResult<Option<Fenced<usize>>> {
        let outcome = self.write(fence, |table, now| {
            table.expire(now);
            if !scan.finish(table) {
                return None;
            }
            if !dry_run {
                for (_, slot) in scan.found() {
                    table.delete_slot(slot, now);
                }
                table.trim();
            }
            Some(scan.count())
        })?;
        Ok(match outcome {
            Fenced::Refused => Some(Fenced::Refused),
            Fenced::Done(deleted) => deleted.map(Fenced::Done),
        })
    }
}
