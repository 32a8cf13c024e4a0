//! The folder of the files, and the lock that keeps it for one server.
//!
//! Invariant: at most one server serves a folder, and a power cut does not take away a folder in
//! which something was acknowledged.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::error::OpenError;
use super::sync::{SyncMode, sync_folder_of};
use super::wal::Missing;

/// Keeps a folder for this server alone, for as long as the value lives. The end of the process
/// ends it too.
#[derive(Debug)]
pub(in crate::store::embedded) struct FolderLock {
    pub(super) file: File,
    /// The last run that wrote here, if one did.
    before: Option<Run>,
}

/// A run of a server, as its lock file describes it to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    sync: SyncMode,
    /// Names the boot of the machine; `None` where that is not known.
    boot: Option<String>,
}

impl Run {
    fn parse(text: &str) -> Option<Self> {
        let (sync, boot) = text.trim_end().split_once(' ')?;
        let sync = SyncMode::try_from(sync.to_owned()).ok()?;
        Some(Self { sync, boot: Some(boot.to_owned()).filter(|boot| !boot.is_empty()) })
    }

    fn this(sync: SyncMode) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self { sync, boot: boot.map(|boot| boot.trim_end().to_owned()) }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.sync.pragma().to_lowercase(), self.boot.as_deref().unwrap_or(""))
    }
}

impl FolderLock {
    /// Makes the folder where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another server has it, [`OpenError::Failed`] otherwise.
    pub(in crate::store::embedded) fn take(folder: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::failed(folder, error);
        make_durably(folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                Ok(Self { file, before: Run::parse(&text) })
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Returns whether the folder is still there.
    pub(in crate::store::embedded) fn is_in_place(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Returns what the logs of the last run may legitimately lack.
    pub(in crate::store::embedded) fn missing(&self) -> Missing {
        match &self.before {
            // The kernel has all that was written.
            Some(run) if run.boot.is_some() && *run == Run::this(run.sync) => Missing::Nothing,
            Some(Run { sync: SyncMode::Normal, .. }) => Missing::Anything,
            _ => Missing::LastTransaction,
        }
    }

    /// Notes how this run writes, before its first commit.
    ///
    /// # Errors
    /// When that can't be brought to disk.
    pub(in crate::store::embedded) fn begin(&self, sync: SyncMode) -> Result<(), OpenError> {
        let text = Run::this(sync).to_string();
        self.file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64))
            .and_then(|()| self.file.sync_all())
            .map_err(|error| OpenError::failed(Path::new("the lock file of the store"), error))
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file alone is not enough: a process that another thread is just starting has
        // a copy of it until it runs its program, and the lock lives as long as any copy is open.
        // Where unlocking fails, closing the file is all that can be done.
        drop(self.file.unlock());
    }
}

/// Makes a folder, and those above it, so that they survive a power cut: the entry of each new
/// folder is synced in its parent.
fn make_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.iter().rev().try_for_each(|made| sync_folder_of(made))
}
