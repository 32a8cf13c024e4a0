//! The folder of the files, and the lock that keeps it for one server.
//!
//! Invariant: at most one server serves a folder, and a power cut does not take away a folder in
//! which something was acknowledged. While a run may have acknowledged something that is in a file, its lock
//! file names that file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::error::OpenError;
use super::run::Run;
use super::sync::{SyncMode, sync_folder_of};
use super::wal::Missing;

/// The name of the lock file.
const NAME: &str = "lock";

/// Keeps a folder for this server alone, for as long as the value lives. The end of the process
/// ends it too.
#[derive(Debug)]
pub(in crate::store::embedded) struct FolderLock {
    pub(super) file: File,
    folder: PathBuf,
    /// The last run that wrote here, if one did.
    before: Option<Run>,
    /// The lock file was made here. It goes again where no run begins.
    made: bool,
    /// This run, from [`Self::begin`] on.
    now: Mutex<Option<Run>>,
}

impl FolderLock {
    /// Makes the folder where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another server has it, [`OpenError::Damaged`] when the lock file does not
    /// read, [`OpenError::Failed`] otherwise.
    pub(in crate::store::embedded) fn take(folder: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::failed(folder, error);
        make_durably(folder).map_err(failed)?;
        let path = folder.join(NAME);
        let (mut file, made) = loop {
            let (file, made) =
                open_or_make(&path).map_err(|error| OpenError::failed(&path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Locked { path: folder.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // A start that was refused may have removed the file in between. Its lock would be one that nobody else
            // sees.
            if file.metadata().map_err(failed)?.nlink() > 0 {
                break (file, made);
            }
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| OpenError::failed(&path, error))?;
        let before =
            Run::read(&bytes).map_err(|why| OpenError::Damaged { what: "lock file", path, why })?;
        Ok(Self { file, folder: folder.to_owned(), before, made, now: Mutex::default() })
    }

    /// Returns whether the folder is still there.
    pub(in crate::store::embedded) fn is_in_place(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Checks that the files are there without which data of the last run is lost.
    ///
    /// # Errors
    /// [`OpenError::Missing`] names the first that is not.
    pub(in crate::store::embedded) fn check_files(&self) -> Result<(), OpenError> {
        for name in self.before.iter().flat_map(|run| &run.files) {
            let path = self.folder.join(name);
            if !path.try_exists().map_err(|error| OpenError::failed(&path, error))? {
                return Err(OpenError::Missing { path, lock: self.folder.join(NAME) });
            }
        }
        Ok(())
    }

    /// Returns what the logs of the last run may legitimately lack.
    pub(in crate::store::embedded) fn missing(&self) -> Missing {
        match &self.before {
            // The kernel has all that was written.
            Some(run) if run.is_of_this_boot() => Missing::Nothing,
            Some(Run { sync: SyncMode::Normal, .. }) => Missing::Anything,
            _ => Missing::LastTransaction,
        }
    }

    /// Notes how this run writes, and into which files, before its first commit. Their names are on disk
    /// already.
    ///
    /// # Errors
    /// When that can't be brought to disk.
    pub(in crate::store::embedded) fn begin(
        &self,
        sync: SyncMode,
        files: &[PathBuf],
    ) -> Result<(), OpenError> {
        let run = Run::this(sync, files.iter().filter_map(|file| name_of(file)).collect());
        self.note(&run).map_err(|error| OpenError::failed(&self.folder.join(NAME), error))?;
        *self.now.lock() = Some(run);
        Ok(())
    }

    /// Notes that no data is lost without the file at `path` from now on. Nothing may be written to it any more.
    ///
    /// # Errors
    /// When that can't be brought to disk.
    pub(super) fn let_go(&self, path: &Path) -> io::Result<()> {
        let mut now = self.now.lock();
        let Some(run) = &mut *now else { return Ok(()) };
        run.files.retain(|file| Some(file) != name_of(path).as_ref());
        self.note(run)
    }

    fn note(&self, run: &Run) -> io::Result<()> {
        self.file.write_all_at(run.to_string().as_bytes(), 0)?;
        self.file.sync_data()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.made && self.now.get_mut().is_none() {
            // While the lock is held, so it is not the file of another server. A refused start leaves no file behind;
            // where this fails, it leaves an empty one, which says nothing.
            drop(fs::remove_file(self.folder.join(NAME)));
        }
        // Closing the file alone is not enough: a process that another thread is just starting has
        // a copy of it until it runs its program, and the lock lives as long as any copy is open.
        // Where unlocking fails, closing the file is all that can be done.
        drop(self.file.unlock());
    }
}

/// Opens the lock file; also returns whether it was made.
fn open_or_make(path: &Path) -> io::Result<(File, bool)> {
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return Ok((opened?, false)),
        }
        match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            // Another start made it in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((made?, true)),
        }
    }
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Makes a folder, and those above it, so that they survive a power cut: the entry of each new
/// folder is synced in its parent.
fn make_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.iter().rev().try_for_each(|made| sync_folder_of(made))
}
