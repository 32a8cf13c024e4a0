//! Scans piece by piece on a table that changes between the pieces: what they cost, and that they end with what the
//! table has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::purge::PURGED_AT_ONCE;
use super::table::{Now, SeriesTable};
use crate::clock::{ManualClock, SharedClock};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::roles::RoleName;
use crate::model::selector::Selector;
use crate::model::series::{SeriesId, SeriesKey};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::{EmbeddedSettings, open_with};
use crate::store::scan::{LOOKED_AT, Piece, Scan};
use crate::store::{
    Change, DeleteOutcome, Delta, Fenced, SeriesSettings, SeriesStore, SeriesWriter, StoreSettings,
    UpsertCounts, UpsertOutcome,
};

/// So many that a scan of all takes many pieces.
const MANY: usize = 20 * LOOKED_AT;

fn now() -> Now {
    let stamp = Timestamp::parse("2026-11-21T10:00:00Z").expect("valid");
    Now { stamp, expiry: stamp, steady: SteadyTime::starting_at(stamp) }
}

fn table(max_tombstones: usize) -> SeriesTable {
    let settings = StoreSettings::for_tests().series;
    SeriesTable::new(SeriesSettings { max_series: 10 * MANY, max_tombstones, ..settings })
}

fn push(table: &mut SeriesTable, keys: impl Iterator<Item = (String, String)>) {
    let mut batch = PointBatch::default();
    for (name, labels) in keys {
        batch.push(&name, &labels, 1.0, None, None);
    }
    let outcome = table.upsert(&batch, &SeriesWriter::anybody(), now()).expect("there is room");
    assert!(matches!(outcome, Some(UpsertOutcome::Applied(_))), "{outcome:?}");
}

/// Returns whether the series was there.
fn delete(table: &mut SeriesTable, id: SeriesId, now: Now) -> bool {
    let outcome = table.delete(id, &SeriesWriter::anybody(), now).expect("there is room");
    outcome == DeleteOutcome::Deleted(1)
}

fn selectors(texts: &[&str]) -> Vec<Selector> {
    texts.iter().map(|text| Selector::parse(text).expect("valid")).collect()
}

/// Runs a scan to its end; `meanwhile` changes the table between two pieces. Returns the keys that were found, and
/// how many series were looked at.
fn run(
    table: &mut SeriesTable,
    mut scan: Scan<u32>,
    mut meanwhile: impl FnMut(&mut SeriesTable),
) -> (Vec<SeriesKey>, usize) {
    let mut looked_at = 0;
    loop {
        let piece = scan.read_piece(table);
        let length = match &piece {
            Piece::Names(names) => names.len(),
            Piece::Series(series) => series.len(),
        };
        assert!(length <= LOOKED_AT, "{length} under one lock");
        looked_at += length;
        meanwhile(table);
        scan.take(piece);
        meanwhile(table);
        if scan.is_ready() && scan.finish(table) {
            return (scan.found().map(|(key, _)| key.clone()).collect(), looked_at);
        }
    }
}

fn found(table: &mut SeriesTable, texts: &[&str], limit: usize) -> (Vec<SeriesKey>, usize) {
    run(table, Scan::new(selectors(texts), None, limit), |_| ())
}

#[test]
fn a_scan_locks_the_table_for_a_bounded_number_of_series() {
    let mut table = table(MANY);
    // The reverse of their order, so that they have to be sorted.
    push(&mut table, (0..MANY).rev().map(|i| ("m".to_owned(), format!("i=\"{i:06}\""))));
    let (keys, looked_at) = found(&mut table, &["{i=~\".*7\"}"], usize::MAX);
    assert_eq!(keys.len(), MANY / 10);
    // The name is looked at, too.
    assert_eq!(looked_at, MANY + 1);
    let many_names = (0..MANY).map(|i| (format!("n{i:06}"), String::new()));
    push(&mut table, many_names);
    let (keys, _) = found(&mut table, &["{__name__=~\"n.*7\"}"], usize::MAX);
    assert_eq!(keys.len(), MANY / 10);
}

