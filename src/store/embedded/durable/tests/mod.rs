//! The durable data as a whole: durable, atomic, and the same as a plain model.

mod fences;
mod model;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use super::counters::Counter;
use super::file::DurableFile;
use super::writer::MAX_GROUP_ROWS;
use super::{DurableStatus, DurableStore};
use crate::clock::ManualClock;
use crate::model::checkpoints::CheckpointKey;
use crate::model::leases::{Fence, FencingToken, Holder, Lease, LeaseName};
use crate::model::locks::{LockKey, LockKind};
use crate::model::time::Timestamp;
use crate::store::embedded::sqlite::OpenError;
use crate::store::embedded::sqlite::SyncMode;
use crate::store::{
    AcquireOutcome, CheckpointStore, ErrorKind, Fenced, LeaseStore, LockStore, StoreError,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Fixture {
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: Arc<DurableStore>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let start = Timestamp::parse("2026-11-21T10:00:00.000000001Z").expect("valid");
        let clock = Arc::new(ManualClock::at(start));
        let store = open(folder.path(), &clock).expect("opens");
        Self { folder, clock, store }
    }

    /// Stops without compacting anything, as if the process had been killed: the files as
    /// they are now are opened at another place.
    fn kill(self) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in files(self.folder.path()) {
            fs::write(folder.path().join(name), bytes).expect("copies");
        }
        let store = open(folder.path(), &self.clock).expect("recovers");
        Self { folder, clock: self.clock, store }
    }

    async fn restart(self) -> Self {
        self.store.close().await.expect("closes");
        let store = open(self.folder.path(), &self.clock).expect("opens again");
        Self { store, ..self }
    }

    fn before_next_commit(&self, hook: impl FnOnce(&mut DurableFile) + Send + 'static) {
        *self.store.shared.before_commit.lock() = Some(Box::new(hook));
    }

    async fn lock(&self, key: &str) -> Result<bool, StoreError> {
        let key = LockKey::parse(LockKind::Job, key).expect("valid");
        LockStore::acquire(&*self.store, vec![key], MINUTE).await.map(|all| all[0].acquired)
    }

    async fn lease(&self, name: &str, holder: &str) -> Option<Lease> {
        let holder = Holder::parse(holder).expect("valid");
        match LeaseStore::acquire(&*self.store, &lease_name(name), &holder, MINUTE).await {
            Ok(AcquireOutcome::Acquired(lease)) => Some(lease),
            Ok(AcquireOutcome::Held(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> Result<Arc<DurableStore>, OpenError> {
    let clock = Arc::clone(clock);
    DurableStore::load(Some(&folder.join("durable.db")), SyncMode::Normal, DAY)?.serve(clock)
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fs::read_dir(folder)
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .map(|path| (path.file_name().expect("a name").into(), fs::read(&path).expect("reads")))
        .collect()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_one_of_many_concurrent_callers_gets_a_lock() {
    let fixture = Arc::new(Fixture::new());
    for round in 0..20 {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let fixture = Arc::clone(&fixture);
                tokio::spawn(async move { fixture.lock(&format!("k{round}")).await })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += u32::from(task.await.expect("ends").expect("answers"));
        }
        assert_eq!(winners, 1);
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_in_a_batch_is_acquired_once() {
    let fixture = Fixture::new();
    let key = |key| LockKey::parse(LockKind::Dedup, key).expect("valid");
    let keys = vec![key("a"), key("b"), key("a")];
    let outcomes = LockStore::acquire(&*fixture.store, keys, MINUTE).await.expect("answers");
    let acquired: Vec<bool> = outcomes.iter().map(|outcome| outcome.acquired).collect();
    assert_eq!(acquired, [true, true, false]);
}

#[tokio::test]
async fn acknowledged_writes_survive_kill_and_restart() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("answers"));
    let lease = fixture.lease("l", "me").await.expect("free");
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("answers"));
    assert_eq!(fixture.store.leases_get("l").await, Some(lease.clone()));
    let fixture = fixture.restart().await;
    assert!(!fixture.lock("a").await.expect("answers"));
    assert_eq!(fixture.store.leases_get("l").await, Some(lease));
}

impl DurableStore {
    async fn leases_get(&self, name: &str) -> Option<Lease> {
        LeaseStore::get(self, &lease_name(name)).await.expect("answers")
    }
}

#[tokio::test]
async fn a_lease_lives_at_least_as_long_as_promised_and_no_row_outlives_its_end() {
    let fixture = Fixture::new();
    let lease = fixture.lease("l", "me").await.expect("free");
    fixture.clock.advance(MINUTE - Duration::from_nanos(1));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.store.leases_get("l").await, Some(lease));
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.store.leases_get("l").await, None);
    assert_eq!(fixture.store.status().expect("reports").leases, 0);
    assert_eq!(fixture.store.collect_garbage().await.expect("collects"), 1);
    assert_eq!(fixture.store.collect_garbage().await.expect("collects"), 0);
}

#[tokio::test]
async fn tokens_go_on_growing_when_every_lease_is_gone() {
    let mut fixture = Fixture::new();
    let mut last = FencingToken(0);
    for round in 0..6 {
        let lease = fixture.lease("l", &format!("holder {round}")).await.expect("free");
        assert!(lease.token > last);
        last = lease.token;
        fixture.clock.advance(2 * MINUTE);
        fixture.store.collect_garbage().await.expect("collects");
        fixture = if round % 2 == 0 { fixture.kill() } else { fixture.restart().await };
    }
}

#[tokio::test]
async fn a_life_that_knows_nothing_of_earlier_ones_repeats_none_of_their_tokens() {
    const MICROSECOND: Duration = Duration::from_micros(1);
    let clock = Fixture::new().clock;
    let backup = tempfile::tempdir().expect("tempdir");
    open(backup.path(), &clock).expect("opens").close().await.expect("closes");
    let mut last = FencingToken(0);
    for life in 0..9 {
        // A later start, by no more than the tokens that were given meanwhile need.
        clock.advance(2 * MICROSECOND);
        let wiped = tempfile::tempdir().expect("tempdir");
        let store = match life % 3 {
            0 => {
                DurableStore::load(None, SyncMode::Normal, DAY).and_then(|l| l.serve(clock.clone()))
            }
            1 => open(wiped.path(), &clock),
            _ => {
                for (name, bytes) in files(backup.path()) {
                    fs::write(wiped.path().join(name), bytes).expect("copies");
                }
                open(wiped.path(), &clock)
            }
        };
        let fixture = Fixture { folder: wiped, clock: clock.clone(), store: store.expect("opens") };
        for name in ["a", "b"] {
            let lease = fixture.lease(name, "me").await.expect("free");
            assert!(lease.token > last, "life {life}: {lease:?} after {last:?}");
            assert!(lease.token.0 < 1 << 53);
            last = lease.token;
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_lower_the_tokens() {
    let fixture = Fixture::new();
    let lease = fixture.lease("l", "me").await.expect("free");
    fixture.store.close().await.expect("closes");
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(0)));
    let store = open(fixture.folder.path(), &clock).expect("opens again");
    let fixture = Fixture { store, clock, ..fixture };
    assert!(fixture.lease("other", "me").await.expect("free").token > lease.token);
}

#[tokio::test]
async fn closing_folds_all_into_the_tables_and_ends_the_store() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("answers"));
    fixture.store.close().await.expect("closes");
    fixture.store.close().await.expect("closes twice");
    let error = fixture.lock("b").await.expect_err("is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let error = fixture.store.status().expect_err("is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(fixture.store.ready().is_err());
    let folder = fixture.folder.path();
    assert_eq!((count(folder, "locks"), count(folder, "journal")), (1, 0));
}

#[tokio::test]
async fn an_idle_store_folds_its_journal_by_itself() {
    let fixture = Fixture::new();
    assert!(fixture.lock("a").await.expect("answers"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let left = count(fixture.folder.path(), "journal");
        if left == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left} entries are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!fixture.kill().lock("a").await.expect("answers"));
}

#[tokio::test]
async fn a_full_disk_leaves_no_trace_and_is_overcome() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|disk| {
        let pages: i64 =
            disk.connection().pragma_query_value(None, "page_count", |r| r.get(0)).expect("reads");
        disk.connection().pragma_update(None, "max_page_count", pages).expect("sets");
    });
    let keys: Vec<_> = (0..1000)
        .map(|n| LockKey::parse(LockKind::Job, format!("key {n}")).expect("valid"))
        .collect();
    let error =
        LockStore::acquire(&*fixture.store, keys, MINUTE).await.expect_err("the disk is full");
    assert_eq!(error.kind, ErrorKind::Full);
    assert_eq!(fixture.store.status().expect("reports"), DurableStatus::default());
    let fixture = fixture.kill();
    assert_eq!(fixture.store.status().expect("reports"), DurableStatus::default());
    assert!(fixture.lock("key 1").await.expect("answers"));
}

