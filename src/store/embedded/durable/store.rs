//! The face of the durable data: load, serve, read, write, close.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::RwLockReadGuard;
use tokio::sync::oneshot;

use super::file::DurableFile;
use super::last_commit::{LAST_COMMIT, last_commit};
use super::queue::Job;
use super::reader::TablesReader;
#[cfg(test)]
use super::shared::TestHook;
use super::shared::{PublishHook, Shared};
use super::table::DurableTable;
use super::tables::Tables;
use super::transaction::Txn;
use super::writer::Writer;
use crate::clock::{LastCommit, Moment, SharedClock};
use crate::model::time::SteadyTime;
use crate::store::embedded::sqlite::{CheckedFile, Missing, OpenError, SyncMode};
use crate::store::{ErrorKind, ResourceStatus, StoreError, StoreResult};

/// How many rows of each table one command of a purge removes.
const PURGE_ROWS: usize = 1_000;
/// After a commit has failed, checks of readiness try another one this often.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What was read from the file, before it is served: the clock can be started in between.
pub(in crate::store::embedded) struct Loaded {
    tables: Tables,
    file: Option<DurableFile>,
}

impl Loaded {
    /// Returns the time of the last commit of all earlier runs: what
    /// [`crate::clock::SystemClock::resume`] needs.
    pub(in crate::store::embedded) fn last_commit(&self) -> Option<LastCommit> {
        last_commit(&self.tables)
    }

    /// Commits what opening the file has changed, and brings to disk what an earlier process left in the log.
    ///
    /// # Errors
    /// When the disk fails.
    pub(in crate::store::embedded) fn make_whole(self) -> StoreResult<Whole> {
        self.file.as_ref().map_or(Ok(()), DurableFile::make_whole)?;
        Ok(Whole { tables: self.tables, file: self.file })
    }
}

/// What was read, when all of it is on disk.
pub(in crate::store::embedded) struct Whole {
    tables: Tables,
    file: Option<DurableFile>,
}

impl Whole {
    /// Starts to serve, in a new epoch.
    ///
    /// # Errors
    /// When the writer's thread can't be started.
    pub(in crate::store::embedded) fn serve(
        mut self,
        clock: SharedClock,
        hook: Arc<dyn PublishHook>,
    ) -> Result<Arc<DurableStore>, OpenError> {
        self.tables.begin_epoch(clock.now());
        let shared = Arc::new(Shared::new(clock, self.tables, hook));
        let writer = Writer::new(Arc::clone(&shared), self.file);
        let thread = std::thread::Builder::new()
            .name("durable-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error: io::Error| {
                OpenError::failed(Path::new("the thread durable-writer"), error)
            })?;
        Ok(Arc::new(DurableStore { shared, thread: Some(thread) }))
    }
}

/// How the durable data stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::embedded) struct DurableStatus {
    /// How much each table holds.
    pub(in crate::store::embedded) resources: Vec<ResourceStatus>,
    /// Groups of writes that were committed since the start.
    pub(in crate::store::embedded) commits: u64,
    /// Groups whose commit failed.
    pub(in crate::store::embedded) commit_failures: u64,
    /// The writes in the groups that were committed.
    pub(in crate::store::embedded) committed_writes: u64,
}

/// The durable data. Dropping it ends the writer as [`Self::close`] does, and waits for it.
pub(in crate::store::embedded) struct DurableStore {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DurableStore {
    /// Looks at the file at `path`, which is to hold `tables`, without changing it.
    ///
    /// # Errors
    /// When the file can't be served.
    pub(in crate::store::embedded) fn check(
        path: &Path,
        tables: &Tables,
        missing: Missing,
    ) -> Result<CheckedFile, OpenError> {
        DurableFile::check(path, tables, missing)
    }

    /// Reads a file into `tables`, and makes it where it is missing; without a file, everything stays
    /// in memory. Blocks while it reads.
    ///
    /// # Errors
    /// When the file can't be served; it is left as it was.
    pub(in crate::store::embedded) fn load(
        file: Option<&CheckedFile>,
        sync: SyncMode,
        mut tables: Tables,
    ) -> Result<Loaded, OpenError> {
        let file = file.map(|file| DurableFile::open(file, sync, &mut tables)).transpose()?;
        Ok(Loaded { tables, file })
    }

