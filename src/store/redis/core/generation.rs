//! What generations and the cache share: where a key's generation lies, and how scripts return it.
//!
//! A cached value lies in the shard of its generation's key, so that a lookup reads both in one script.

use super::shards::Shards;
use crate::model::generations::{Generation, GenerationFence, GenerationKey};

/// The hash of generations by their key, `KEYS[2]` of each script that includes `lua/generation.lua`.
pub(crate) const GENERATIONS: &str = "generations";

/// Returns the shard of a generation's key.
pub(crate) fn shard_of(shards: &Shards, key: &GenerationKey) -> usize {
    shards.of(&[key.as_str().as_bytes()])
}

/// Makes a generation of the number and the fence that a script returned.
pub(crate) fn generation_of((number, fence): (i64, i64)) -> Generation {
    Generation { number, fence: GenerationFence(fence) }
}
