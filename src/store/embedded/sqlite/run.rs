//! What the file `lock` says about the run of a server that wrote it: how that run syncs, on which boot of the
//! machine, and which files its data needs.
//!
//! Not the lock itself. Invariant: a text that was altered does not read.

use std::fmt::{self, Write as _};
use std::fs;

use super::sync::SyncMode;

/// All texts have one length. So a new text replaces an old one in a single block, which a power cut does not split.
const TEXT_BYTES: usize = 256;
/// Stands where the boot of the machine, or any file, is not known.
const NONE: &str = "-";

/// A run of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) sync: SyncMode,
    /// Names the boot of the machine; `None` where that is not known.
    boot: Option<String>,
    /// The names of the files in the folder without which data is lost.
    pub(super) files: Vec<String>,
}

impl Run {
    /// Describes the run that begins.
    pub(super) fn this(sync: SyncMode, files: Vec<String>) -> Self {
        Self { sync, boot: this_boot(), files }
    }

    /// Returns whether the machine has not been started since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot.is_some() && self.boot == this_boot()
    }

    /// Reads the text of the lock file; `None` when no run has begun.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        // A power cut may leave the length of a text that was never written.
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let (sync, boot, files) = match words[..] {
            // An earlier version noted neither files nor a checksum.
            [sync, boot] => (sync, boot, NONE),
            [sync, boot, files, crc] if crc == checksum(sync, boot, files) => (sync, boot, files),
            _ => return Err("it does not have its checksum".to_owned()),
        };
        let known = |word: &&str| *word != NONE;
        Ok(Some(Self {
            sync: SyncMode::try_from(sync.to_owned())?,
            boot: Some(boot).filter(known).map(str::to_owned),
            files: files.split(',').filter(known).map(str::to_owned).collect(),
        }))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sync = self.sync.pragma().to_lowercase();
        let boot = self.boot.as_deref().unwrap_or(NONE);
        let files = if self.files.is_empty() { NONE.to_owned() } else { self.files.join(",") };
        let mut text = String::new();
        write!(text, "{sync} {boot} {files} {}", checksum(&sync, boot, &files))?;
        writeln!(f, "{text:<width$}", width = TEXT_BYTES - 1)
    }
}

fn this_boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim_end().to_owned()).filter(|boot| !boot.is_empty())
}

fn checksum(sync: &str, boot: &str, files: &str) -> String {
    format!("{:08x}", crc32fast::hash(format!("{sync} {boot} {files}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_and_one_flipped_bit_is_noticed_wherever_it_is() {
        let files = ["durable.db", "durable.db-wal"].map(str::to_owned).to_vec();
        for run in [Run::this(SyncMode::Full, files), Run::this(SyncMode::Normal, Vec::new())] {
            let text = run.to_string();
            assert_eq!(text.len(), TEXT_BYTES);
            assert_eq!(Run::read(text.as_bytes()), Ok(Some(run.clone())));
            assert!(run.is_of_this_boot());
            for bit in 0..text.len() * 8 {
                let mut bytes = text.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Some white space may become other white space.
                let read = Run::read(&bytes);
                assert!(read.is_err() || read == Ok(Some(run.clone())), "{bit}: {read:?}");
            }
        }
    }

    #[test]
    fn what_a_power_cut_left_unwritten_is_no_run_and_an_earlier_version_named_no_files() {
        assert_eq!(Run::read(b""), Ok(None));
        assert_eq!(Run::read(&[0; TEXT_BYTES]), Ok(None));
        let earlier = Run::read(b"full 0-1-2\n").expect("reads").expect("a run");
        assert_eq!((earlier.sync, earlier.files.len()), (SyncMode::Full, 0));
        assert!(!earlier.is_of_this_boot());
    }
}
