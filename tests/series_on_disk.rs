//! What is read from `buffered.db` at a start: exactly the state of the last flush, whatever came before it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::batch::PointBatch;
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::selector::Selector;
use holdall::model::series::{Metadata, MetricType, Point, SeriesId};
use holdall::model::time::Timestamp;
use holdall::store::embedded::{EmbeddedSettings, open_with};
use holdall::store::{Delta, SeriesWriter, StoreSettings, Stores};
use rusqlite::Connection;

use crate::conformance::fixture::Random;

type View = BTreeMap<String, Point>;

fn open(folder: &Path, clock: &Arc<ManualClock>) -> Stores {
    let settings =
        EmbeddedSettings { path: Some(folder.to_owned()), ..EmbeddedSettings::in_memory() };
    let mut store = StoreSettings::for_tests();
    store.series.max_tombstones = 10;
    let clock = Arc::clone(clock) as SharedClock;
    open_with(&settings, &store, |_| clock).expect("the store opens").0
}

async fn view(stores: &Stores) -> View {
    let snapshot = stores.series.snapshot(&[], None, 100_000).await.expect("the store works");
    snapshot.points.into_iter().map(|point| (point.key.to_string(), point)).collect()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::parse("2026-11-21T10:00:00Z").expect("valid")))
}

/// Names and metadata come and go, so that their numbers on disk are used again.
async fn change_anything(stores: &Stores, random: &mut Random) {
    match random.below(6) {
        0 => {
            let name = format!("m{}", random.below(12));
            let selector = [Selector::parse(&name).expect("valid")];
            stores
                .series
                .delete_matching(&selector, false, SeriesWriter::anybody())
                .await
                .expect("works");
        }
        1 => {
            let id = SeriesId::of(
                &format!("m{}", random.below(12)),
                &format!("i=\"{}\"", random.below(5)),
            );
            stores.series.delete(id, SeriesWriter::anybody()).await.expect("works");
        }
        _ => {
            let mut batch = PointBatch::default();
            let metadata = batch.add_metadata(Metadata {
                metric_type: MetricType::Gauge,
                help: format!("help {}", random.below(6)).into(),
                unit: "".into(),
            });
            for _ in 0..random.below(8) {
                let name = format!("m{}", random.below(12));
                let labels = format!("i=\"{}\"", random.below(5));
                let value = if random.below(9) == 0 { f64::NAN } else { 1.0 / 3.0 };
                let value = value * f64::from(u32::try_from(random.below(99)).expect("small"));
                let metadata = (random.below(2) == 0).then_some(metadata);
                batch.push(&name, &labels, value, None, metadata);
            }
            stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("works");
        }
    }
}

#[tokio::test]
async fn a_killed_server_finds_the_state_of_its_last_flush() {
    let clock = clock();
    for seed in 0..6 {
        let mut random = Random::from(seed);
        let mut folder = tempfile::tempdir().expect("a folder");
        let mut stores = open(folder.path(), &clock);
        let mut flushed = View::new();
        for _ in 0..200 {
            change_anything(&stores, &mut random).await;
            clock.advance(Duration::from_millis(1));
            match random.below(12) {
                0 | 1 => {
                    stores.operation.flush().await.expect("works");
                    flushed = view(&stores).await;
                }
                2 => {
                    // As kill -9 leaves the files: a copy taken while the store runs.
                    let copy = tempfile::tempdir().expect("a folder");
                    copy_files(folder.path(), copy.path());
                    drop(stores);
                    folder = copy;
                    stores = open(folder.path(), &clock);
                    assert_eq!(view(&stores).await, flushed, "seed {seed}");
                }
                _ => {}
            }
        }
    }
}

/// Makes every flush that writes samples fail, or work again.
fn let_flushes_fail(folder: &Path, fail: bool) {
    let sql = if fail {
        "CREATE TRIGGER fail BEFORE INSERT ON samples
         BEGIN SELECT RAISE(ABORT, 'as the test wants'); END"
    } else {
        "DROP TRIGGER fail"
    };
    let file = Connection::open(folder.join("buffered.db")).expect("opens");
    file.execute_batch(sql).expect("runs");
}

