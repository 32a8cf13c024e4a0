//! The embedded store, in memory and on disk.

use holdall::clock::SharedClock;
use holdall::store::embedded::{EmbeddedSettings, SyncMode, open_with};
use holdall::store::{StoreSettings, Stores};
use tempfile::TempDir;

use super::Backend;

/// Keeps its files as long as this exists; without a folder it has none.
struct Embedded(Option<TempDir>);

/// Returns the embedded store without files.
pub(crate) fn in_memory() -> Box<dyn Backend> {
    Box::new(Embedded(None))
}

/// Returns the embedded store in a folder of its own.
pub(crate) fn on_disk() -> Box<dyn Backend> {
    Box::new(Embedded(Some(new_folder())))
}

fn new_folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

impl Backend for Embedded {
    fn open(&self, store: &StoreSettings, clock: SharedClock) -> Stores {
        let path = self.0.as_ref().map(|folder| folder.path().to_owned());
        let settings = EmbeddedSettings { path, sync: SyncMode::Normal };
        open_with(&settings, store, |_| clock).expect("the store opens").0
    }

    fn wipe(&mut self) {
        self.0 = self.0.take().map(|_| new_folder());
    }

    fn has_files(&self) -> bool {
        self.0.is_some()
    }

    fn copy_files(&self) -> Option<Box<dyn Backend>> {
        let folder = self.0.as_ref()?;
        let copy = new_folder();
        for entry in std::fs::read_dir(folder).expect("the folder is readable") {
            let from = entry.expect("an entry is readable").path();
            let to = copy.path().join(from.file_name().expect("a file has a name"));
            std::fs::copy(from, to).expect("the file is copied");
        }
        Some(Box::new(Self(Some(copy))))
    }
}
