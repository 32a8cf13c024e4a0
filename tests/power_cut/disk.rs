//! What the disk holds after a power cut, worked out from the trace of a server's system calls.
//!
//! Not a file system: one folder, names and blocks. Invariant: what was synced is there; of all that came
//! later, each block and each name is there or not, by chance.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::harness::rng::Rng;

const BLOCK_BYTES: usize = 4096;

/// One recorded system call.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Where the trace goes on behind it, in bytes.
    pub(super) end: usize,
    call: Call,
}

#[derive(Debug, Clone)]
enum Call {
    Create(u64, String),
    Write(u64, usize, Vec<u8>),
    Truncate(u64, usize),
    Sync(u64, Synced),
    FailedSync(u64),
    SyncFolder,
    Unlink(String),
    Rename(String, String),
    Nothing,
}

/// What a sync covered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Synced {
    /// Commits in a write-ahead log since its last sync.
    pub(super) commits: usize,
    /// Whether it was `fdatasync`.
    pub(super) data_only: bool,
}

impl Record {
    /// Returns what it synced, if it was a sync of a file that succeeded.
    pub(super) fn synced(&self) -> Option<Synced> {
        if let Call::Sync(_, synced) = self.call { Some(synced) } else { None }
    }

    /// Returns whether it was a sync that failed.
    pub(super) fn is_failed_sync(&self) -> bool {
        matches!(self.call, Call::FailedSync(_))
    }
}

/// Reads a trace; a record that is cut off at its end is left out.
pub(super) fn read(trace: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, end)) = read_one(trace, at) {
        records.push(Record { end, call: record });
        at = end;
    }
    records
}

fn read_one(trace: &[u8], at: usize) -> Option<(Call, usize)> {
    let head = trace.get(at..at + 21)?;
    let number = |from: usize| u64::from_ne_bytes(head[from..from + 8].try_into().expect("8"));
    let len = u32::from_ne_bytes(head[17..21].try_into().expect("4 bytes")) as usize;
    let data = trace.get(at + 21..at + 21 + len)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names in UTF-8");
    let offset = usize::try_from(number(9)).expect("a small file");
    let file = number(1);
    let call = match head[0] {
        b'C' => Call::Create(file, text(data)),
        b'W' => Call::Write(file, offset, data.to_vec()),
        b'T' => Call::Truncate(file, offset),
        b'S' => Call::Sync(file, Synced { commits: offset, data_only: false }),
        b's' => Call::Sync(file, Synced { commits: offset, data_only: true }),
        b'F' => Call::FailedSync(file),
        b'D' => Call::SyncFolder,
        b'U' => Call::Unlink(text(data)),
        b'R' => {
            let cut = data.iter().position(|b| *b == 0).expect("two names");
            Call::Rename(text(&data[..cut]), text(&data[cut + 1..]))
        }
        _ => Call::Nothing,
    };
    Some((call, at + 21 + len))
}

/// A file, or the folder: what is on the disk, and what waits for a sync.
#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// Behind the last sync, in order.
    pending: VecDeque<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => content.resize(*size, 0),
            Self::Write(at, data) => {
                if content.len() < at + data.len() {
                    content.resize(at + data.len(), 0);
                }
                content[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }

    /// Cuts a write at the borders of blocks: each is written, or not, by itself.
    fn blocks(self) -> Vec<Self> {
        let Self::Write(mut at, data) = self else { return vec![self] };
        let mut parts = Vec::new();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(BLOCK_BYTES - at % BLOCK_BYTES));
            parts.push(Self::Write(at, part.to_vec()));
            at += part.len();
            rest = after;
        }
        parts
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, u64),
    Remove(String),
}

/// The disk, as it follows the records.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    files: BTreeMap<u64, File>,
    /// The names as the running system sees them.
    seen: BTreeMap<String, u64>,
    /// The names that are on the disk.
    names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
}

