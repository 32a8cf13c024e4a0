//! The SQLite files of the embedded backend: opening, checking, versions of schemas, errors.
//!
//! Not a layer over SQLite: the engines speak SQL to the files that they open here. Invariant: a file that is
//! not ours, is damaged, or was made by a newer version is refused with every byte of it left as it
//! was, while what a killed server left behind (a write-ahead log) is recovered.

mod check;
mod checkpoint;
mod error;
mod folder;
mod format;
mod open;
mod run;
mod schema;
mod sync;
#[cfg(test)]
mod tests;
mod wal;
#[cfg(test)]
mod wal_tests;

pub(super) use self::check::CheckedFile;
pub(super) use self::checkpoint::WalCheckpoints;
pub use self::error::OpenError;
pub(super) use self::error::{corrupt, failed_to, is_failed_sync};
pub(super) use self::folder::FolderLock;
pub(super) use self::schema::SchemaPart;
pub use self::sync::SyncMode;
pub(super) use self::wal::Missing;
