//! The scripts of aggregates, the keys that they have in each shard, and how much one of them does.
//!
//! Invariant: a script reads and writes a bounded number of entries and bytes, whatever a batch or a value holds.

use super::super::core::fences::FENCES;
use super::super::core::script::scripts;
use crate::model::pipelines::Pipeline;

/// The hash of values by key.
pub(super) const VALUES: &str = "aggregates";
/// The sorted set of the keys of values in their order.
const KEYS: &str = "aggregate_keys";
/// The sorted set of the keys of values that expire, by their ends.
pub(super) const ENDS: &str = "aggregate_ends";
/// The hash of event ids in their own shards: what they are bound to.
const EVENT_IDS: &str = "event_ids";
pub(super) const EVENT_ID_ENDS: &str = "event_id_ends";
/// The hash of event ids that were merged in this shard, and are bound in another one.
const CLAIMS: &str = "event_claims";
const CLAIM_ENDS: &str = "event_claim_ends";
/// The hash of producers in their own shards: the number of the last batch.
const PRODUCERS: &str = "producers";
pub(super) const PRODUCER_ENDS: &str = "producer_ends";
/// The hash of producers whose batches were merged in this shard: the number of the last one, and how much of it.
const MARKS: &str = "producer_marks";
const MARK_ENDS: &str = "producer_mark_ends";
/// The hash of the signatures of declared pipelines, in the first shard.
const PIPELINES: &str = "pipelines";

/// What expires, as [`super::super::core::expiry::Expiring`] takes it.
pub(super) const EXPIRING: [&[&str]; 5] = [
    &[ENDS, VALUES, KEYS],
    &[EVENT_ID_ENDS, EVENT_IDS],
    &[CLAIM_ENDS, CLAIMS],
    &[PRODUCER_ENDS, PRODUCERS],
    &[MARK_ENDS, MARKS],
];

scripts! {
    GET(&[VALUES]) = "lua/values.lua", "lua/get.lua";
    READ(&[VALUES, ENDS, EVENT_IDS, EVENT_ID_ENDS, CLAIMS, PRODUCERS, PRODUCER_ENDS, MARKS]) =
        "lua/values.lua", "lua/read.lua";
    INTEND(&[EVENT_IDS, EVENT_ID_ENDS]) = "lua/values.lua", "lua/intend.lua";
    WRITE(&[
        VALUES, KEYS, ENDS, EVENT_IDS, EVENT_ID_ENDS, CLAIMS, CLAIM_ENDS, MARKS, MARK_ENDS, FENCES
    ]) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/values.lua", "lua/write.lua";
    NOTE_PRODUCER(&[PRODUCERS, PRODUCER_ENDS]) = "lua/values.lua", "lua/note_producer.lua";
    MARK_SEEN(&[EVENT_IDS, EVENT_ID_ENDS]) = "lua/values.lua", "lua/mark_seen.lua";
    RANGES(&[VALUES, KEYS]) = "lua/values.lua", "lua/ranges.lua";
    DELETE(&[VALUES, KEYS, ENDS, FENCES]) =
        "../core/lua/epoch_check.lua", "../core/lua/fence.lua", "lua/delete.lua";
    SIGNATURES(&[PIPELINES]) = "lua/signatures.lua";
    DECLARE(&[PIPELINES]) = "lua/declare.lua";
}

/// The most entries of each sort that one script reads, writes or deletes.
pub(super) const STEP: usize = 500;
/// A script that has read, or is sent, so many bytes of values takes no more.
pub(super) const BYTES: usize = 1 << 20;
/// The most keys that one script looks at in ranges, which may be read one by one.
pub(super) const RANGE_STEP: usize = 800;
/// The most ranges of one script.
pub(super) const RANGES_AT_ONCE: usize = 300;

/// Returns how many values a script may read at a time, so that these are not much more than [`BYTES`].
pub(super) fn values_at_once(pipeline: &Pipeline) -> usize {
    (BYTES / pipeline.kind.max_state_bytes().max(1)).clamp(1, STEP)
}
