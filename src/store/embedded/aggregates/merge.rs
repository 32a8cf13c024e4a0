//! The command that merges a batch.
//!
//! Not the reads. Invariant: all that can fail or refuse comes before the first change, so a batch is merged as a whole
//! or not at all, and what makes it count once is in the same command, as are its notes.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::outbox::add_notes;
use super::rows::{
    AggregateRow, Aggregates, EventIds, ProducerKey, ProducerRow, Producers, row_key,
};
use crate::clock::Moment;
use crate::model::aggregates::{Bucket, EventId, ProducerSequence, Update};
use crate::model::merge::State;
use crate::model::pipelines::{Pipeline, Window};
use crate::model::time::SteadyTime;
use crate::store::embedded::durable::{RowKey, Txn};
use crate::store::{ErrorKind, Merge, MergeOutcome, StoreError, StoreResult};

/// A batch whose keys are written already, off the writer's thread.
pub(super) struct Batch {
    pipeline: Arc<Pipeline>,
    updates: Vec<Update>,
    sequence: Option<ProducerSequence>,
    /// Each key once.
    keys: Vec<RowKey<Aggregates>>,
    /// The position in `keys` of each update's key.
    key_of: Vec<usize>,
}

impl Batch {
    /// Prepares a batch.
    pub(super) fn new(merge: Merge) -> Self {
        let Merge { pipeline, updates, sequence, .. } = merge;
        let mut keys = Vec::new();
        let mut known: HashMap<_, usize, RandomState> = HashMap::default();
        let key_of = updates
            .iter()
            .map(|Update { entity, bucket, .. }| {
                *known.entry((entity, *bucket)).or_insert_with(|| {
                    keys.push(row_key(&pipeline, entity, *bucket));
                    keys.len() - 1
                })
            })
            .collect();
        drop(known);
        Self { pipeline, updates, sequence, keys, key_of }
    }

    /// Merges the batch.
    ///
    /// # Errors
    /// When a row can't be read, or there is no room; nothing has changed but what has expired.
    pub(super) fn merge(self, txn: &mut Txn<'_>) -> StoreResult<MergeOutcome> {
        let duplicates = self.updates.len() as u64;
        match self.check_sequence(txn)? {
            Next::Applied => {
                return Ok(MergeOutcome::Merged { applied: 0, duplicates, expired: 0 });
            }
            Next::Gap { expected } => return Ok(MergeOutcome::SequenceGap { expected }),
            Next::Fits => {}
        }
        let chosen = match self.choose(txn) {
            Ok(chosen) => chosen,
            Err(index) => return Ok(MergeOutcome::Conflict { index }),
        };
        let merged = match self.combine(txn, &chosen.fresh)? {
            Ok(merged) => merged,
            Err(refused) => return Ok(refused),
        };
        self.make_room(txn, &chosen, &merged)?;
        self.write(txn, &chosen, merged)?;
        Ok(MergeOutcome::Merged {
            applied: chosen.fresh.len() as u64,
            duplicates: chosen.duplicates,
            expired: chosen.expired,
        })
    }

    fn check_sequence(&self, txn: &Txn<'_>) -> StoreResult<Next> {
        let Some(sequence) = &self.sequence else { return Ok(Next::Fits) };
        if self.pipeline.dedup.is_none() {
            return Err(no_period());
        }
        let Some(last) = txn.get::<Producers>(&self.producer(sequence)) else {
            return Ok(Next::Fits);
        };
        Ok(match sequence.seq.checked_sub(last.seq) {
            None | Some(0) => Next::Applied,
            Some(1) => Next::Fits,
            Some(_) => Next::Gap { expected: last.seq + 1 },
        })
    }

    fn producer(&self, sequence: &ProducerSequence) -> ProducerKey {
        (self.pipeline.name.as_str().to_owned(), sequence.producer.clone())
    }

    /// Finds out which updates are merged. Returns the position of the first conflict instead, if there is one.
    fn choose(&self, txn: &Txn<'_>) -> Result<Chosen, usize> {
        let with_event = || self.updates.iter().filter_map(|update| update.event);
        let claimed = txn.claimed::<EventIds>(with_event().map(|event| event.id.0));
        let mut claimed = claimed.into_iter();
        let mut of_batch: HashMap<EventId, u64, RandomState> = HashMap::default();
        let mut chosen = Chosen::default();
        for (index, update) in self.updates.iter().enumerate() {
            let is_expired = end_of_bucket(&self.pipeline, update.bucket, txn.now) == Ends::Over;
            if let Some(event) = update.event {
                let before = claimed.next().flatten();
                match before.or_else(|| of_batch.get(&event.id).copied()) {
                    Some(content) if content == event.content => {
                        chosen.duplicates += 1;
                        continue;
                    }
                    Some(_) => return Err(index),
                    None if is_expired => {}
                    None => {
                        of_batch.insert(event.id, event.content);
                        chosen.claims.push((event.id.0, event.content));
                    }
                }
            }
            if is_expired {
                chosen.expired += 1;
            } else {
                chosen.fresh.push(index);
            }
        }
        Ok(chosen)
    }

