//! Logs that SQLite wrote, whole, torn and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::wal::{Missing, make_whole, verify};

const FRAME_BYTES: usize = 24 + 4096;
const ALL: [Missing; 3] = [Missing::Nothing, Missing::LastTransaction, Missing::Anything];

struct Fixture {
    folder: tempfile::TempDir,
    log: PathBuf,
    /// The frames of each transaction, counted from 0.
    transactions: Vec<Vec<usize>>,
}

impl Fixture {
    /// Makes a log of `count` transactions, some of several pages.
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let log = folder.path().join("t.db-wal");
        let conn = Connection::open(&path).expect("opens");
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets");
        conn.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; CREATE TABLE t (v)",
        )
        .expect("creates");
        let mut ends = vec![frames(&log)];
        for n in 1..count {
            let bytes = [0, 9_000, 18_000][n % 3];
            conn.execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes]).expect("inserts");
            ends.push(frames(&log));
        }
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let transactions = begins.zip(&ends).map(|(begin, end)| (begin..*end).collect()).collect();
        Self { folder, log, transactions }
    }

    fn flip(&self, at: usize) {
        let mut bytes = fs::read(&self.log).expect("reads");
        bytes[at] ^= 1;
        fs::write(&self.log, bytes).expect("writes");
    }

    fn is_sound(&self, missing: Missing) -> bool {
        verify(&self.log, missing).expect("reads").is_ok()
    }

    /// Counts the rows that SQLite finds.
    fn rows(&self) -> i64 {
        let conn = Connection::open(self.folder.path().join("t.db")).expect("opens");
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets");
        conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("reads")
    }
}

fn frames(log: &Path) -> usize {
    let bytes = fs::metadata(log).expect("a log").len();
    (usize::try_from(bytes).expect("small") - 32) / FRAME_BYTES
}

fn at(frame: usize) -> usize {
    32 + frame * FRAME_BYTES
}

#[test]
fn a_whole_log_is_sound_and_so_is_one_that_is_cut_anywhere() {
    let fixture = Fixture::new(6);
    let bytes = fs::read(&fixture.log).expect("reads");
    for length in (0..=bytes.len()).rev().step_by(700) {
        fs::write(&fixture.log, &bytes[..length]).expect("writes");
        assert!(ALL.iter().all(|missing| fixture.is_sound(*missing)), "{length}");
    }
    fs::remove_file(&fixture.log).expect("removes");
    assert!(fixture.is_sound(Missing::Nothing));
}

#[test]
fn a_flipped_bit_before_the_last_transaction_is_damage_wherever_it_is() {
    let fixture = Fixture::new(8);
    let (last, earlier) = fixture.transactions.split_last().expect("several");
    assert!(last.len() > 1);
    for frame in earlier.iter().flatten() {
        // The number of its page, the size of the file, the salt, the checksum, the page.
        for offset in [3, 7, 9, 20, 24, 2000, FRAME_BYTES - 1] {
            fixture.flip(at(*frame) + offset);
            assert!(!fixture.is_sound(Missing::Nothing), "{frame} {offset}");
            // Where the mark of a commit itself is lost, the transaction seems to be a longer one.
            let ends = earlier.last().is_some_and(|of| of.last() == Some(frame));
            if !(ends && offset < 24) {
                assert!(!fixture.is_sound(Missing::LastTransaction), "{frame} {offset}");
            }
            assert!(fixture.is_sound(Missing::Anything), "{frame} {offset}");
            fixture.flip(at(*frame) + offset);
        }
    }
}

#[test]
fn the_last_transaction_may_lack_any_block_after_a_power_cut_only() {
    let fixture = Fixture::new(8);
    let last = fixture.transactions.last().expect("several");
    for frame in last {
        fixture.flip(at(*frame) + 100);
        assert!(fixture.is_sound(Missing::LastTransaction), "{frame}");
        // Its own commit stands behind it, unless that is what was hit.
        let is_commit = last.last() == Some(frame);
        assert_eq!(fixture.is_sound(Missing::Nothing), is_commit, "{frame}");
        fixture.flip(at(*frame) + 100);
    }
}

#[test]
fn a_garbled_header_before_frames_is_damage() {
    let fixture = Fixture::new(4);
    for offset in [0, 3, 9, 17, 25, 31] {
        fixture.flip(offset);
        assert!(ALL.iter().all(|missing| !fixture.is_sound(*missing)), "{offset}");
        fixture.flip(offset);
    }
}

#[test]
fn what_an_earlier_round_of_the_log_left_is_no_damage() {
    let fixture = Fixture::new(8);
    let conn = Connection::open(fixture.folder.path().join("t.db")).expect("opens");
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("sets");
    let checkpoint = "PRAGMA wal_checkpoint(RESTART)";
    conn.query_row(checkpoint, [], |_| Ok(())).expect("copies");
    conn.execute("INSERT INTO t VALUES (1)", []).expect("inserts");
    assert!(ALL.iter().all(|missing| fixture.is_sound(*missing)));
}

#[test]
fn making_a_log_whole_keeps_what_sqlite_reads_and_cuts_off_the_rest() {
    let fixture = Fixture::new(8);
    let bytes = fs::read(&fixture.log).expect("reads");
    make_whole(&fixture.log).expect("writes");
    assert!(fs::read(&fixture.log).expect("reads") == bytes);
    assert_eq!(fixture.rows(), 7);
    let torn = fixture.transactions[5][0];
    fixture.flip(at(torn) + 100);
    assert_eq!(fixture.rows(), 4);
    make_whole(&fixture.log).expect("writes");
    assert_eq!(frames(&fixture.log), torn);
    assert!(fixture.is_sound(Missing::Nothing));
    assert_eq!(fixture.rows(), 4);
}
