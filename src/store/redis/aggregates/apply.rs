//! Merges the part of a group that belongs to one shard: chunk after chunk, each in one script, which writes only if
//! nothing has changed since its values were read.
//!
//! Invariant: a chunk is written as a whole, with all that makes its updates count once. What was not written has left
//! nothing in the shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::super::core::fences::{Pass, add_pass, run_fenced};
use super::super::core::random::random;
use super::super::core::replies::{malformed, read as read_reply};
use super::super::core::time::millis_of;
use super::Inner;
use super::group::{At, Group};
use super::plan::{Stop, World, end_of_bucket, merged};
use super::read::{ShardRead, Wanted, traffic_of};
use super::record::{Bound, Mark, Row, Version};
use super::scripts::{BYTES, STEP, WRITE, values_at_once};
use crate::model::merge::State;
use crate::store::{ErrorKind, Fenced, StoreError, StoreResult};

/// How often a chunk is tried while others change the same values.
const ATTEMPTS: u32 = 20;
/// The longest pause between two of them.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// What became of the updates of a part, by batch.
#[derive(Default)]
pub(super) struct PartOutcome {
    pub(super) counts: HashMap<usize, Counts>,
    /// Why the rest of a batch was not merged in this shard.
    pub(super) stops: HashMap<usize, Stop>,
}

/// Numbers of updates.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) expired: u64,
}

/// What one script writes.
#[derive(Default)]
struct Chunk {
    /// How many updates of the part are in it.
    updates: usize,
    values: Vec<ValueChange>,
    /// Event ids of this shard, and of other shards.
    ids: Vec<([u8; 16], Bound)>,
    claims: Vec<([u8; 16], Bound)>,
    marks: Vec<MarkChange>,
}

/// A value as the chunk leaves it.
struct ValueChange {
    key: usize,
    state: State,
    encoded: Vec<u8>,
    /// The end, if the value is new; 0 for never.
    end_ms: i64,
    /// 0 for none.
    ttl_ms: i64,
}

struct MarkChange {
    producer: Vec<u8>,
    mark: Mark,
}

enum Written {
    Done,
    Conflict,
    Refused,
}

impl Inner {
    /// Merges the updates of a part, in their order; `read` is what the shard held when they were decided about.
    pub(super) async fn apply_part(
        &self,
        group: &Group,
        shard: usize,
        mut part: Vec<At>,
        mut read: ShardRead,
        pass: Option<Arc<Pass>>,
    ) -> PartOutcome {
        let mut outcome = PartOutcome::default();
        let mut attempts = 0;
        while !part.is_empty() {
            match self.apply_chunk(group, shard, &part, &mut read, pass.clone()).await {
                Ok((Written::Done, updates)) => {
                    part.drain(..updates)
                        .for_each(|at| outcome.counts.entry(at.batch).or_default().applied += 1);
                    attempts = 0;
                }
                Ok((Written::Refused, _)) => return outcome.stopped(&part, &Stop::Fence),
                Ok((Written::Conflict, _)) if attempts < ATTEMPTS => {
                    attempts += 1;
                    match self.decide_again(group, shard, &part, attempts, &mut outcome).await {
                        Ok((left, again)) => (part, read) = (left, again),
                        Err(error) => return outcome.stopped(&part, &Stop::Failed(error)),
                    }
                }
                Ok((Written::Conflict, _)) => {
                    let why = "others keep changing the same aggregates";
                    let error = StoreError::new(ErrorKind::Throttled, why);
                    return outcome.stopped(&part, &Stop::Failed(error));
                }
                Err(error) => return outcome.stopped(&part, &Stop::Failed(error)),
            }
        }
        outcome
    }

