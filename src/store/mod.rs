//! What keeps the data: the contract of every backend, the backends, and the choice among them.
//!
//! Invariant: the layers above name [`contract`] (re-exported here) and [`backends`], never one backend.

pub mod backends;
pub mod contract;
pub mod embedded;
pub mod redis;
mod scan;
pub mod timed;

pub use self::contract::*;
