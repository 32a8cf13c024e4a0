//! Two sets in one flusher: parents, and children that refer to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction};

use super::flusher::FIRST_BACKOFF;
use super::{
    BufferedSet, DirtySet, Drained, FlushBatch, FlushSignal, Flusher, LockedSet, Unflushed,
};
use crate::clock::ManualClock;
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::sqlite::{Missing, SchemaPart, SyncMode};
use crate::store::{ErrorKind, StoreResult};

const PARENTS: SchemaPart = SchemaPart {
    name: "parents",
    migrations: &["CREATE TABLE parents (id INTEGER PRIMARY KEY, value INTEGER NOT NULL) STRICT"],
};
/// A child refers to the parent of the same id.
const CHILDREN: SchemaPart = SchemaPart {
    name: "children",
    migrations: &["CREATE TABLE children (
        id INTEGER PRIMARY KEY REFERENCES parents (id), value INTEGER NOT NULL) STRICT"],
};

#[derive(Default)]
struct Rows {
    values: HashMap<u32, i64>,
    dirty: DirtySet<u32>,
    /// The next write panics.
    panics: bool,
}

impl Rows {
    fn write(&mut self, id: u32, value: Option<i64>) {
        match value {
            Some(value) => self.values.insert(id, value),
            None => self.values.remove(&id),
        };
        self.dirty.mark(id, SteadyTime::from_nanos(0));
    }
}

type Shared = Arc<Mutex<Rows>>;

struct Set(SchemaPart, Shared);

impl BufferedSet for Set {
    fn schema(&self) -> SchemaPart {
        self.0
    }

    fn load(&self, conn: &Connection) -> StoreResult<()> {
        self.1.lock().values = on_disk(conn, self.0.name);
        Ok(())
    }

    fn lock(&self) -> Box<dyn LockedSet + '_> {
        Box::new(Locked { table: self.0.name, shared: &self.1, rows: self.1.lock() })
    }

    fn unflushed(&self) -> Unflushed {
        self.1.lock().dirty.unflushed()
    }
}

struct Locked<'a> {
    table: &'static str,
    shared: &'a Shared,
    rows: MutexGuard<'a, Rows>,
}

impl LockedSet for Locked<'_> {
    fn drain(&mut self) -> Box<dyn FlushBatch> {
        let marks = self.rows.dirty.drain();
        let read = |id: &u32| (*id, self.rows.values.get(id).copied());
        let rows = marks.keys.iter().map(read).collect();
        Box::new(Batch { table: self.table, shared: Arc::clone(self.shared), rows, marks })
    }
}

struct Batch {
    table: &'static str,
    shared: Shared,
    rows: Vec<(u32, Option<i64>)>,
    marks: Arc<Drained<u32>>,
}

impl FlushBatch for Batch {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn upsert(&self, txn: &Transaction<'_>) -> rusqlite::Result<()> {
        assert!(!std::mem::take(&mut self.shared.lock().panics), "as the test wants");
        for (id, value) in &self.rows {
            let Some(value) = value else { continue };
            let sql = format!(
                "INSERT INTO {} VALUES (?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET value = excluded.value",
                self.table
            );
            txn.execute(&sql, (id, value))?;
        }
        Ok(())
    }

