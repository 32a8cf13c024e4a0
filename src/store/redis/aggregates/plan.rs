//! Decides what becomes of the updates of a group, from what was read: which are merged, which are duplicates, which
//! batches are refused.
//!
//! No I/O. Invariant: a batch is decided as a whole, in the order of arrival, as if those before it had been applied;
//! one that is refused leaves no trace in the decisions about later ones.

use std::collections::HashMap;

use super::super::core::shards::Shards;
use super::group::{At, Group, Place};
use super::read::ShardRead;
use super::record::Mark;
use crate::model::aggregates::{Bucket, Update};
use crate::model::merge::{MergeError, State};
use crate::model::pipelines::{Pipeline, Window};
use crate::store::{AggregateSettings, ErrorKind, Limited, StoreError, StoreResult};

/// Why a batch is not merged, or not to its end.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// It was merged before, as a whole.
    Repeated,
    Gap {
        expected: u64,
    },
    Conflict {
        index: usize,
    },
    Refused {
        index: usize,
        why: MergeError,
    },
    /// The lease is not held under the fence's token.
    Fence,
    Failed(StoreError),
}

/// What was decided about some updates of a batch.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Those that are merged.
    pub(super) fresh: Vec<usize>,
    pub(super) duplicates: u64,
    pub(super) expired: u64,
    /// The updates of the same group that duplicates repeat.
    pub(super) repeats: Vec<At>,
}

/// What was read, and what the decisions so far change of it.
pub(super) struct World<'a> {
    group: &'a Group,
    shards: &'a Shards,
    limits: AggregateSettings,
    read: &'a [Option<StoreResult<ShardRead>>],
    /// Values as the batches before leave them, by the positions of their keys.
    states: HashMap<usize, State>,
    /// Which update of the group merges an event.
    claimed: HashMap<[u8; 16], At>,
    /// How many values, event ids and producers are new in each shard.
    new: HashMap<(usize, Limited), usize>,
}

/// What one batch adds to the world, if it is not refused.
#[derive(Default)]
struct Changes {
    states: HashMap<usize, State>,
    claimed: HashMap<[u8; 16], At>,
    new: HashMap<(usize, Limited), usize>,
}

impl<'a> World<'a> {
    /// Returns the world as it was read.
    pub(super) fn new(
        group: &'a Group,
        shards: &'a Shards,
        limits: AggregateSettings,
        read: &'a [Option<StoreResult<ShardRead>>],
    ) -> Self {
        let (states, claimed, new) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { group, shards, limits, read, states, claimed, new }
    }

    /// Decides about a whole batch.
    ///
    /// # Errors
    /// Why it is not merged.
    pub(super) fn decide(&mut self, batch: usize) -> Result<Chosen, Stop> {
        let mut changes = Changes::default();
        self.check_number(batch, &mut changes)?;
        let all: Vec<usize> = (0..self.group.batches[batch].updates.len()).collect();
        self.decide_some(batch, &all, true, changes)
    }

    /// Decides again about the updates of a batch that one shard has not merged yet. Its event ids are bound already, and
    /// its number was checked.
    ///
    /// # Errors
    /// Why they are not merged.
    pub(super) fn decide_again(&mut self, batch: usize, left: &[usize]) -> Result<Chosen, Stop> {
        self.decide_some(batch, left, false, Changes::default())
    }

    fn decide_some(
        &mut self,
        batch: usize,
        updates: &[usize],
        is_first: bool,
        mut changes: Changes,
    ) -> Result<Chosen, Stop> {
        let chosen = self.choose(batch, updates, is_first, &mut changes)?;
        self.combine(batch, &chosen.fresh, &mut changes)?;
        self.check_room(&changes)?;
        self.states.extend(changes.states);
        self.claimed.extend(changes.claimed);
        changes.new.into_iter().for_each(|(of, count)| *self.new.entry(of).or_default() += count);
        Ok(chosen)
    }

