//! Carries out a group of merges: reads, decides, binds event ids of other shards, lets each shard merge its part, and
//! notes the numbers of producers.
//!
//! Invariant: what can be refused is refused before anything has changed, unless others change it meanwhile; and each
//! merge that is done is in all its shards.

use std::collections::HashMap;

use futures_util::future::join_all;
use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::fences::pass;
use super::super::core::replies::read as read_reply;
use super::super::core::shards::in_part;
use super::super::core::time::millis_of;
use super::Inner;
use super::apply::{Counts, PartOutcome};
use super::group::{At, Batch, Group, Numbered};
use super::plan::{Chosen, Stop, World};
use super::read::{ShardRead, traffic_of};
use super::record::{Bound, digits};
use super::scripts::{INTEND, NOTE_PRODUCER, STEP};
use crate::store::{ErrorKind, Fenced, MergeOutcome, StoreError, StoreResult};

/// What became of a merge.
pub(super) type Merged = StoreResult<Fenced<MergeOutcome>>;

/// What was decided about each batch of a group.
type Decisions = Vec<Result<Chosen, Stop>>;

impl Inner {
    /// Carries out a group; returns what became of each merge, in their order.
    pub(super) async fn merge_group(&self, group: Group) -> Vec<Merged> {
        let pass = match pass(&self.shards, group.fence.as_ref()).await {
            Ok(Fenced::Done(pass)) => pass,
            Ok(Fenced::Refused) => return vec![Ok(Fenced::Refused); group.batches.len()],
            Err(error) => return vec![Err(error); group.batches.len()],
        };
        let read = self.read_group(&group).await;
        let (decisions, read) = self.decide(&group, read).await;
        let mut parts: HashMap<usize, Vec<At>> = HashMap::new();
        for (batch, decision) in decisions.iter().enumerate() {
            let fresh = decision.as_ref().map_or(&[][..], |chosen| &chosen.fresh);
            for update in fresh {
                let at = At { batch, update: *update };
                parts.entry(group.update(at).1.shard).or_default().push(at);
            }
        }
        let mut read = read;
        let applied = parts.into_iter().map(|(shard, part)| {
            let read = read[shard].take().and_then(Result::ok).unwrap_or_default();
            let applied = self.apply_part(&group, shard, part, read, pass.clone());
            async move { (shard, applied.await) }
        });
        // All are waited for: what is still running when this returns could change the store later.
        let parts: HashMap<usize, PartOutcome> = join_all(applied).await.into_iter().collect();
        let ended = decisions.iter().enumerate().map(|(batch, decision)| {
            let merged = merged(&group, batch, decision, &parts);
            self.note_number(&group, &group.batches[batch], merged)
        });
        join_all(ended).await
    }

    /// Decides about all batches, and binds the event ids that have other shards than their updates.
    async fn decide(
        &self,
        group: &Group,
        read: Vec<Option<StoreResult<ShardRead>>>,
    ) -> (Decisions, Vec<Option<StoreResult<ShardRead>>>) {
        let mut stopped: HashMap<usize, Stop> = HashMap::new();
        // Each round but the last stops a batch.
        loop {
            let mut world = World::new(group, &self.shards, self.limits, &read);
            let decide = |batch| match stopped.get(&batch) {
                Some(stop) => Err(stop.clone()),
                None => world.decide(batch),
            };
            let decisions: Decisions = (0..group.batches.len()).map(decide).collect();
            let stops = self.bind_all(group, &decisions).await;
            if stops.is_empty() {
                return (decisions, read);
            }
            stopped.extend(stops);
        }
    }

    /// Binds the event ids of all updates that are to be merged in other shards than their ids'. Returns the batches of
    /// those that can't be.
    async fn bind_all(&self, group: &Group, decisions: &Decisions) -> HashMap<usize, Stop> {
        let mut by_home: HashMap<usize, Vec<At>> = HashMap::new();
        for (batch, decision) in decisions.iter().enumerate() {
            let fresh = decision.as_ref().map_or(&[][..], |chosen| &chosen.fresh);
            for update in fresh {
                let at = At { batch, update: *update };
                let (update, place) = group.update(at);
                if update.event.is_some() && place.home != place.shard {
                    by_home.entry(place.home).or_default().push(at);
                }
            }
        }
        let binds = by_home.iter().map(|(home, ids)| self.bind(group, *home, ids));
        join_all(binds).await.into_iter().flatten().collect()
    }

    async fn bind(&self, group: &Group, home: usize, ids: &[At]) -> Vec<(usize, Stop)> {
        let mut stops = Vec::new();
        let stopped = |at: &At, stop| (at.batch, stop);
        for chunk in ids.chunks(STEP) {
            match self.bind_chunk(group, home, chunk).await {
                Ok(others) => stops.extend(others.into_iter().filter_map(|position| {
                    let at = chunk.get(position.checked_sub(1)?)?;
                    Some(stopped(at, Stop::Conflict { index: at.update }))
                })),
                Err(error) => {
                    let failed = |at| stopped(at, Stop::Failed(error.clone()));
                    stops.extend(chunk.iter().map(failed));
                }
            }
        }
        stops
    }

