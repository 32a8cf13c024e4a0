//! Snapshots, and the steps of all scans, on threads that may block.
//!
//! Each step is short and all scans take turns, so a scan of everything keeps neither writers nor other
//! scans waiting. A scan ends with its caller: no step begins after the future was dropped.
//! Invariant: matching never happens on an async thread.

use std::sync::Arc;

use super::EmbeddedSeries;
use super::shared::Shared;
use crate::model::selector::Selector;
use crate::model::series::SeriesKey;
use crate::store::embedded::blocking::off_thread;
use crate::store::scan::Scan;
use crate::store::{Snapshot, StoreResult};

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
        let at_once = selectors.is_empty();
        let _admitted = if at_once { None } else { Some(self.shared.turns.admit()?) };
        let finish =
            move |shared: &Shared, scan: &mut Scan<u32>| shared.finish_snapshot(scan, limit);
        Ok(self.scan(scan, at_once, finish).await?.1)
    }

    /// Takes steps until `finish` returns a result; it is called whenever the scan may be complete.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        mut scan: Scan<u32>,
        at_once: bool,
        finish: impl Fn(&Shared, &mut Scan<u32>) -> StoreResult<Option<T>> + Send + Sync + 'static,
    ) -> StoreResult<(Scan<u32>, T)> {
        let finish = Arc::new(finish);
        loop {
            let turns = &self.shared.turns;
            let turn = if at_once { turns.read().await } else { turns.step().await };
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
                return Ok((scan, outcome));
            }
        }
    }
}

impl Shared {
    fn scan_step<T>(
        &self,
        scan: &mut Scan<u32>,
        finish: &impl Fn(&Self, &mut Scan<u32>) -> StoreResult<Option<T>>,
    ) -> StoreResult<Option<T>> {
        let piece = self.read(|table| scan.read_piece(table))?;
        scan.take(piece);
        if scan.is_ready() { finish(self, scan) } else { Ok(None) }
    }

    fn finish_snapshot(&self, scan: &mut Scan<u32>, limit: usize) -> StoreResult<Option<Snapshot>> {
        self.read(|table| {
            if !scan.finish(table) {
                return None;
            }
            let points = scan.found().take(limit).map(|(_, slot)| table.core.point(slot)).collect();
            let cursor = self.cursor(table.log.head());
            Some(Snapshot { points, cursor, more: scan.count() > limit })
        })
    }
}