    fn delete(&self, txn: &Transaction<'_>) -> rusqlite::Result<()> {
        for (id, value) in &self.rows {
            if value.is_none() {
                txn.execute(&format!("DELETE FROM {} WHERE id = ?1", self.table), [id])?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, failed: bool) {
        let Self { shared, marks, .. } = *self;
        drop(marks);
        let mut rows = shared.lock();
        if failed { rows.dirty.merge_back() } else { rows.dirty.flushed() }
    }
}

fn on_disk(conn: &Connection, table: &str) -> HashMap<u32, i64> {
    conn.prepare(&format!("SELECT id, value FROM {table}"))
        .and_then(|mut select| {
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .expect("reads")
}

struct Fixture {
    folder: tempfile::TempDir,
    parents: Shared,
    children: Shared,
    signal: Arc<FlushSignal>,
    flusher: Flusher,
}

impl Fixture {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("tempdir"))
    }

    fn open(folder: tempfile::TempDir) -> Self {
        let (parents, children) = (Shared::default(), Shared::default());
        let signal = Arc::new(FlushSignal::new(3));
        let sets: Vec<Arc<dyn BufferedSet>> = vec![
            Arc::new(Set(PARENTS, Arc::clone(&parents))),
            Arc::new(Set(CHILDREN, Arc::clone(&children))),
        ];
        let path = folder.path().join("buffered.db");
        let file = Flusher::check(&path, &sets, Missing::Nothing).expect("is sound");
        let flusher = Flusher::open(
            Some(&file),
            SyncMode::Normal,
            sets,
            Arc::clone(&signal),
            Arc::new(ManualClock::at(
                Timestamp::from_nanos(0).saturating_add(Duration::from_secs(9)),
            )),
        );
        let flusher = flusher.expect("opens");
        flusher.make_whole().expect("commits");
        Self { folder, parents, children, signal, flusher }
    }

    /// Writes a parent, and then its child.
    fn write(&self, id: u32, value: i64) {
        self.parents.lock().write(id, Some(value));
        self.children.lock().write(id, Some(value));
    }

    /// Deletes a child, and then its parent.
    fn delete(&self, id: u32) {
        self.children.lock().write(id, None);
        self.parents.lock().write(id, None);
    }

    /// Opens the file beside the flusher.
    fn other(&self) -> Connection {
        Connection::open(self.folder.path().join("buffered.db")).expect("opens")
    }

    /// Makes every flush that writes children fail, or work again.
    fn fail(&self, fail: bool) {
        let sql = if fail {
            "CREATE TRIGGER fail BEFORE INSERT ON children
             BEGIN SELECT RAISE(ABORT, 'as the test wants'); END"
        } else {
            "DROP TRIGGER fail"
        };
        self.other().execute_batch(sql).expect("runs");
    }
}

#[test]
fn no_child_reaches_the_disk_without_its_parent() {
    let fixture = Fixture::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2_000_u32 {
                fixture.write(round % 50, round.into());
                fixture.delete((round + 7) % 50);
            }
            done.store(true, Ordering::Release);
        });
        // The foreign key makes a flush fail that violates it.
        while !done.load(Ordering::Acquire) {
            fixture.flusher.flush().expect("the sets fit together at every moment");
        }
    });
    fixture.flusher.close().expect("closes");
    let fixture = Fixture::open(fixture.folder);
    let (parents, children) = (fixture.parents.lock(), fixture.children.lock());
    assert_eq!(parents.values, children.values);
    assert!(!parents.values.is_empty());
}

#[test]
fn a_failed_flush_marks_all_again_and_does_not_override_newer_writes() {
    let fixture = Fixture::new();
    fixture.write(1, 1);
    fixture.fail(true);
    // What the next flush is about to write, while a newer write and a deletion come.
    let error = fixture.flusher.flush().expect_err("fails");
    assert!(error.with_causes().contains("as the test wants"), "{}", error.with_causes());
    assert!(on_disk(&fixture.other(), "parents").is_empty(), "the transaction is one");
    assert_eq!(fixture.flusher.status().unflushed, 2);
    assert_eq!(fixture.flusher.status().flush_failures, 1);
    assert_eq!(fixture.flusher.status().oldest_unflushed, Duration::from_secs(9));
    fixture.parents.lock().write(1, Some(2));
    fixture.fail(false);
    assert_eq!(fixture.flusher.flush().expect("works again"), 2);
    assert_eq!(on_disk(&fixture.other(), "parents"), HashMap::from([(1, 2)]));
    assert_eq!(on_disk(&fixture.other(), "children"), HashMap::from([(1, 1)]));
    assert_eq!(fixture.flusher.status().unflushed, 0);
}

