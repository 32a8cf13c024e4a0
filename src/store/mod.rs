//! What keeps the data: the contract of every backend, and the backends.
//!
//! Invariant: the layers above name [`contract`] alone (re-exported here), never a backend.

pub mod contract;
pub mod embedded;
pub mod redis;

pub use self::contract::*;