#[test]
fn a_selector_that_names_its_metrics_costs_what_they_hold() {
    let mut table = table(MANY);
    push(&mut table, (0..MANY).map(|i| ("others".to_owned(), format!("i=\"{i}\""))));
    for name in ["up", "down"] {
        push(&mut table, (0..5).map(|i| (name.to_owned(), format!("i=\"{i}\""))));
    }
    for (text, matches) in [
        ("up", 5),
        ("{__name__=\"up\",i=~\"[0-2]\"}", 3),
        ("{__name__=~\"up|down|absent\"}", 10),
        ("{__name__=~\"(?i:UP)\"}", 5),
    ] {
        let (keys, looked_at) = found(&mut table, &[text], usize::MAX);
        assert_eq!(keys.len(), matches, "{text}");
        assert!(looked_at <= 15, "{text}: {looked_at}");
    }
    let (keys, looked_at) = found(&mut table, &[], 7);
    assert_eq!(keys.len(), 8, "one more tells that more follow");
    assert!(looked_at <= 20, "a page costs what it returns: {looked_at}");
}

#[test]
fn a_scan_ends_with_what_the_table_has_whatever_changed_meanwhile() {
    for (limit, max_tombstones) in [(10, 5), (10, MANY), (3000, 50), (usize::MAX, 0)] {
        let mut table = table(max_tombstones);
        let key = |n: usize| (format!("m{}", n % 7), format!("i=\"{:05}\"", n / 7));
        push(&mut table, (0..3 * LOOKED_AT).map(|n| key(5 * n)));
        let mut random = 1_usize;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % (20 * LOOKED_AT)
        };
        let mut rounds = 0;
        let change = |table: &mut SeriesTable| {
            // A while of changes everywhere, and near the start, where short scans are.
            rounds += 1;
            if rounds > 40 {
                return;
            }
            let few = next() % 60;
            let picks: Vec<usize> = (0..few).flat_map(|_| [next(), next() % 150]).collect();
            push(table, picks.iter().map(|n| key(*n)));
            for _ in 0..80 {
                for n in [next(), next() % 150] {
                    let (name, labels) = key(n);
                    delete(table, SeriesId::of(&name, &labels), now());
                }
            }
        };
        let selector = "{i=~\".*[0-7]\"}";
        let (keys, _) = run(&mut table, Scan::new(selectors(&[selector]), None, limit), change);
        let (fresh, _) = found(&mut table, &[selector], usize::MAX);
        let wanted = fresh.len().min(limit.saturating_add(1));
        assert_eq!(keys[..wanted], fresh[..wanted], "limit {limit}");
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }
}

/// Returns the same moment, later by so many seconds.
fn later(seconds: u64) -> Now {
    let Now { stamp, expiry, steady } = now();
    let by = Duration::from_secs(seconds);
    Now {
        stamp: stamp.saturating_add(by),
        expiry: expiry.saturating_add(by),
        steady: steady.saturating_add(by),
    }
}

fn keys(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|i| (format!("m{}", i % 3), format!("i=\"{i:06}\"")))
}

fn id(i: usize) -> SeriesId {
    SeriesId::of(&format!("m{}", i % 3), &format!("i=\"{i:06}\""))
}

/// Reads all changes, after everything was purged; returns how many series were deleted, and how many live.
fn changes_since(table: &SeriesTable, mut after: u64) -> (usize, usize) {
    let (mut deleted, mut live) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let delta = table.delta(after, None, LOOKED_AT).expect("no deletion was forgotten");
        for change in delta.changes {
            let is_new = match change {
                Change::Deleted(key) => deleted.insert((key.name, key.labels)),
                Change::Upserted(point) => live.insert((point.key.name, point.key.labels)),
            };
            assert!(is_new, "each series is in a delta once");
        }
        after = delta.next;
        if !delta.more {
            return (deleted.len(), live.len());
        }
    }
}

/// Accesses the table until all is purged; no access purges more than a piece.
fn purge(table: &mut SeriesTable, now: Now) {
    table.purge_some(now);
    while !table.is_purged {
        let (held, list) = (table.held, table.core.deletion.count());
        table.purge_some(now);
        assert!(held - table.held <= PURGED_AT_ONCE, "{held} to {}", table.held);
        assert!(list - table.core.deletion.count() <= PURGED_AT_ONCE);
    }
}

