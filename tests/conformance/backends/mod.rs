//! The backends that the cases run against, each in its own file: where a store under test keeps its data, and
//! how it is opened there.

pub(crate) mod embedded;
pub(crate) mod redis;

use holdall::clock::SharedClock;
use holdall::store::{StoreSettings, Stores};

/// The place of one store under test. No two cases share one.
pub(crate) trait Backend: Send {
    /// Opens the store with what is in this place, with these settings.
    fn open(&self, store: &StoreSettings, clock: SharedClock) -> Stores;

    /// Removes everything from this place. The store is closed.
    fn wipe(&mut self);

    /// Returns whether the store has files.
    fn has_files(&self) -> bool {
        false
    }

    /// Copies the files of a closed store; `None` where it has none.
    fn copy_files(&self) -> Option<Box<dyn Backend>> {
        None
    }
}