#[tokio::test]
async fn a_failed_commit_leaves_no_trace_and_the_next_one_works() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|disk| {
        let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON journal BEGIN
            SELECT RAISE(ABORT, 'as the test wants'); END";
        disk.connection().execute_batch(trigger).expect("creates");
    });
    fixture.lock("a").await.expect_err("the commit fails");
    fixture.lock("a").await.expect_err("it fails still");
    assert_eq!(fixture.store.status().expect("reports"), DurableStatus::default());
    fixture.before_next_commit(|disk| {
        disk.connection().execute_batch("DROP TRIGGER fail").expect("drops");
    });
    assert!(fixture.lock("a").await.expect("answers"));
    assert_eq!(fixture.store.status().expect("reports").commits, 1);
    // What the failed ones may have left in SQLite's log was written over before.
    assert_eq!(count(fixture.folder.path(), "journal"), 2);
    let fixture = fixture.kill();
    assert!(!fixture.lock("a").await.expect("answers"));
}

#[tokio::test]
async fn a_command_that_panics_fails_and_the_store_goes_on() {
    let fixture = Fixture::new();
    let error = fixture
        .store
        .write(|txn| {
            let key = LockKey::parse(LockKind::Job, "half done").expect("valid");
            let expires_at = Timestamp::MAX;
            txn.locks.put(key, crate::store::embedded::locks::LockRow { expires_at });
            assert!(expires_at < txn.now, "as the test wants");
        })
        .await
        .expect_err("panics");
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(fixture.lock("half done").await.expect("answers"));
}