#[test]
fn many_series_that_expire_at_one_moment_are_gone_at_once_and_purged_in_pieces() {
    let settings = StoreSettings::for_tests().series;
    let settings = SeriesSettings { max_series: MANY + 10, max_tombstones: 2 * MANY, ..settings };
    let mut table = SeriesTable::new(settings);
    push(&mut table, keys(MANY));
    let before = table.log.head();
    let late = later(settings.retention.as_secs());
    // The first access: everything has expired, a piece of it is purged.
    table.purge_some(late);
    assert!(!table.is_purged && MANY - table.held <= PURGED_AT_ONCE, "{} are held", table.held);
    assert!((0..MANY).all(|i| table.find_live(id(i)).is_none()));
    assert_eq!(found(&mut table, &[], 10).0.len(), 0);
    assert!(!delete(&mut table, id(5), late), "it is gone");
    // A batch that touches expired series creates them anew; the others do not use up its room.
    let mut batch = PointBatch::default();
    keys(10).for_each(|(name, labels)| batch.push(&name, &labels, 2.0, None, None));
    let outcome = table.upsert(&batch, &SeriesWriter::anybody(), late).expect("there is room");
    let counts = UpsertCounts { created: 10, updated: 0, stale: 0 };
    assert_eq!(outcome, Some(UpsertOutcome::Applied(counts)));
    assert!(!table.is_purged);
    let mut batch = PointBatch::default();
    let others = (0..MANY).map(|i| format!("i=\"{i}\""));
    others.for_each(|labels| batch.push("other", &labels, 2.0, None, None));
    let mut refused = 0;
    let outcome = loop {
        match table.upsert(&batch, &SeriesWriter::anybody(), late).expect("there is room") {
            Some(outcome) => break outcome,
            None => refused += 1,
        }
    };
    let counts = UpsertCounts { created: MANY, updated: 0, stale: 0 };
    assert_eq!(outcome, UpsertOutcome::Applied(counts));
    assert!(refused > 10, "each attempt purges a piece only: {refused}");
    purge(&mut table, late);
    assert_eq!(changes_since(&table, before), (MANY - 10, MANY + 10));
    assert_eq!(table.held, MANY + 10);
}

#[test]
fn a_clock_that_is_set_back_brings_nothing_back_that_was_taken_for_expired() {
    let mut table = table(MANY);
    push(&mut table, keys(MANY));
    let retention = table.settings.retention.as_secs();
    table.purge_some(later(retention));
    assert!(!table.is_purged);
    table.purge_some(now());
    assert!((0..MANY).all(|i| table.find_live(id(i)).is_none()));
    purge(&mut table, now());
    assert_eq!(table.held, 0);
}

#[test]
fn selected_series_end_in_one_step_whatever_became_of_them_before() {
    let settings = StoreSettings::for_tests().series;
    let mut table = SeriesTable::new(SeriesSettings { max_series: MANY, ..settings });
    push(&mut table, keys(MANY));
    let mut scan = Scan::new(selectors(&["m0"]), None, usize::MAX);
    while !scan.is_ready() {
        let piece = scan.read_piece(&mut table);
        scan.take(piece);
    }
    let matching = scan.count();
    assert_eq!(matching, MANY.div_ceil(3));
    while scan.count() > 0 {
        let found = scan.take_found(LOOKED_AT);
        table.core.select(&found);
        table.core.select(&found);
    }
    assert_eq!(table.core.deletion.count(), matching);
    // One is updated, one is deleted, one is deleted and comes back, unseen by the scan.
    push(&mut table, keys(1));
    assert!(delete(&mut table, id(3), now()));
    assert!(delete(&mut table, id(6), now()));
    push(&mut table, keys(7).skip(6));
    assert_eq!(table.core.deletion.count(), matching - 2);
    assert!(table.find_live(id(0)).is_some(), "the step did not come yet");
    let before = table.log.head();
    table.core.deletion.make(now().steady);
    for i in 0..MANY {
        assert_eq!(table.find_live(id(i)).is_some(), i == 6 || i % 3 != 0, "{i}");
    }
    // A write to a deleted series creates it anew, and the purge leaves that alone.
    let mut batch = PointBatch::default();
    keys(10).skip(9).for_each(|(name, labels)| batch.push(&name, &labels, 2.0, None, None));
    let counts = UpsertCounts { created: 1, updated: 0, stale: 0 };
    assert_eq!(
        table.upsert(&batch, &SeriesWriter::anybody(), now()).expect("there is room"),
        Some(UpsertOutcome::Applied(counts))
    );
    purge(&mut table, now());
    assert!(table.find_live(id(9)).is_some());
    assert_eq!(changes_since(&table, before), (matching - 3, 1));
    assert!(!table.core.deletion.is_made());
}