    /// Merges the chosen updates into copies of what is held. Returns the refusal of the first one that can't be merged
    /// instead, if there is one.
    fn combine(
        &self,
        txn: &mut Txn<'_>,
        fresh: &[usize],
    ) -> StoreResult<Result<Vec<Merged>, MergeOutcome>> {
        // The keys that are needed, each once, in the order in which they come first.
        let mut slots = vec![usize::MAX; self.keys.len()];
        let mut needed = Vec::with_capacity(self.keys.len());
        for index in fresh {
            let slot = &mut slots[self.key_of[*index]];
            if *slot == usize::MAX {
                *slot = needed.len();
                needed.push(self.keys[self.key_of[*index]].clone());
            }
        }
        let rows = txn.read_many(&needed)?;
        let mut merged = Vec::with_capacity(needed.len());
        for (key, row) in needed.into_iter().zip(rows) {
            merged.push(match row {
                Some(row) => Merged {
                    key,
                    state: Some(row.state(&self.pipeline)?.into_owned()),
                    end: row.expires_at,
                    is_new: false,
                },
                None => Merged { key, state: None, end: None, is_new: true },
            });
        }
        for index in fresh {
            let update = &self.updates[*index];
            let merged = &mut merged[slots[self.key_of[*index]]];
            merged.set_end(&self.pipeline, update, txn.now);
            match &mut merged.state {
                None => merged.state = Some(update.delta.clone()),
                Some(state) => {
                    if let Err(why) = self.pipeline.kind.merge(state, &update.delta) {
                        return Ok(Err(MergeOutcome::Refused { index: *index, why }));
                    }
                }
            }
        }
        Ok(Ok(merged))
    }

    fn make_room(&self, txn: &mut Txn<'_>, chosen: &Chosen, merged: &[Merged]) -> StoreResult<()> {
        if !chosen.claims.is_empty() && self.pipeline.dedup.is_none() {
            return Err(no_period());
        }
        txn.make_room_for_claims::<EventIds>(chosen.claims.len())?;
        if let Some(sequence) = &self.sequence
            && txn.get::<Producers>(&self.producer(sequence)).is_none()
        {
            txn.make_room::<Producers>(1)?;
        }
        txn.make_room_for_rows::<Aggregates>(merged.iter().filter(|merged| merged.is_new).count())
    }

    fn write(&self, txn: &mut Txn<'_>, chosen: &Chosen, merged: Vec<Merged>) -> StoreResult<()> {
        for Merged { key, state, end, .. } in merged {
            if let Some(state) = state {
                txn.write(&key, AggregateRow::new(&self.pipeline, state, end))?;
            }
        }
        let notes = chosen.fresh.iter().filter_map(|index| self.updates[*index].note.as_ref());
        add_notes(txn, &self.pipeline, notes);
        let Some(period) = self.pipeline.dedup else { return Ok(()) };
        txn.claim::<EventIds>(chosen.claims.iter().copied(), period);
        if let Some(sequence) = &self.sequence {
            let expires_at = txn.now.end_of(period);
            let row = ProducerRow { seq: sequence.seq, expires_at };
            txn.put::<Producers>(self.producer(sequence), row);
        }
        Ok(())
    }
}

/// How a batch follows on its producer's last one.
enum Next {
    Fits,
    Applied,
    Gap { expected: u64 },
}

/// What becomes of the updates of a batch.
#[derive(Default)]
struct Chosen {
    /// Those that are merged.
    fresh: Vec<usize>,
    /// Their event ids.
    claims: Vec<([u8; 16], u64)>,
    duplicates: u64,
    expired: u64,
}

/// A value as the batch leaves it.
struct Merged {
    key: RowKey<Aggregates>,
    /// `None` only until the first update is merged.
    state: Option<State>,
    end: Option<SteadyTime>,
    is_new: bool,
}

impl Merged {
    fn set_end(&mut self, pipeline: &Pipeline, update: &Update, now: Moment) {
        if self.state.is_none()
            && let Ends::At(end) = end_of_bucket(pipeline, update.bucket, now)
        {
            self.end = Some(end);
        }
        if let Some(ttl) = update.ttl {
            self.end = self.end.max(Some(now.end_of(ttl)));
        }
    }
}

/// When the values of a bucket expire.
#[derive(Debug, PartialEq, Eq)]
enum Ends {
    Never,
    At(SteadyTime),
    Over,
}

/// Returns when a value expires that is made now. The end is a time of the system's clock, to which the steady one is
/// as far as the system's clock says at this moment.
fn end_of_bucket(pipeline: &Pipeline, bucket: Bucket, now: Moment) -> Ends {
    let Some(Window { granularity, retention }) = pipeline.window else { return Ends::Never };
    let left = bucket.end(granularity).saturating_add(retention).saturating_since(now.system);
    if left.is_zero() { Ends::Over } else { Ends::At(now.steady.saturating_add(left)) }
}

fn no_period() -> StoreError {
    let why = "an event id or a sequence for a pipeline without a deduplication period";
    StoreError::new(ErrorKind::Internal, why)
}
