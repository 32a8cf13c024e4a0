//! The durable resources on their engine: durable, atomic, and the same as a plain model.

mod aggregates;
mod clocks;
mod commits;
mod fences;
mod long_reads;
mod model;
mod notes;
mod restarts;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::durable::{DurableFile, DurableStore, Loaded};
use super::durable_tables;
use super::fences::{FenceLatches, Fences};
use super::sqlite::{CheckedFile, Missing, OpenError, SyncMode};
use crate::clock::ManualClock;
use crate::model::leases::{Claimant, Holder, Lease, LeaseName};
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{AcquireOutcome, LeaseStore, LockStore, StoreError, StoreSettings};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Fixture {
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: Arc<DurableStore>,
    fences: Fences,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let start = Timestamp::parse("2026-11-21T10:00:00.000000001Z").expect("valid");
        let clock = Arc::new(ManualClock::at(start));
        let (store, fences) = open(folder.path(), &clock).expect("opens");
        Self { folder, clock, store, fences }
    }

    /// Stops without compacting anything, as if the process had been killed: the files as
    /// they are now are opened at another place.
    fn kill(self) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in files(self.folder.path()) {
            fs::write(folder.path().join(name), bytes).expect("copies");
        }
        let (store, fences) = open(folder.path(), &self.clock).expect("recovers");
        Self { folder, clock: self.clock, store, fences }
    }

    async fn restart(self) -> Self {
        self.store.close().await.expect("closes");
        let (store, fences) = open(self.folder.path(), &self.clock).expect("opens again");
        Self { store, fences, ..self }
    }

    fn before_next_commit(&self, hook: impl FnOnce(&mut DurableFile) + Send + 'static) {
        self.store.before_next_commit(Box::new(hook));
    }

    /// Returns how many live rows a table holds.
    fn entries(&self, resource: &str) -> u64 {
        let status = self.store.status().expect("reports");
        let of = status.resources.iter().find(|of| of.resource == resource);
        of.expect("is listed").entries
    }

    /// Holds the store to it that nothing was ever committed.
    fn assert_untouched(&self) {
        let status = self.store.status().expect("reports");
        assert!(status.resources.iter().all(|of| of.entries == 0), "{status:?}");
        assert_eq!((status.commits, status.committed_writes), (0, 0));
    }

    async fn read_lease(&self, name: &str) -> Option<Lease> {
        LeaseStore::get(&*self.store, &lease_name(name)).await.expect("responds")
    }

    async fn lock(&self, key: &str) -> Result<bool, StoreError> {
        LockStore::acquire(&*self.store, vec![lock_key(key)], MINUTE, ReleaseToken([0; 16]))
            .await
            .map(|all| all[0].acquired)
    }

    async fn take_over(&self, name: &str, holder: &str) -> Option<Lease> {
        let claimant = Claimant::anonymous(Holder::parse(holder).expect("valid"));
        self.store.take_over(&lease_name(name), &claimant, MINUTE).await.expect("responds")
    }

    async fn lease(&self, name: &str, holder: &str) -> Option<Lease> {
        let holder = Holder::parse(holder).expect("valid");
        match LeaseStore::acquire(
            &*self.store,
            &lease_name(name),
            &Claimant::anonymous(holder),
            MINUTE,
        )
        .await
        {
            Ok(AcquireOutcome::Acquired(lease)) => Some(lease),
            Ok(AcquireOutcome::Held(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads the durable data; without a folder, there is none.
fn load(folder: Option<&Path>) -> Result<Loaded, OpenError> {
    let path = folder.map(|folder| folder.join("durable.db"));
    let mut settings = StoreSettings::for_tests();
    // So little that values are read from the file as soon as they are there.
    settings.aggregates.memory = 1;
    settings.aggregates.max_outbox_notes = notes::MAX_NOTES;
    let tables = durable_tables(&settings);
    let check = |path| DurableStore::check(path, &tables, Missing::Nothing);
    let file = path.as_deref().map(check).transpose()?;
    file.as_ref().map_or(Ok(()), CheckedFile::check_pages)?;
    DurableStore::load(file.as_ref(), SyncMode::Normal, tables)
}

fn serve(loaded: Loaded, clock: &Arc<ManualClock>) -> (Arc<DurableStore>, Fences) {
    let latches = Arc::new(FenceLatches::default());
    let clock = Arc::clone(clock);
    let whole = loaded.make_whole().expect("commits");
    let store = whole.serve(clock, Arc::clone(&latches) as _).expect("a thread");
    (Arc::clone(&store), Fences::new(store, latches))
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> Result<(Arc<DurableStore>, Fences), OpenError> {
    load(Some(folder)).map(|loaded| serve(loaded, clock))
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fs::read_dir(folder)
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .map(|path| (path.file_name().expect("a name").into(), fs::read(&path).expect("reads")))
        .collect()
}

fn lock_key(key: &str) -> LockKey {
    LockKey::parse(LockKind::Job, key).expect("valid")
}

fn lease_name(name: &str) -> LeaseName {
    LeaseName::parse(name).expect("valid")
}

fn sql(folder: &Path, sql: &str) {
    rusqlite::Connection::open(folder.join("durable.db"))
        .and_then(|conn| conn.execute_batch(sql))
        .expect("runs");
}

fn count(folder: &Path, table: &str) -> i64 {
    rusqlite::Connection::open(folder.join("durable.db"))
        .and_then(|conn| conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)))
        .expect("reads")
}
