//! Scans of the local copy: snapshots with selectors, and what deletions by selector find.
//!
//! The copy is brought up to date once, and is locked for one piece at a time from then on; others bring it further up
//! to date meanwhile. A scan begins anew when the copy was rebuilt. It ends with its caller: no piece is read after the
//! future was dropped. Invariant: matching never happens on an async thread, and never while the copy is locked, but for
//! a bounded number of series at the end.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::local_copy::{ATTEMPTS, LocalCopy};
use super::{RedisSeries, ended_early};
use crate::model::selector::Selector;
use crate::model::series::SeriesKey;
use crate::store::scan::Scan;
use crate::store::{ErrorKind, Snapshot, StoreError, StoreResult};

impl RedisSeries {
    /// Reads a snapshot with selectors.
    pub(super) async fn scan_snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        let finish = move |copy: &LocalCopy, scan: &mut Scan<()>| {
            // A copy that is to be rebuilt is not read from.
            let cursor = copy.position()?.cursor();
            scan.finish(copy).then(|| {
                let found = scan.found().take(limit);
                let points = found.filter_map(|(key, ())| copy.point(key)).collect();
                Snapshot { points, cursor, more: scan.count() > limit }
            })
        };
        Ok(self.scan(selectors, after, limit, finish).await?.1)
    }

    /// Returns the series that selectors match. Some may have been deleted while others were looked at.
    pub(super) async fn scan_keys(&self, selectors: &[Selector]) -> StoreResult<Scan<()>> {
        let finish =
            |copy: &LocalCopy, scan: &mut Scan<()>| scan.has_caught_up_with(copy).then_some(());
        Ok(self.scan(selectors, None, usize::MAX, finish).await?.0)
    }

    /// Takes steps until `finish` returns a result; it is called with the locked copy, whenever the scan may be
    /// complete.
    async fn scan<T: Send + 'static>(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
        finish: impl Fn(&LocalCopy, &mut Scan<()>) -> Option<T> + Send + Sync + 'static,
    ) -> StoreResult<(Scan<()>, T)> {
        let _admitted = self.inner.turns.admit()?;
        let finish = Arc::new(finish);
        for _ in 0..ATTEMPTS {
            let identity = self
                .to_the_end(|inner| async move {
                    let mut copy = inner.local_copy.lock().await;
                    copy.sync(&inner).await?;
                    Ok(copy.identity())
                })
                .await?;
            let mut scan = Scan::new(selectors.to_vec(), after.cloned(), limit);
            loop {
                let turn = self.inner.turns.step().await;
                let mut copy = Arc::clone(&self.inner.local_copy).lock_owned().await;
                if !Arc::ptr_eq(&copy.identity(), &identity) {
                    break;
                }
                let finish = Arc::clone(&finish);
                let step = move || {
                    // Kept by the step, which goes on when its caller is gone.
                    let _turn = turn;
                    if scan.is_ready() {
                        let outcome = finish(&copy, &mut scan);
                        return (scan, outcome);
                    }
                    let piece = scan.read_piece(&mut *copy);
                    drop(copy);
                    scan.take(piece);
                    (scan, None)
                };
                let (back, outcome) =
                    spawn_blocking(step).await.map_err(|error| ended_early(&error))?;
                if let Some(outcome) = outcome {
                    return Ok((back, outcome));
                }
                scan = back;
            }
        }
        let why = "the copy of all series is rebuilt faster than it is read";
        Err(StoreError::new(ErrorKind::Throttled, why))
    }
}
