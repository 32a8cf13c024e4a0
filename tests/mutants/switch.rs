//! Switches one mutant on, as the variable `MUTANT` says; `make mutants` adds this file to its copy of the sources.
//!
//! Not part of holdall. Invariant: without the variable every mutant is off.

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// More than there are mutants.
const MOST: usize = 1 << 16;

const UNREAD: u32 = u32::MAX;
const OFF: u32 = u32::MAX - 1;
const RECORD: u32 = u32::MAX - 2;

static MODE: AtomicU32 = AtomicU32::new(UNREAD);
static SEEN: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];
static FILE: OnceLock<Option<File>> = OnceLock::new();

/// Returns whether this mutant is on. Where `MUTANT` is `record`, notes that it was asked for.
#[inline]
pub fn on(mutant: u32) -> bool {
    match MODE.load(Ordering::Relaxed) {
        OFF => false,
        RECORD => {
            if !SEEN[mutant as usize].swap(true, Ordering::Relaxed) {
                record(mutant);
            }
            false
        }
        UNREAD => {
            MODE.store(mode(), Ordering::Relaxed);
            on(mutant)
        }
        chosen => chosen == mutant,
    }
}

fn mode() -> u32 {
    match std::env::var("MUTANT").as_deref() {
        Ok("record") => RECORD,
        Ok(number) => number.parse().expect("MUTANT is a number"),
        Err(_) => OFF,
    }
}

/// Appends the number to the file that all processes of a test share.
fn record(mutant: u32) {
    let file = FILE.get_or_init(|| {
        let path = std::env::var_os("MUTANT_RECORD")?;
        File::options().append(true).create(true).open(path).ok()
    });
    if let Some(mut file) = file.as_ref() {
        // A process whose files are limited goes on without.
        let _ = file.write_all(&mutant.to_le_bytes());
    }
}
