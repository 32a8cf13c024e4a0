//! Paged tables in a store: as a table in memory, however little of them is held.

mod model;
mod races;

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join3;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::calls::PageLimits;
use super::held::Held;
use super::key::key_text;
use super::readers::Snapshot;
use super::sql;
use super::table::{PagedTable, RowKey};
use crate::clock::ManualClock;
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::durable::table::DurableTable;
use crate::store::embedded::durable::{
    Changes, DurableFile, DurableStore, PublishGuard, PublishHook, Tables, Txn,
};
use crate::store::embedded::sqlite::{Missing, SyncMode};
use crate::store::{ErrorKind, ResourceStatus, StoreResult};

type Key = (String, i64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    text: String,
    expires_at: Option<SteadyTime>,
}

#[derive(Debug)]
struct Items;

impl PagedTable for Items {
    type Key = Key;
    type Row = Item;
    const NAME: &'static str = "items";
    const TAG: u8 = 200;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL,
            expires_at INTEGER) STRICT, WITHOUT ROWID;
        CREATE INDEX items_expiry ON items (expires_at) WHERE expires_at IS NOT NULL"];

    fn expires_at(row: &Item) -> Option<SteadyTime> {
        row.expires_at
    }

    fn bytes(row: &Item) -> usize {
        size_of::<Item>() + row.text.len()
    }
}

/// The same rows, all of them in memory.
#[derive(Debug)]
struct ItemsInMemory;

impl DurableTable for ItemsInMemory {
    type Key = Key;
    type Row = Item;
    const NAME: &'static str = "items_in_memory";
    const TAG: u8 = 201;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE items_in_memory (key TEXT PRIMARY KEY, value TEXT NOT NULL, \
            crc INTEGER NOT NULL) STRICT, WITHOUT ROWID"];

    fn expires_at(&self, row: &Item) -> Option<SteadyTime> {
        row.expires_at
    }
}

struct NoHook;

impl PublishHook for NoHook {
    fn before_publish<'a>(
        &'a self,
        _: &Changes,
        _: &RwLock<Tables>,
    ) -> Option<Box<dyn PublishGuard + 'a>> {
        None
    }
}

struct Fixture {
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: Arc<DurableStore>,
    cache_bytes: u64,
}

impl Fixture {
    fn new(cache_bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_000_000_000)));
        let store = open(Some(folder.path()), &clock, cache_bytes);
        Self { folder, clock, store, cache_bytes }
    }

    /// Opens the files as they are now at another place, as if the process had been killed.
    fn kill(self) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        for file in fs::read_dir(self.folder.path()).expect("lists") {
            let file = file.expect("lists");
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("copies");
        }
        let store = open(Some(folder.path()), &self.clock, self.cache_bytes);
        Self { folder, clock: self.clock, store, cache_bytes: self.cache_bytes }
    }

    async fn restart(self) -> Self {
        self.store.close().await.expect("closes");
        let store = open(Some(self.folder.path()), &self.clock, self.cache_bytes);
        Self { store, ..self }
    }

    /// Writes all that is committed into the tables of the file.
    async fn compact(&self) {
        self.store.before_next_commit(Box::new(|file| compact(file, usize::MAX)));
        self.touch().await;
    }

    /// Commits something else.
    async fn touch(&self) {
        let counter = crate::store::embedded::durable::Counter::named("of this test");
        self.store.write(|txn| txn.next(counter)).await.expect("commits");
    }

    async fn put(&self, rows: Vec<(Key, Item)>) {
        self.run(move |txn| rows.into_iter().try_for_each(|(key, row)| set(txn, &key, Some(row))))
            .await
            .expect("commits");
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Txn<'_>) -> StoreResult<R> + Send + 'static,
    ) -> StoreResult<R> {
        self.store.write(work).await.and_then(|result| result)
    }

    async fn read(&self, keys: &[Key]) -> StoreResult<Vec<Option<Item>>> {
        let rows = self.store.read_paged::<Items>(&row_keys(keys)).await?;
        Ok(rows.into_iter().map(|row| row.map(|row| (*row).clone())).collect())
    }

    /// Reads all rows, in pages.
    async fn read_all(&self, limits: PageLimits) -> StoreResult<Vec<(Key, Item)>> {
        let mut all = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = self.store.read_page::<Items>(from, limits).await?;
            assert!(page.rows.len() <= limits.rows);
            all.extend(page.rows.into_iter().map(|(key, row)| (key, (*row).clone())));
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    fn status(&self) -> ResourceStatus {
        let resources = self.store.status().expect("reports").resources;
        *resources.iter().find(|of| of.resource == Items::NAME).expect("is listed")
    }

    fn sql(&self, sql: &str) -> usize {
        let conn = rusqlite::Connection::open(self.folder.path().join("durable.db"));
        conn.and_then(|conn| conn.execute(sql, [])).expect("runs")
    }
}

