//! The folder of the files, and the lock that keeps it for one server.
//!
//! Invariant: at most one server serves a folder, and a power cut does not take away a folder in
//! which something was acknowledged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::error::OpenError;

/// Keeps a folder for this server alone, for as long as the value lives. The end of the process
/// ends it too.
#[derive(Debug)]
pub(in crate::store::embedded) struct FolderLock {
    pub(super) file: File,
}

impl FolderLock {
    /// Makes the folder where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another server has it, [`OpenError::Failed`] otherwise.
    pub(in crate::store::embedded) fn take(folder: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::failed(folder, error);
        make_durably(folder).map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
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
    for made in missing.iter().rev() {
        // The parent of a relative name is the empty path.
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