    /// Reads again what a part depends on, after a pause, and decides about its updates once more. Returns those that
    /// are still to be merged.
    async fn decide_again(
        &self,
        group: &Group,
        shard: usize,
        part: &[At],
        attempts: u32,
        outcome: &mut PartOutcome,
    ) -> StoreResult<(Vec<At>, ShardRead)> {
        pause(attempts).await?;
        let read = self.read_shard(group, shard, &Wanted::of_part(group, shard, part)).await?;
        let mut reads: Vec<_> = (0..self.shards.count()).map(|_| None).collect();
        reads[shard] = Some(Ok(read));
        let mut world = World::new(group, &self.shards, self.limits, &reads);
        let mut left = Vec::with_capacity(part.len());
        for of_batch in part.chunk_by(|one, other| one.batch == other.batch) {
            let batch = of_batch[0].batch;
            let updates: Vec<usize> = of_batch.iter().map(|at| at.update).collect();
            match world.decide_again(batch, &updates) {
                Ok(chosen) => {
                    let counts = outcome.counts.entry(batch).or_default();
                    counts.duplicates += chosen.duplicates;
                    counts.expired += chosen.expired;
                    left.extend(chosen.fresh.iter().map(|update| At { batch, update: *update }));
                }
                Err(stop) => {
                    outcome.stops.insert(batch, stop);
                }
            }
        }
        let read = reads.swap_remove(shard).unwrap_or_else(|| Ok(ShardRead::default()))?;
        Ok((left, read))
    }

    /// Writes the next chunk of a part, and notes in `read` what it changed. Returns how many updates are in it.
    async fn apply_chunk(
        &self,
        group: &Group,
        shard: usize,
        part: &[At],
        read: &mut ShardRead,
        pass: Option<Arc<Pass>>,
    ) -> StoreResult<(Written, usize)> {
        let chunk = self.chunk(group, shard, part, read)?;
        let version = random()?.to_ne_bytes();
        let written = self.write(group, shard, &chunk, version, read, pass).await?;
        let updates = chunk.updates;
        if matches!(written, Written::Done) {
            read.values += chunk.values.iter().filter(|c| !read.rows.contains_key(&c.key)).count();
            read.event_ids += chunk.ids.len();
            for MarkChange { producer, mark } in chunk.marks {
                read.marks.insert(producer, mark);
            }
            for ValueChange { key, state, end_ms, .. } in chunk.values {
                // The end is read by nobody until the value is read again.
                read.rows.insert(key, Row { version, end_ms, state });
            }
        }
        Ok((written, updates))
    }

    /// Makes the next chunk of a part.
    fn chunk(
        &self,
        group: &Group,
        shard: usize,
        part: &[At],
        read: &ShardRead,
    ) -> StoreResult<Chunk> {
        let kind = &group.pipeline.kind;
        let mut chunk = Chunk::default();
        let mut positions: HashMap<usize, usize> = HashMap::new();
        let mut bytes = 0;
        for at in part.iter().take(STEP) {
            if bytes >= BYTES {
                break;
            }
            chunk.updates += 1;
            let (update, place) = group.update(*at);
            bytes += kind.bytes(&update.delta);
            let failed = |why: crate::model::merge::MergeError| {
                StoreError::caused_by(ErrorKind::Internal, "an update that was decided about", why)
            };
            let ttl_ms = update.ttl.map_or(0, millis_of);
            match positions.get(&place.key) {
                Some(position) => {
                    let change: &mut ValueChange = &mut chunk.values[*position];
                    kind.merge(&mut change.state, &update.delta).map_err(failed)?;
                    change.ttl_ms = change.ttl_ms.max(ttl_ms);
                }
                None => {
                    let held = read.rows.get(&place.key).map(|row| row.state.clone());
                    let state = merged(&group.pipeline, held, update).map_err(failed)?;
                    bytes += kind.bytes(&state);
                    let end_ms = end_of_bucket(&group.pipeline, update.bucket).unwrap_or(0);
                    positions.insert(place.key, chunk.values.len());
                    let (key, encoded) = (place.key, Vec::new());
                    chunk.values.push(ValueChange { key, state, encoded, end_ms, ttl_ms });
                }
            }
            if let Some(event) = update.event {
                let shard_number = u16::try_from(shard).unwrap_or(u16::MAX);
                let content = event.content;
                let bound = Bound { content, shard: shard_number, is_merged: true };
                let list = if place.home == shard { &mut chunk.ids } else { &mut chunk.claims };
                list.push((event.id.0, bound));
            }
        }
        for change in &mut chunk.values {
            change.encoded = kind.encode(&change.state).map_err(|why| {
                StoreError::caused_by(ErrorKind::Internal, "a value that was merged", why)
            })?;
        }
        let (taken, left) = part.split_at(chunk.updates);
        chunk.marks = marks(group, shard, taken, left);
        Ok(chunk)
    }

