//! Starts the real server on a port and in a folder of its own, and ends it, whatever happens.
//!
//! Invariant: nothing here waits for a time; it waits for a condition, with a deadline.

pub(crate) mod client;
pub(crate) mod monitor;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod rng;
pub(crate) mod slot;
pub(crate) mod wait;

pub(crate) use self::client::{Client, Response};
pub(crate) use self::process::{Exit, Launch, Server};
pub(crate) use self::wait::{DEADLINE, eventually};