    /// Returns the positions of the ids that are bound otherwise, from 1.
    async fn bind_chunk(&self, group: &Group, home: usize, ids: &[At]) -> StoreResult<Vec<usize>> {
        let arguments = |command: &mut Cmd| {
            command.arg(self.shards.part_of(self.limits.max_event_ids, home));
            command.arg(group.pipeline.dedup.map_or(0, millis_of));
            for at in ids {
                let (update, place) = group.update(*at);
                let Some(event) = update.event else { continue };
                let shard = u16::try_from(place.shard).unwrap_or(u16::MAX);
                let bound = Bound { content: event.content, shard, is_merged: false };
                command.arg(&event.id.0).arg(&bound.bytes());
            }
        };
        let reply = self.shards.run(home, traffic_of(ids.len()), &INTEND, arguments).await?;
        read_reply(reply)
    }

    /// Notes the number of a batch that was merged, in the shard of its producer.
    async fn note_number(&self, group: &Group, batch: &Batch, merged: Merged) -> Merged {
        let (Ok(Fenced::Done(MergeOutcome::Merged { applied, .. })), Some(numbered)) =
            (&merged, &batch.numbered)
        else {
            return merged;
        };
        let Numbered { producer, home, seq } = numbered;
        let arguments = |command: &mut Cmd| {
            command.arg(self.shards.part_of(self.limits.max_producers, *home));
            command.arg(group.pipeline.dedup.map_or(0, millis_of)).arg(producer).arg(digits(*seq));
        };
        let applied = usize::try_from(*applied).unwrap_or(usize::MAX);
        match self.shards.run(*home, Traffic::Small, &NOTE_PRODUCER, arguments).await {
            Ok(_) => merged,
            Err(error) => Err(in_part(applied, error)),
        }
    }
}

/// Returns what became of a batch, from what was decided about it and what its shards did.
fn merged(
    group: &Group,
    batch: usize,
    decision: &Result<Chosen, Stop>,
    parts: &HashMap<usize, PartOutcome>,
) -> Merged {
    let updates = group.batches[batch].updates.len() as u64;
    let chosen = match decision {
        Ok(chosen) => chosen,
        Err(Stop::Repeated) => {
            let (applied, duplicates, expired) = (0, updates, 0);
            return Ok(Fenced::Done(MergeOutcome::Merged { applied, duplicates, expired }));
        }
        Err(stop) => return stopped(stop, 0),
    };
    let Chosen { duplicates, expired, .. } = *chosen;
    let mut sum = Counts { applied: 0, duplicates, expired };
    let mut stop = None;
    for part in parts.values() {
        let counts = part.counts.get(&batch).copied().unwrap_or_default();
        sum.applied += counts.applied;
        sum.duplicates += counts.duplicates;
        sum.expired += counts.expired;
        stop = stop.or(part.stops.get(&batch).cloned());
    }
    // A duplicate of an update that was not merged after all is none.
    let stopped_first = |first: &At| {
        let part = parts.get(&group.update(*first).1.shard)?;
        part.stops.get(&first.batch).map(|_| {
            let why = "an update that this one repeats was not merged";
            Stop::Failed(StoreError::new(ErrorKind::Throttled, why))
        })
    };
    stop = stop.or_else(|| chosen.repeats.iter().find_map(stopped_first));
    match stop {
        Some(stop) => stopped(&stop, sum.applied),
        None => {
            let Counts { applied, duplicates, expired } = sum;
            Ok(Fenced::Done(MergeOutcome::Merged { applied, duplicates, expired }))
        }
    }
}

/// Returns what became of a batch that was stopped after so many of its updates were applied.
fn stopped(stop: &Stop, applied: u64) -> Merged {
    let raced = |why: &str| StoreError::new(ErrorKind::Unavailable, why);
    let error = match (stop, applied) {
        (Stop::Failed(error), _) => error.clone(),
        (Stop::Fence, 0) => return Ok(Fenced::Refused),
        (Stop::Gap { expected }, 0) => {
            return Ok(Fenced::Done(MergeOutcome::SequenceGap { expected: *expected }));
        }
        (Stop::Conflict { index }, 0) => {
            return Ok(Fenced::Done(MergeOutcome::Conflict { index: *index }));
        }
        (Stop::Refused { index, why }, 0) => {
            let (index, why) = (*index, why.clone());
            return Ok(Fenced::Done(MergeOutcome::Refused { index, why }));
        }
        (Stop::Fence, _) => raced("the lease changed hands while a batch was merged"),
        _ => raced("others changed what a batch depends on while it was merged"),
    };
    Err(in_part(usize::try_from(applied).unwrap_or(usize::MAX), error))
}
