//! The buffered data of the embedded backend: in memory at once, on disk with the next flush.
//!
//! A resource that is buffered keeps its own table in memory with a [`DirtySet`], and shows it to
//! the [`Flusher`] as a [`BufferedSet`]. Nothing here knows any resource.

mod dirty;
mod flusher;
mod set;
#[cfg(test)]
mod tests;

pub(super) use self::dirty::{DirtySet, Drained};
pub(super) use self::flusher::{FlushSignal, Flusher};
pub(super) use self::set::{BufferedSet, FlushBatch, LockedSet, Unflushed};