#[tokio::test]
async fn a_failed_flush_loses_no_series() {
    let clock = clock();
    for seed in 0..20 {
        let mut random = Random::from(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let stores = open(folder.path(), &clock);
        let change = async |random: &mut Random| {
            for _ in 0..1 + random.below(20) {
                change_anything(&stores, random).await;
                clock.advance(Duration::from_millis(1));
            }
        };
        change(&mut random).await;
        stores.operation.flush().await.expect("works");
        let_flushes_fail(folder.path(), true);
        for _ in 0..1 + random.below(3) {
            change(&mut random).await;
            // So that there is something to write.
            let mut batch = PointBatch::default();
            batch.push("m0", "", 1.0, None, None);
            stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("works");
            stores.operation.flush().await.expect_err("fails");
        }
        if random.below(2) == 0 {
            change(&mut random).await;
        }
        let_flushes_fail(folder.path(), false);
        stores.operation.flush().await.expect("works again");
        // As kill -9 leaves the files.
        let copy = tempfile::tempdir().expect("a folder");
        copy_files(folder.path(), copy.path());
        let expected = view(&stores).await;
        assert_eq!(view(&open(copy.path(), &clock)).await, expected, "seed {seed}");
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
    }
}

#[tokio::test]
async fn closing_loses_nothing_and_a_new_life_has_a_new_epoch() {
    let clock = clock();
    let folder = tempfile::tempdir().expect("a folder");
    let stores = open(folder.path(), &clock);
    let mut batch = PointBatch::default();
    for i in 0..10_000 {
        batch.push("m", &format!("i=\"{i}\""), f64::from(i), None, None);
    }
    stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("works");
    let cursor = stores.series.cursor().await.expect("works");
    let before = view(&stores).await;
    stores.operation.close().await.expect("closes");
    assert!(stores.series.cursor().await.is_err(), "a closed store says so");
    drop(stores);
    let stores = open(folder.path(), &clock);
    assert_eq!(view(&stores).await, before);
    assert_eq!(stores.series.delta(&cursor, None, 10).await.expect("works"), Delta::Gone);
}

#[tokio::test]
async fn what_expired_while_the_server_was_down_is_not_served() {
    let clock = clock();
    let folder = tempfile::tempdir().expect("a folder");
    let stores = open(folder.path(), &clock);
    let mut batch = PointBatch::default();
    batch.push("old", "", 1.0, Some(clock.now().saturating_sub(Duration::from_secs(3600))), None);
    batch.push("new", "", 1.0, None, None);
    stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("works");
    stores.operation.close().await.expect("closes");
    drop(stores);
    clock.advance(Duration::from_secs(86_400 - 3600));
    let stores = open(folder.path(), &clock);
    assert_eq!(view(&stores).await.into_keys().collect::<Vec<_>>(), ["new"]);
    stores.operation.close().await.expect("closes");
    drop(stores);
    let stores = open(folder.path(), &clock);
    assert_eq!(view(&stores).await.len(), 1, "the deletion reached the disk");
}

#[tokio::test]
async fn setting_the_clock_forward_expires_no_series_that_is_held_for_less_than_the_retention() {
    const DAY: Duration = Duration::from_secs(86_400);
    let clock = clock();
    let folder = tempfile::tempdir().expect("tempdir");
    let stores = open(folder.path(), &clock);
    // A durable write records how the two clocks are related.
    let lock = LockKey::parse(LockKind::Job, "a").expect("valid");
    stores.locks.acquire(vec![lock], DAY, ReleaseToken([0; 16])).await.expect("responds");
    let mut batch = PointBatch::default();
    batch.push("m", "", 1.0, None, None);
    stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("applies");
    clock.set_system(clock.now().saturating_add(40 * DAY));
    assert_eq!(view(&stores).await.len(), 1);
    stores.operation.close().await.expect("closes");
    clock.set_system(clock.now().saturating_add(40 * DAY));
    let stores = open(folder.path(), &clock);
    assert_eq!(view(&stores).await.len(), 1, "it was set while the server was down");
    clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(view(&stores).await.len(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(view(&stores).await.len(), 0);
}