impl Disk {
    /// Follows one more call.
    pub(super) fn follow(&mut self, record: &Record) {
        match &record.call {
            Call::Create(file, name) => {
                // A number of a deleted file may come again.
                self.files.insert(*file, File::default());
                self.set(name.clone(), *file);
            }
            Call::Write(file, at, data) => {
                let blocks = Change::Write(*at, data.clone()).blocks();
                self.files.entry(*file).or_default().pending.extend(blocks);
            }
            Call::Truncate(file, size) => {
                self.files.entry(*file).or_default().pending.push_back(Change::Truncate(*size));
            }
            Call::Sync(file, _) => {
                let file = self.files.entry(*file).or_default();
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
            }
            // The kernel holds these pages to be clean: no later sync writes them.
            Call::FailedSync(file) => self.files.entry(*file).or_default().pending.clear(),
            Call::SyncFolder => self.keep_names(usize::MAX),
            Call::Unlink(name) => {
                self.seen.remove(name);
                self.pending_names.push(NameChange::Remove(name.clone()));
            }
            Call::Rename(from, to) => {
                if let Some(file) = self.seen.remove(from) {
                    self.pending_names.push(NameChange::Remove(from.clone()));
                    self.set(to.clone(), file);
                }
            }
            Call::Nothing => {}
        }
    }

    fn set(&mut self, name: String, file: u64) {
        self.seen.insert(name.clone(), file);
        self.pending_names.push(NameChange::Set(name, file));
    }

    fn keep_names(&mut self, count: usize) {
        let count = count.min(self.pending_names.len());
        for change in self.pending_names.drain(..count) {
            match change {
                NameChange::Set(name, file) => drop(self.names.insert(name, file)),
                NameChange::Remove(name) => drop(self.names.remove(&name)),
            }
        }
    }

    /// Cuts the power: writes what the disk then holds into `folder`.
    pub(super) fn cut_power(mut self, rng: &mut Rng, folder: &Path) {
        // A rename is one step, and names are kept in their order, as journaling file systems do.
        self.keep_names(
            usize::try_from(rng.below(1 + self.pending_names.len() as u64)).expect("few"),
        );
        std::fs::create_dir_all(folder).expect("a folder");
        // All of the rest, none of it, or each block by chance.
        let chance = rng.below(3);
        for (name, file) in &self.names {
            let Some(file) = self.files.get(file) else { continue };
            let mut content = file.durable.clone();
            for change in &file.pending {
                let kept = match chance {
                    0 => false,
                    1 => true,
                    _ => rng.below(2) == 0,
                };
                if kept {
                    change.apply(&mut content);
                }
            }
            std::fs::write(folder.join(name), content).expect("a file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(call: Call) -> Record {
        Record { end: 0, call }
    }

    fn after(calls: &[Call], seed: u64) -> BTreeMap<String, Vec<u8>> {
        let mut disk = Disk::default();
        calls.iter().cloned().for_each(|call| disk.follow(&record(call)));
        let folder = tempfile::tempdir().expect("a folder");
        disk.cut_power(&mut Rng::new(seed), folder.path());
        std::fs::read_dir(folder.path())
            .expect("readable")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, std::fs::read(&path).expect("readable"))
            })
            .collect()
    }

    #[test]
    fn only_what_was_synced_is_certain() {
        let synced = [
            Call::Create(1, "a".into()),
            Call::Write(1, 0, b"old".to_vec()),
            Call::Sync(1, Synced::default()),
            Call::SyncFolder,
            Call::Write(1, 0, b"new".to_vec()),
        ];
        let seen: Vec<_> = (0..64).map(|seed| after(&synced, seed)["a"].clone()).collect();
        assert!(seen.contains(&b"old".to_vec()) && seen.contains(&b"new".to_vec()));
        let without_folder = [Call::Create(1, "a".into()), Call::Sync(1, Synced::default())];
        assert!((0..64).any(|seed| after(&without_folder, seed).is_empty()));
    }

    #[test]
    fn what_a_failed_sync_should_have_written_is_lost_for_good() {
        let calls = [
            Call::Create(1, "a".into()),
            Call::SyncFolder,
            Call::Write(1, 0, b"lost".to_vec()),
            Call::FailedSync(1),
            Call::Write(1, 4, b"kept".to_vec()),
            Call::Sync(1, Synced::default()),
        ];
        for seed in 0..16 {
            assert_eq!(after(&calls, seed)["a"], b"\0\0\0\0kept");
        }
    }
}