/// Sets or removes a row in both tables.
fn set(txn: &mut Txn<'_>, key: &Key, row: Option<Item>) -> StoreResult<()> {
    match row {
        Some(row) => {
            txn.put::<ItemsInMemory>(key.clone(), row.clone());
            txn.write(&RowKey::<Items>::of(key), row)
        }
        None => {
            txn.delete::<ItemsInMemory>(key.clone());
            txn.remove(&RowKey::<Items>::of(key))
        }
    }
}

fn open(folder: Option<&Path>, clock: &Arc<ManualClock>, cache_bytes: u64) -> Arc<DurableStore> {
    let path = folder.map(|folder| folder.join("durable.db"));
    let tables = Tables::new().with_paged::<Items>(cache_bytes, None).with(ItemsInMemory);
    let check = |path| DurableStore::check(path, &tables, Missing::Nothing).expect("is sound");
    let file = path.as_deref().map(check);
    let loaded = DurableStore::load(file.as_ref(), SyncMode::Normal, tables).expect("opens");
    let whole = loaded.make_whole().expect("commits");
    whole.serve(Arc::clone(clock) as _, Arc::new(NoHook)).expect("a thread")
}

fn compact(file: &mut DurableFile, rows: usize) {
    file.compact(rows).expect("compacts");
}

fn key(number: i64) -> Key {
    (format!("key {}", number % 7), number)
}

fn row_keys(keys: &[Key]) -> Vec<RowKey<Items>> {
    keys.iter().map(RowKey::of).collect()
}

fn item(text: impl Into<String>) -> Item {
    Item { text: text.into(), expires_at: None }
}

const ALL: PageLimits = PageLimits { rows: 1_000_000, bytes: usize::MAX };

#[tokio::test]
async fn a_hundred_times_more_rows_than_the_cache_takes_are_all_found() {
    const CACHE_BYTES: u64 = 64 << 10;
    let fixture = Fixture::new(CACHE_BYTES);
    let rows: Vec<_> = (0..6_400).map(|n| (key(n), item(format!("{n:01000}")))).collect();
    for rows in rows.chunks(800) {
        fixture.put(rows.to_vec()).await;
        fixture.compact().await;
        let held = fixture.status().bytes.expect("is counted");
        assert!(held <= CACHE_BYTES, "{held} bytes are held");
    }
    assert_eq!(fixture.status().entries, 6_400);
    for rows in rows.chunks(100) {
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        let expected: Vec<_> = rows.iter().map(|(_, row)| Some(row.clone())).collect();
        assert_eq!(fixture.read(&keys).await.expect("reads"), expected);
        assert!(fixture.status().bytes.expect("is counted") <= CACHE_BYTES);
    }
    let limits = PageLimits { rows: 1_000, bytes: 100_000 };
    assert_eq!(fixture.read_all(limits).await.expect("reads").len(), 6_400);
    assert!(fixture.status().bytes.expect("is counted") <= CACHE_BYTES);
    assert!(fixture.status().bytes.expect("is counted") > CACHE_BYTES / 2, "little is cached");
}