/// The point of the deletion: readers see all of what it matches, or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_a_part_of_a_deletion_by_selector() {
    let settings = StoreSettings::for_tests();
    let (stores, _) = crate::store::embedded::open(&EmbeddedSettings::in_memory(), &settings)
        .expect("the store opens");
    let series = stores.series;
    for round in 0..3 {
        let mut batch = PointBatch::default();
        keys(MANY).for_each(|(name, labels)| batch.push(&name, &labels, 1.0, None, None));
        series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
        let cursor = series.cursor().await.expect("the store works");
        let gone = selectors(&["{__name__=~\"m[01]\"}"]);
        let dry = series
            .delete_matching(&gone, true, SeriesWriter::anybody())
            .await
            .expect("the store works");
        let matching = MANY - MANY / 3;
        assert_eq!(dry, Fenced::Done(DeleteOutcome::Deleted(matching)), "round {round}");
        let deletion = tokio::spawn({
            let (series, gone) = (Arc::clone(&series), gone.clone());
            async move { series.delete_matching(&gone, false, SeriesWriter::anybody()).await }
        });
        loop {
            let ended = deletion.is_finished();
            let page = series.snapshot(&[], None, MANY).await.expect("the store works");
            let deleted = changes_of(&series, &cursor).await;
            assert!(page.points.len() == MANY || page.points.len() == MANY / 3);
            assert!(deleted == 0 || deleted == matching, "{deleted} of {matching}");
            if ended {
                assert_eq!((page.points.len(), deleted), (MANY / 3, matching));
                break;
            }
        }
        let deleted = deletion.await.expect("no panic").expect("the store works");
        assert_eq!(deleted, Fenced::Done(DeleteOutcome::Deleted(matching)));
    }
}

#[tokio::test]
async fn a_delta_has_all_that_expired_however_much_it_is() {
    let settings = StoreSettings::for_tests();
    let clock = Arc::new(ManualClock::at(now().stamp));
    let shared = Arc::clone(&clock) as SharedClock;
    let (stores, _) =
        open_with(&EmbeddedSettings::in_memory(), &settings, |_| shared).expect("the store opens");
    let mut batch = PointBatch::default();
    keys(MANY).for_each(|(name, labels)| batch.push(&name, &labels, 1.0, None, None));
    stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
    let cursor = stores.series.cursor().await.expect("the store works");
    clock.advance(settings.series.retention);
    assert_eq!(changes_of(&stores.series, &cursor).await, MANY);
}

/// Returns how many deletions a delta after `cursor` has.
async fn changes_of(series: &Arc<dyn SeriesStore>, cursor: &Cursor) -> usize {
    match series.delta(cursor, None, 2 * MANY).await.expect("the store works") {
        Delta::Gone => panic!("no deletion was forgotten"),
        Delta::Changes { changes, .. } => {
            changes.iter().filter(|change| matches!(change, Change::Deleted(_))).count()
        }
    }
}

#[test]
fn a_series_that_changes_its_role_while_it_is_selected_counts_as_what_it_is() {
    let mut table = table(MANY);
    let role = |name: &str| RoleName::parse(name).expect("valid");
    let push_as = |table: &mut SeriesTable, name: &str, writer: &str| {
        let mut batch = PointBatch::default();
        batch.push(name, "", 1.0, None, None);
        let writer = SeriesWriter { role: Some(role(writer)), ..SeriesWriter::anybody() };
        let outcome = table.upsert(&batch, &writer, now()).expect("there is room");
        assert!(matches!(outcome, Some(UpsertOutcome::Applied(_))), "{outcome:?}");
    };
    for (name, writer) in [("a", "own"), ("b", "own"), ("c", "another"), ("d", "another")] {
        push_as(&mut table, name, writer);
    }
    let bound = SeriesWriter { may_change: Some([role("own")].into()), ..SeriesWriter::anybody() };
    let changeable = table.roles.changeable_by(&bound).expect("there is room");
    table.core.deletion.begin(changeable);
    let found: Vec<_> = (0..4).map(|slot| (table.core.key(slot), slot)).collect();
    table.core.select(&found);
    assert_eq!(table.core.deletion.count_of_others(), 2);
    // A role that is met only now; one that becomes the deletion's own; one that is deleted.
    push_as(&mut table, "b", "a third one");
    push_as(&mut table, "c", "own");
    assert!(delete(&mut table, SeriesId::of("d", ""), now()));
    let others = table.core.selected_of_others(&table.roles);
    assert_eq!((others.total, table.core.deletion.count()), (1, 3));
    assert_eq!(others.first, [(SeriesId::of("b", ""), role("a third one"))]);
    push_as(&mut table, "b", "own");
    assert_eq!(table.core.deletion.count_of_others(), 0);
    while table.purge_selected(MANY) == MANY {}
    assert_eq!((table.held, table.core.deletion.count()), (3, 0), "it was not made");
}