    /// Runs `work` as one atomic step, and returns its outcome when all that it did is on disk.
    ///
    /// # Errors
    /// When the commit fails, and nothing has changed; or when the store is closed or overloaded.
    pub(in crate::store::embedded) async fn write<R, F>(&self, work: F) -> StoreResult<R>
    where
        F: FnOnce(&mut Txn<'_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (reply, response) = oneshot::channel();
        self.shared.queue.push(Box::new(Job::new(work, reply)))?;
        response.await.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::Unavailable, "the writer ended before it responded"))
        })
    }

    /// As [`Self::write`], for work that can fail. What it has changed before it failed is kept.
    ///
    /// # Errors
    /// Also those of `work`.
    pub(in crate::store::embedded) async fn try_write<R, F>(&self, work: F) -> StoreResult<R>
    where
        F: FnOnce(&mut Txn<'_>) -> StoreResult<R> + Send + 'static,
        R: Send + 'static,
    {
        self.write(work).await.and_then(|result| result)
    }

    /// Returns the committed rows and the time, for a reader that does not await.
    ///
    /// # Errors
    /// When the store is closed.
    pub(in crate::store::embedded) fn read(
        &self,
    ) -> StoreResult<(RwLockReadGuard<'_, Tables>, Moment)> {
        self.shared.read()
    }

    /// Reads the definition of a table.
    pub(in crate::store::embedded) fn table<T: DurableTable, R>(
        &self,
        read: impl FnOnce(&T) -> R,
    ) -> R {
        read(self.shared.tables.read().rows::<T>().table())
    }

    /// Returns the time, at which something that was granted until `end` is acknowledged.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the grant is over: the disk was slow, and another caller may have got by now what
    /// this one was granted.
    pub(in crate::store::embedded) fn acknowledge(&self, end: SteadyTime) -> StoreResult<Moment> {
        let now = self.shared.clock.read();
        if end <= now.steady {
            let why = "the grant was over before it could be acknowledged";
            return Err(StoreError::new(ErrorKind::Timeout, why));
        }
        Ok(now)
    }

    /// Returns the time.
    pub(in crate::store::embedded) fn now(&self) -> Moment {
        self.shared.clock.read()
    }

    /// Returns what reads many rows, off the async threads.
    pub(in crate::store::embedded) fn reader(&self) -> TablesReader {
        TablesReader::new(Arc::clone(&self.shared))
    }

    /// Removes expired rows; returns how many.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(in crate::store::embedded) async fn purge(&self) -> StoreResult<u64> {
        let mut purged = 0;
        loop {
            // In small commands, so that others get in between.
            let rows = self.write(|txn| txn.delete_expired(PURGE_ROWS)).await?;
            if rows == 0 {
                return Ok(purged);
            }
            purged += rows as u64;
        }
    }

    /// Returns whether durable writes can be served, and if not why. After a commit has failed this tries another
    /// one, at most every second: a server that is not ready may get no write that would show that they work again.
    ///
    /// # Errors
    /// The reason, in words.
    pub(in crate::store::embedded) async fn ready(&self) -> Result<(), String> {
        self.shared.queue.is_open()?;
        let probe = {
            let failure = self.shared.commit_failure.lock();
            failure.as_ref().is_some_and(|failure| failure.at.elapsed() >= PROBE_INTERVAL)
        };
        if probe {
            // How it ends is recorded by the writer, as that of every commit.
            let _ = self.write(|txn| txn.set_counter(LAST_COMMIT, txn.now.steady.as_nanos())).await;
        }
        if let Some(failure) = &*self.shared.commit_failure.lock() {
            return Err(format!("committing to the durable database fails: {}", failure.why));
        }
        match &*self.shared.upkeep_failure.lock() {
            Some(why) => Err(format!("compacting the durable database fails: {why}")),
            None => Ok(()),
        }
    }

    /// Waits until the writer is gone although the store was not closed; returns why.
    pub(in crate::store::embedded) async fn lost(&self) -> String {
        self.closed().await;
        match self.shared.queue.lost() {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Reports on the store.
    ///
    /// # Errors
    /// When it is closed.
    pub(in crate::store::embedded) fn status(&self) -> StoreResult<DurableStatus> {
        let (tables, now) = self.read()?;
        Ok(DurableStatus {
            resources: tables.status(now.steady),
            commits: self.shared.commits.load(Ordering::Relaxed),
            commit_failures: self.shared.commit_failures.load(Ordering::Relaxed),
            committed_writes: self.shared.committed_writes.load(Ordering::Relaxed),
        })
    }

    /// Does what is in the queue, compacts the journal for a moment, and closes the file. Calls afterwards fail
    /// as [`ErrorKind::Unavailable`].
    ///
    /// # Errors
    /// When the last steps fail; what was acknowledged is on disk nevertheless.
    pub(in crate::store::embedded) async fn close(&self) -> StoreResult<()> {
        self.shared.queue.close();
        self.closed().await;
        match self.shared.close_error.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // It can't fail, since the sender lives in `self`.
        drop(closed.wait_for(|closed| *closed).await);
    }

    /// Calls `hook` with the file before the next commit.
    #[cfg(test)]
    pub(in crate::store::embedded) fn before_next_commit(&self, hook: TestHook) {
        *self.shared.before_commit.lock() = Some(hook);
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the durable database panicked");
        }
        if let Some(error) = self.shared.close_error.lock().take() {
            let error = error.with_causes();
            tracing::error!(error, "closing the durable database failed; its journal is kept");
        }
    }
}
