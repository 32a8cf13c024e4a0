//! The connections that read the rows of paged tables, beside the one that writes.
//!
//! Knows neither rows nor tables. Invariant: a snapshot sees the file as it was at one moment, and
//! knows how far the journal was in the tables then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::embedded::sqlite::failed_to;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The most callers that read at a time; others wait. The writer's thread reads beside them.
const MAX_READERS: usize = 8;
/// SQLite's own cache of pages, of each connection.
const PAGES_KIB: i64 = 1024;

/// The connections to one file. They are opened when they are needed, and kept.
#[derive(Debug)]
pub(in crate::store::embedded::durable) struct Readers {
    path: PathBuf,
    /// `None` when the file is closed.
    idle: Mutex<Option<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Makes the readers of the file at `path`; opens nothing.
    pub(in crate::store::embedded::durable) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(Some(Vec::new())),
            permits: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// Closes all connections. Reads fail afterwards.
    pub(in crate::store::embedded::durable) fn close(&self) {
        self.permits.close();
        self.idle.lock().take();
    }

    /// Waits until a caller may read. The writer needs no permit.
    ///
    /// # Errors
    /// When the file is closed.
    pub(super) async fn permit(&self) -> StoreResult<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())
    }

    /// Runs `work` on a connection. It may see the file at several moments.
    pub(in crate::store::embedded::durable) fn with<R>(
        &self,
        work: impl FnOnce(&Connection) -> StoreResult<R>,
    ) -> StoreResult<R> {
        let idle = self.idle.lock().as_mut().ok_or_else(closed)?.pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.open().map_err(failed_to("open the durable database to read"))?,
        };
        // A connection on which something failed is not used again.
        let result = work(&conn)?;
        if let Some(idle) = self.idle.lock().as_mut()
            && idle.len() <= MAX_READERS
        {
            idle.push(conn);
        }
        Ok(result)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.pragma_update(None, "cache_size", -PAGES_KIB)?;
        conn.pragma_update(None, "mmap_size", 0)?;
        Ok(conn)
    }
}

fn closed() -> StoreError {
    StoreError::new(ErrorKind::Unavailable, "the store is closed")
}

/// The file as it was at one moment.
pub(super) struct Snapshot<'a> {
    txn: Transaction<'a>,
    /// The last journal entry that was in the tables.
    pub(super) compacted_seq: i64,
}

impl<'a> Snapshot<'a> {
    /// Takes a snapshot of the file as it is now.
    pub(super) fn take(conn: &'a Connection) -> StoreResult<Self> {
        let failed = || failed_to("begin to read the durable database");
        let txn = conn.unchecked_transaction().map_err(failed())?;
        // The first read begins the snapshot.
        let compacted_seq = txn
            .prepare_cached("SELECT seq FROM compacted")
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(failed())?;
        Ok(Self { txn, compacted_seq })
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.txn
    }
}