#[tokio::test]
async fn a_start_reads_only_the_rows_of_the_journal_and_a_damaged_row_is_never_absent() {
    let fixture = Fixture::new(1 << 20);
    fixture.put((0..100).map(|n| (key(n), item("in the file"))).collect()).await;
    fixture.compact().await;
    fixture.put((100..110).map(|n| (key(n), item("in the journal"))).collect()).await;
    let fixture = fixture.kill();
    assert_eq!(fixture.sql("UPDATE items SET value = '{\"text\":\"other\"}'"), 100);
    // Had it read any of these rows, the start would fail.
    let fixture = fixture.kill();
    assert_eq!(fixture.status().entries, 110);
    let in_journal: Vec<_> = (100..110).map(key).collect();
    let read = fixture.read(&in_journal).await.expect("reads");
    assert!(read.iter().all(|row| *row == Some(item("in the journal"))));

    let error = fixture.read(&[key(1)]).await.expect_err("is damaged");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    let error = fixture.read_all(ALL).await.expect_err("is damaged");
    assert_eq!(error.kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_command_that_cannot_read_a_row_fails_and_leaves_no_trace() {
    let fixture = Fixture::new(1 << 20);
    fixture.put(vec![(key(1), item("a")), (key(2), item("b"))]).await;
    fixture.compact().await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.sql("UPDATE items SET crc = crc + 1 WHERE key LIKE '%1##%'"), 1);

    // Whatever the command makes of the error.
    let swallowed = fixture.store.write(|txn| txn.read_many(&row_keys(&[key(1)])).is_ok()).await;
    assert_eq!(swallowed.expect_err("fails").kind, ErrorKind::Corrupt);
    let changed_before = fixture
        .run(|txn| {
            set(txn, &key(3), Some(item("c")))?;
            set(txn, &key(1), Some(item("d")))
        })
        .await;
    assert_eq!(changed_before.expect_err("fails").kind, ErrorKind::Corrupt);
    assert_eq!(fixture.read(&[key(2), key(3)]).await.expect("reads"), [Some(item("b")), None]);
    fixture.put(vec![(key(2), item("e"))]).await;
    assert_eq!(fixture.read(&[key(2)]).await.expect("reads"), [Some(item("e"))]);
    assert_eq!(fixture.status().entries, 2);
}

#[tokio::test]
async fn a_command_that_cannot_read_a_row_fails_alone_in_its_group() {
    let fixture = Fixture::new(1 << 20);
    fixture.put(vec![(key(1), item("a")), (key(2), item("b"))]).await;
    fixture.compact().await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.sql("UPDATE items SET crc = crc + 1 WHERE key LIKE '%1##%'"), 1);
    let put = |n, text: &'static str| {
        fixture.run(move |txn| txn.write(&RowKey::<Items>::of(&key(n)), item(text)))
    };
    let outcomes = in_one_group(&fixture, join3(put(2, "new"), put(1, "new"), put(3, "new"))).await;
    assert!(outcomes.0.is_ok() && outcomes.2.is_ok());
    assert_eq!(outcomes.1.expect_err("fails").kind, ErrorKind::Corrupt);
    let new = [Some(item("new")), Some(item("new"))];
    assert_eq!(fixture.read(&[key(2), key(3)]).await.expect("reads"), new);

    // Except that it has changed something: that can't be separated from what others changed.
    let half_done = fixture.run(|txn| {
        txn.write(&RowKey::<Items>::of(&key(3)), item("half done"))?;
        txn.write(&RowKey::<Items>::of(&key(1)), item("half done"))
    });
    let outcomes = in_one_group(&fixture, join3(put(2, "late"), half_done, put(4, "after"))).await;
    assert!(outcomes.0.is_err() && outcomes.1.is_err() && outcomes.2.is_ok());
    assert_eq!(fixture.read(&[key(2), key(3)]).await.expect("reads"), new);
}

