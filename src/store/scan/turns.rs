//! The turns of scans: how many run at a time.
//!
//! Not the work itself. Invariant: whoever has a turn gives it back by dropping it, so none is lost with its caller.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{ErrorKind, StoreError, StoreResult};

/// The most scans with selectors at a time, those included that wait for their next step. Further ones are refused.
const MOST_SCANS: usize = 64;

/// The turns of the scans.
#[derive(Debug)]
pub(in crate::store) struct ScanTurns {
    admitted: Arc<Semaphore>,
    /// Half of the processors, so that scans leave the others to everybody else. Fair: turns are taken in order.
    steps: Arc<Semaphore>,
    /// Reads without selectors. They are short, but each thread that they run on keeps memory of the allocator: a
    /// thousand readers that begin at one moment would take half a gigabyte for as many threads.
    reads: Arc<Semaphore>,
}

impl ScanTurns {
    pub(in crate::store) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            admitted: Arc::new(Semaphore::new(MOST_SCANS)),
            steps: Arc::new(Semaphore::new(processors.div_ceil(2))),
            reads: Arc::new(Semaphore::new(2 * processors)),
        }
    }

    /// Waits for the turn of a read without selectors.
    pub(in crate::store) async fn read(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.reads).acquire_owned().await.ok()
    }

    /// Waits for the turn of a step of a scan with selectors.
    pub(in crate::store) async fn step(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.steps).acquire_owned().await.ok()
    }

    /// Lets a scan with selectors begin.
    ///
    /// # Errors
    /// [`ErrorKind::Throttled`] when too many run already.
    pub(in crate::store) fn admit(&self) -> StoreResult<OwnedSemaphorePermit> {
        Arc::clone(&self.admitted).try_acquire_owned().map_err(|error| {
            let detail = "too many scans with selectors are running";
            StoreError::caused_by(ErrorKind::Throttled, detail, error)
        })
    }
}