    async fn write(
        &self,
        group: &Group,
        shard: usize,
        chunk: &Chunk,
        version: Version,
        read: &ShardRead,
        pass: Option<Arc<Pass>>,
    ) -> StoreResult<Written> {
        let arguments = |command: &mut Cmd| {
            command.arg(&version).arg(values_at_once(&group.pipeline));
            command.arg(self.shards.part_of(self.limits.max_values, shard));
            command.arg(self.shards.part_of(self.limits.max_event_ids, shard));
            command.arg(group.pipeline.dedup.map_or(0, millis_of));
            command.arg(chunk.values.len()).arg(chunk.ids.len()).arg(chunk.claims.len());
            command.arg(chunk.marks.len());
            for ValueChange { key, encoded, end_ms, ttl_ms, .. } in &chunk.values {
                let known = read.rows.get(key).map_or(&[][..], |row| &row.version);
                command.arg(&group.keys[*key].bytes).arg(known).arg(end_ms).arg(ttl_ms);
                command.arg(encoded);
            }
            for (id, bound) in chunk.ids.iter().chain(&chunk.claims) {
                command.arg(id).arg(&bound.bytes());
            }
            for MarkChange { producer, mark } in &chunk.marks {
                let known = read.marks.get(producer).map_or(Vec::new(), |mark| mark.bytes());
                command.arg(producer).arg(known).arg(mark.bytes());
            }
        };
        let traffic = traffic_of(chunk.updates);
        let run = |pass: Option<Arc<Pass>>| async move {
            let all = |command: &mut Cmd| {
                add_pass(command, shard, pass.as_deref());
                arguments(command);
            };
            self.shards.run(shard, traffic, &WRITE, all).await
        };
        let Fenced::Done(reply) = run_fenced(&self.shards, shard, pass, run).await? else {
            return Ok(Written::Refused);
        };
        match read_reply::<String>(reply)?.as_str() {
            "done" => Ok(Written::Done),
            "conflict" => Ok(Written::Conflict),
            other => Err(malformed(&other)),
        }
    }
}

impl PartOutcome {
    /// Notes why the rest of a part is not merged.
    fn stopped(mut self, rest: &[At], stop: &Stop) -> Self {
        for at in rest {
            self.stops.entry(at.batch).or_insert_with(|| stop.clone());
        }
        self
    }
}

/// Returns the marks of numbered batches, of which `taken` are merged, and `left` are not yet.
fn marks(group: &Group, shard: usize, taken: &[At], left: &[At]) -> Vec<MarkChange> {
    let of_batch = |of_batch: &[At]| {
        let last = of_batch.last()?;
        let batch = &group.batches[last.batch];
        let numbered = batch.numbered.as_ref()?;
        // Behind the last one of the shard there are none, or only duplicates.
        let is_whole = left.first().is_none_or(|next| next.batch != last.batch);
        let whole = batch.counts.get(&shard).copied().unwrap_or(0);
        let done = if is_whole { whole } else { batch.places[last.update].ordinal + 1 };
        let mark = Mark { seq: numbered.seq, done };
        Some(MarkChange { producer: numbered.producer.clone(), mark })
    };
    taken.chunk_by(|one, other| one.batch == other.batch).filter_map(of_batch).collect()
}

/// Waits before another attempt: longer each time, and for a random part of that, so that those who met part.
async fn pause(attempts: u32) -> StoreResult<()> {
    let longest = Duration::from_millis(1 << attempts.min(10)).min(MAX_PAUSE);
    let micros = u64::try_from(longest.as_micros()).unwrap_or(1).max(1);
    tokio::time::sleep(Duration::from_micros(random()? % micros)).await;
    Ok(())
}