#[tokio::test]
async fn a_group_of_large_batches_is_committed_in_parts() {
    const BATCHES: u64 = 8;
    let fixture = Arc::new(Fixture::new());
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    fixture.before_next_commit(move |_| {
        entered.send(()).expect("is awaited");
        may_leave.recv().expect("comes");
    });
    let store = Arc::clone(&fixture.store);
    let first = tokio::spawn(async move { store.write(|txn| txn.next(Counter::Clock)).await });
    tokio::task::spawn_blocking(move || has_entered.recv()).await.expect("ends").expect("enters");
    // They all wait in the queue together; each is polled once, which is when it is queued.
    let mut batches = futures_util::stream::FuturesUnordered::new();
    for batch in 0..BATCHES {
        let key = |n| LockKey::parse(LockKind::Job, format!("{batch} {n}")).expect("valid");
        let keys: Vec<_> = (0..MAX_GROUP_ROWS / 2).map(key).collect();
        batches.push(LockStore::acquire(&*fixture.store, keys, MINUTE));
    }
    let next = futures_util::StreamExt::next;
    assert!(tokio::time::timeout(Duration::ZERO, next(&mut batches)).await.is_err());
    leave.send(()).expect("is awaited");
    while let Some(outcomes) = next(&mut batches).await {
        assert!(outcomes.expect("answers").iter().all(|outcome| outcome.acquired));
    }
    first.await.expect("ends").expect("answers");
    let status = fixture.store.status().expect("reports");
    assert_eq!((status.commits, status.committed_writes), (1 + BATCHES / 2, 1 + BATCHES));
}

#[tokio::test]
async fn a_writer_that_dies_is_noticed_and_one_that_is_closed_is_not_lost() {
    let fixture = Fixture::new();
    fixture.before_next_commit(|_| panic!("as the test wants"));
    let error = fixture.lock("a").await.expect_err("the writer dies");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let why = tokio::time::timeout(MINUTE, fixture.store.lost()).await.expect("in time");
    assert!(why.contains("failed"), "{why}");
    assert!(fixture.store.ready().is_err());
    fixture.store.close().await.expect("closes nevertheless");

    let fixture = Fixture::new();
    fixture.store.close().await.expect("closes");
    let lost = fixture.store.lost();
    assert!(tokio::time::timeout(Duration::ZERO, lost).await.is_err());
}

#[tokio::test]
async fn damage_stops_the_start_and_the_file_stays_as_it_is() {
    for damage in [
        "UPDATE journal SET entry = zeroblob(30)",
        "UPDATE locks SET value = replace(value, '2026', '2036')",
        "UPDATE locks SET key = replace(key, 'a', 'b')",
        "DELETE FROM journal WHERE seq = (SELECT min(seq) FROM journal)",
    ] {
        let fixture = Fixture::new();
        fixture.lock("a").await.expect("answers");
        let fixture = fixture.restart().await;
        fixture.lock("b").await.expect("answers");
        fixture.lock("c").await.expect("answers");
        let folder = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in files(fixture.folder.path()) {
            fs::write(folder.path().join(name), bytes).expect("copies");
        }
        sql(folder.path(), damage);
        let before = fs::read(folder.path().join("durable.db")).expect("reads");
        let error = open(folder.path(), &fixture.clock).err().expect("must be refused");
        assert!(matches!(error, OpenError::Damaged { .. }), "{damage}: {error}");
        assert!(before == fs::read(folder.path().join("durable.db")).expect("reads"), "{damage}");
    }
}

#[tokio::test]
async fn the_time_of_the_last_commit_is_known_before_the_clock_starts() {
    let fixture = Fixture::new();
    fixture.clock.advance(DAY);
    fixture.lock("a").await.expect("answers");
    fixture.store.close().await.expect("closes");
    let path = fixture.folder.path().join("durable.db");
    let loaded = DurableStore::load(Some(&path), SyncMode::Full, DAY).expect("loads");
    assert_eq!(loaded.clock_floor(), crate::clock::Clock::now(&*fixture.clock));
}
