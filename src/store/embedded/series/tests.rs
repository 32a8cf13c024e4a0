//! Scans piece by piece on a table that changes between the pieces: what they cost, and that they end with what the
//! table has.

use std::collections::BTreeSet;

use super::scan::{LOOKED_AT, Piece, Scan};
use super::table::{Now, SeriesTable};
use crate::model::batch::PointBatch;
use crate::model::selector::Selector;
use crate::model::series::{SeriesId, SeriesKey};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::{SeriesSettings, StoreSettings, UpsertOutcome};

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
    let outcome = table.upsert(&batch, now());
    assert!(matches!(outcome, UpsertOutcome::Applied(_)), "{outcome:?}");
}

fn selectors(texts: &[&str]) -> Vec<Selector> {
    texts.iter().map(|text| Selector::parse(text).expect("valid")).collect()
}

/// Runs a scan to its end; `meanwhile` changes the table between two pieces. Returns the keys that were found, and
/// how many series were looked at.
fn run(
    table: &mut SeriesTable,
    mut scan: Scan,
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
                    table.delete(SeriesId::of(&name, &labels), now());
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