    fn shard(&self, shard: usize) -> Result<&'a ShardRead, Stop> {
        match &self.read[shard] {
            Some(Ok(read)) => Ok(read),
            Some(Err(error)) => Err(Stop::Failed(error.clone())),
            None => Err(Stop::Failed(StoreError::new(ErrorKind::Internal, "a shard was not read"))),
        }
    }

    /// Checks how the batch follows on its producer's last one.
    fn check_number(&self, batch: usize, changes: &mut Changes) -> Result<(), Stop> {
        let Some(numbered) = &self.group.batches[batch].numbered else { return Ok(()) };
        self.require_period()?;
        let read = self.shard(numbered.home)?;
        let Some(last) = read.numbers.get(&numbered.producer) else {
            changes.new.insert((numbered.home, Limited::Producers), 1);
            return Ok(());
        };
        match numbered.seq.checked_sub(*last) {
            None | Some(0) => Err(Stop::Repeated),
            Some(1) => Ok(()),
            Some(_) => Err(Stop::Gap { expected: last + 1 }),
        }
    }

    fn require_period(&self) -> Result<(), Stop> {
        if self.group.pipeline.dedup.is_some() {
            return Ok(());
        }
        let why = "an event id or a sequence for a pipeline without a deduplication period";
        Err(Stop::Failed(StoreError::new(ErrorKind::Internal, why)))
    }

    /// Finds out which updates are merged.
    fn choose(
        &self,
        batch: usize,
        updates: &[usize],
        is_first: bool,
        changes: &mut Changes,
    ) -> Result<Chosen, Stop> {
        let mut chosen = Chosen::default();
        for index in updates {
            let at = At { batch, update: *index };
            let (update, place) = self.group.update(at);
            let read = self.shard(place.shard)?;
            if self.was_done_before(batch, place, read) {
                chosen.duplicates += 1;
                continue;
            }
            match self.event_of(at, is_first, changes)? {
                Known::Duplicate => {
                    chosen.duplicates += 1;
                    continue;
                }
                Known::Repeats(first) => {
                    chosen.duplicates += 1;
                    chosen.repeats.push(first);
                    continue;
                }
                Known::New => {}
            }
            if has_expired(&self.group.pipeline, update.bucket, read.now_ms) {
                chosen.expired += 1;
                continue;
            }
            if let Some(event) = update.event {
                self.require_period()?;
                changes.claimed.insert(event.id.0, at);
                let is_bound = place.home != place.shard
                    && (!is_first || self.shard(place.home)?.ids.contains_key(&event.id.0));
                if !is_bound {
                    *changes.new.entry((place.home, Limited::EventIds)).or_default() += 1;
                }
            }
            chosen.fresh.push(*index);
        }
        Ok(chosen)
    }

    /// Returns whether an earlier attempt to merge the same numbered batch merged this update.
    fn was_done_before(&self, batch: usize, place: &Place, read: &ShardRead) -> bool {
        let Some(numbered) = &self.group.batches[batch].numbered else { return false };
        read.marks.get(&numbered.producer).is_some_and(|Mark { seq, done }| {
            *seq > numbered.seq || *seq == numbered.seq && place.ordinal < *done
        })
    }

    /// Returns what is known of an update's event.
    fn event_of(&self, at: At, is_first: bool, changes: &Changes) -> Result<Known, Stop> {
        let (update, place) = self.group.update(at);
        let Some(event) = update.event else { return Ok(Known::New) };
        let conflict = Stop::Conflict { index: at.update };
        // Ids of the batch itself, and of those before it in the group.
        let of_group = changes.claimed.get(&event.id.0).or_else(|| self.claimed.get(&event.id.0));
        if let Some(first) = of_group {
            let (other, _) = self.group.update(*first);
            let is_same = other.event.is_some_and(|other| other.content == event.content);
            return if is_same { Ok(Known::Repeats(*first)) } else { Err(conflict) };
        }
        let mut entries = Vec::with_capacity(2);
        if is_first || place.home == place.shard {
            entries.push(self.shard(place.home)?.ids.get(&event.id.0));
        }
        if place.home != place.shard {
            entries.push(self.shard(place.shard)?.claims.get(&event.id.0));
        }
        let mut known = Known::New;
        for bound in entries.into_iter().flatten() {
            if bound.content != event.content {
                return Err(conflict);
            }
            // An id whose update belongs into another shard: the content says which, so it is another name of the same.
            if bound.is_merged || usize::from(bound.shard) != place.shard {
                known = Known::Duplicate;
            }
        }
        Ok(known)
    }

    /// Merges the chosen updates into copies of the values.
    fn combine(&self, batch: usize, fresh: &[usize], changes: &mut Changes) -> Result<(), Stop> {
        for index in fresh {
            let (update, place) = self.group.update(At { batch, update: *index });
            let read = self.shard(place.shard)?;
            let held =
                || self.states.get(&place.key).or_else(|| Some(&read.rows.get(&place.key)?.state));
            let state = match changes.states.remove(&place.key) {
                Some(state) => Some(state),
                None => held().cloned(),
            };
            if state.is_none() {
                *changes.new.entry((place.shard, Limited::Aggregates)).or_default() += 1;
            }
            let refused = |why| Stop::Refused { index: *index, why };
            let merged = merged(&self.group.pipeline, state, update).map_err(refused)?;
            changes.states.insert(place.key, merged);
        }
        Ok(())
    }

    /// Checks that each shard has room for what the batch would add.
    fn check_room(&self, changes: &Changes) -> Result<(), Stop> {
        // In this order, so that a batch that lacks room for several is always told the same.
        for limited in [Limited::EventIds, Limited::Producers, Limited::Aggregates] {
            for ((shard, _), new) in changes.new.iter().filter(|((_, of), _)| *of == limited) {
                let read = self.shard(*shard)?;
                let (limit, held) = match limited {
                    Limited::EventIds => (self.limits.max_event_ids, read.event_ids),
                    Limited::Producers => (self.limits.max_producers, read.producers),
                    _ => (self.limits.max_values, read.values),
                };
                let before = self.new.get(&(*shard, limited)).copied().unwrap_or(0);
                if held + before + new > self.shards.part_of(limit, *shard) {
                    return Err(Stop::Failed(StoreError::limit_reached(limited)));
                }
            }
        }
        Ok(())
    }
}

/// What is known of an event.
enum Known {
    New,
    Duplicate,
    /// It is that of an update of the same group.
    Repeats(At),
}

/// Merges an update into a value, or makes it one.
///
/// # Errors
/// When it can't be merged.
pub(super) fn merged(
    pipeline: &Pipeline,
    state: Option<State>,
    update: &Update,
) -> Result<State, MergeError> {
    let Some(mut state) = state else { return Ok(update.delta.clone()) };
    pipeline.kind.merge(&mut state, &update.delta)?;
    Ok(state)
}

/// Returns when a new value of a bucket expires, in milliseconds since 1970; `None` for never.
pub(super) fn end_of_bucket(pipeline: &Pipeline, bucket: Bucket) -> Option<i64> {
    let Window { granularity, retention } = pipeline.window?;
    let end = bucket.end(granularity).saturating_add(retention).as_nanos();
    // Rounded up: nothing expires before its end.
    Some(end.div_euclid(1_000_000) + i64::from(end.rem_euclid(1_000_000) > 0))
}

fn has_expired(pipeline: &Pipeline, bucket: Bucket, now_ms: i64) -> bool {
    end_of_bucket(pipeline, bucket).is_some_and(|end| end <= now_ms)
}
