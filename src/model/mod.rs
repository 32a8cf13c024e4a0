//! Plain types that are valid once made. No I/O, no clock, no locks.
//!
//! Every key is a newtype built by `parse`, so that the layers above need not check it again.
//! Invariant: two different things never share a key.

pub mod aggregates;
pub mod batch;
pub mod cache;
pub mod checkpoints;
pub mod cursor;
pub mod generations;
pub(crate) mod hex;
pub mod hooks;
mod invalid;
mod keys;
mod last_failure;
pub mod leases;
pub mod locks;
pub mod merge;
pub mod number;
pub mod pipelines;
pub mod roles;
pub mod selector;
pub mod series;
pub mod settings;
pub mod time;

pub use self::invalid::Invalid;
pub use self::keys::MAX_KEY_BYTES;
pub use self::last_failure::{FailureEvent, LastFailure};