#[test]
fn a_write_during_a_failed_flush_is_kept() {
    let fixture = Fixture::new();
    fixture.write(1, 1);
    let set = Set(PARENTS, Arc::clone(&fixture.parents));
    let mut locked = set.lock();
    let batch = locked.drain();
    drop(locked);
    fixture.parents.lock().write(1, Some(2));
    fixture.parents.lock().write(2, Some(2));
    batch.finish(true);
    assert_eq!(fixture.parents.lock().dirty.unflushed().rows, 2);
    fixture.flusher.flush().expect("works");
    assert_eq!(on_disk(&fixture.other(), "parents"), HashMap::from([(1, 2), (2, 2)]));
}

#[test]
fn a_flush_that_panics_loses_no_mark() {
    let fixture = Fixture::new();
    fixture.write(1, 1);
    fixture.children.lock().panics = true;
    let flush = || fixture.flusher.flush();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(flush)).expect_err("panics");
    assert_eq!(fixture.flusher.status().unflushed, 2);
    fixture.write(2, 2);
    assert_eq!(fixture.flusher.flush().expect("works again"), 4);
    assert_eq!(on_disk(&fixture.other(), "parents"), HashMap::from([(1, 1), (2, 2)]));
    assert_eq!(on_disk(&fixture.other(), "children"), HashMap::from([(1, 1), (2, 2)]));
}

#[test]
fn the_last_flush_returns_its_failure_and_can_be_repeated() {
    let fixture = Fixture::new();
    fixture.write(1, 1);
    fixture.fail(true);
    fixture.flusher.close().expect_err("the last flush fails");
    fixture.fail(false);
    fixture.flusher.close().expect("works again");
    fixture.flusher.close().expect("closes twice");
    let error = fixture.flusher.flush().expect_err("is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let fixture = Fixture::open(fixture.folder);
    assert_eq!(fixture.children.lock().values, HashMap::from([(1, 1)]));
}

#[tokio::test]
async fn the_threshold_wakes_the_flusher_and_a_failure_lets_it_back_off() {
    let fixture = Fixture::new();
    let is_wanted =
        async || tokio::time::timeout(Duration::ZERO, fixture.flusher.wanted()).await.is_ok();
    fixture.signal.note(2);
    assert!(!is_wanted().await);
    fixture.signal.note(3);
    assert!(is_wanted().await);
    assert!(!is_wanted().await, "a signal is for one flush");

    fixture.write(1, 1);
    fixture.fail(true);
    let start = Instant::now();
    fixture.flusher.flush().expect_err("fails");
    fixture.flusher.wanted().await;
    assert!(start.elapsed() >= FIRST_BACKOFF);
    fixture.flusher.flush().expect_err("fails again");
    fixture.flusher.wanted().await;
    assert!(start.elapsed() >= 3 * FIRST_BACKOFF, "the backoff doubles");
    fixture.fail(false);
    fixture.flusher.flush().expect("works again");
    fixture.signal.note(3);
    let woken = Instant::now();
    fixture.flusher.wanted().await;
    assert!(woken.elapsed() < FIRST_BACKOFF, "a success ends the backoff");
}

#[test]
fn without_a_file_nothing_waits_for_the_disk() {
    let parents = Shared::default();
    let flusher = Flusher::open(
        None,
        SyncMode::Normal,
        vec![Arc::new(Set(PARENTS, Arc::clone(&parents)))],
        Arc::new(FlushSignal::new(1)),
        Arc::new(ManualClock::at(Timestamp::from_nanos(0))),
    );
    let flusher = flusher.expect("opens");
    parents.lock().write(1, Some(1));
    assert_eq!(flusher.flush().expect("works"), 0);
    assert_eq!(flusher.status().unflushed, 0);
    flusher.close().expect("closes");
}
