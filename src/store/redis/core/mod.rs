//! What the resources of the Redis store are built on: the client, scripts, shards, fences, expiry.
//!
//! Resources import from here and never from each other; nothing here imports a resource. What two of
//! them share lies here too: `fences` for those whose writes are fenced, `generation` for
//! generations and the cache.

pub(super) mod client;
pub(super) mod epoch_check;
pub(super) mod expiry;
pub(super) mod fences;
pub(super) mod generation;
pub(super) mod listing;
pub(super) mod random;
pub(super) mod replies;
pub(super) mod script;
pub(super) mod seen;
pub(super) mod settings;
pub(super) mod shards;
pub(super) mod status;
pub(super) mod time;
pub(super) mod upkeep;