/// Runs commands while a commit waits, so that they come into one group.
async fn in_one_group<R>(fixture: &Fixture, commands: impl Future<Output = R>) -> R {
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    fixture.store.before_next_commit(Box::new(move |_| {
        entered.send(()).expect("is awaited");
        may_leave.recv().expect("comes");
    }));
    let (_, outcomes) = tokio::join!(fixture.touch(), async {
        has_entered.await.expect("enters");
        let mut commands = std::pin::pin!(commands);
        // Polled once, they are in the queue.
        assert!(futures_util::poll!(&mut commands).is_pending());
        leave.send(()).expect("is awaited");
        commands.await
    });
    outcomes
}

#[tokio::test]
async fn a_snapshot_that_lacks_what_memory_has_let_go_is_taken_anew() {
    let fixture = Fixture::new(0);
    fixture.put(vec![(key(1), item("old")), (key(2), item("old"))]).await;
    fixture.compact().await;
    let rows = Arc::clone(fixture.store.read().expect("is open").0.paged::<Items>());
    let conn = rusqlite::Connection::open(fixture.folder.path().join("durable.db"));
    let conn = conn.expect("opens");
    let early = Snapshot::take(&conn).expect("reads");
    fixture.put(vec![(key(1), item("new")), (key(2), item("new"))]).await;
    let text = |n| key_text(&key(n));
    let pinned = |held: &Held<Item>| held.pinned(&text(1)).is_some();
    // Memory has the change still.
    let (early, is_pinned, _) = rows.meet(&conn, early, pinned).expect("reads");
    assert!(is_pinned);
    let old = sql::read_row::<Items>(early.conn(), &text(2)).expect("reads");
    assert_eq!(old, Some(item("old")));
    fixture.compact().await;
    let (late, is_pinned, _) = rows.meet(&conn, early, pinned).expect("reads");
    assert!(!is_pinned);
    let new = sql::read_row::<Items>(late.conn(), &text(2)).expect("reads");
    assert_eq!(new, Some(item("new")));
}

#[tokio::test]
async fn a_purge_of_many_rows_removes_each_once_and_spares_those_that_live() {
    let fixture = Fixture::new(1 << 10);
    let end = |n: i64| Some(SteadyTime::from_nanos(2_000_000_000 + n % 3));
    let expiring = |n| (key(n), Item { text: String::new(), expires_at: end(n) });
    fixture.put((0..4_500).map(expiring).collect()).await;
    fixture.put((4_500..4_600).map(|n| (key(n), item(""))).collect()).await;
    fixture.compact().await;
    // Known better in memory than in the file, and known in memory only.
    fixture.put((0..10).map(|n| (key(n), item("prolonged"))).collect()).await;
    fixture.put((5_000..5_010).map(expiring).collect()).await;
    fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(fixture.read_all(ALL).await.expect("reads").len(), 110);
    assert_eq!(fixture.status().entries, 4_620 - 10);
    // Both tables are purged.
    assert_eq!(fixture.store.purge().await.expect("purges"), 2 * 4_500);
    assert_eq!(fixture.status().entries, 110);
    assert_eq!(fixture.store.purge().await.expect("purges"), 0);
    fixture.compact().await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.status().entries, 110);
    assert_eq!(fixture.read_all(ALL).await.expect("reads").len(), 110);
}

#[tokio::test]
async fn without_a_file_all_rows_are_held() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1)));
    let store = open(None, &clock, 0);
    let fixture =
        Fixture { folder: tempfile::tempdir().expect("tempdir"), clock, store, cache_bytes: 0 };
    fixture.put((0..100).map(|n| (key(n), item("a"))).collect()).await;
    fixture.run(|txn| set(txn, &key(7), None)).await.expect("commits");
    assert_eq!(fixture.read(&[key(6), key(7)]).await.expect("reads"), [Some(item("a")), None]);
    let limits = PageLimits { rows: 10, ..ALL };
    assert_eq!(fixture.read_all(limits).await.expect("reads").len(), 99);
    assert_eq!(fixture.status().entries, 99);
}
