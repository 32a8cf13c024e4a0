//! When what was written is on disk.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::model::settings::one_of;

/// When a durable write counts as on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum SyncMode {
    /// After `fsync`: it survives a power cut.
    Full,
    /// After the operating system has it: it survives `kill -9`.
    Normal,
}

impl TryFrom<String> for SyncMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text, &[("full", Self::Full), ("normal", Self::Normal)])
    }
}

impl SyncMode {
    /// Returns the value of SQLite's `synchronous`.
    pub(in crate::store::embedded) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// Syncs the folder of a file, so that a power cut does not take the file's name.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    // The parent of a relative name is the empty path.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
