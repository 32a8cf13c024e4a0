//! A group of merges that reach Redis together: their updates by key and shard.
//!
//! Not what becomes of them. Invariant: all merges of a group are of one pipeline, each producer is named once, and a
//! merge with a fence is alone in its group.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::core::shards::Shards;
use super::record::{producer_key, value_key};
use crate::model::aggregates::{EventId, Update};
use crate::model::leases::Fence;
use crate::model::pipelines::Pipeline;
use crate::store::Merge;

/// Merges that are carried out together.
pub(super) struct Group {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) fence: Option<Fence>,
    /// In the order of their arrival.
    pub(super) batches: Vec<Batch>,
    /// The keys of all updates, each once.
    pub(super) keys: Vec<Key>,
}

/// The key of a value.
pub(super) struct Key {
    /// As it is stored.
    pub(super) bytes: Vec<u8>,
    pub(super) shard: usize,
}

/// A merge of the group.
pub(super) struct Batch {
    pub(super) updates: Vec<Update>,
    pub(super) numbered: Option<Numbered>,
    /// Where each update is.
    pub(super) places: Vec<Place>,
    /// How many updates there are in each shard.
    pub(super) counts: HashMap<usize, u32>,
}

/// Where an update is.
pub(super) struct Place {
    /// The position of its key in the group.
    pub(super) key: usize,
    /// The shard of its key.
    pub(super) shard: usize,
    /// The shard of its event id; that of its key where it has none.
    pub(super) home: usize,
    /// How many updates of its batch are before it in the same shard.
    pub(super) ordinal: u32,
}

/// The number of a batch.
pub(super) struct Numbered {
    /// The producer, as it is stored.
    pub(super) producer: Vec<u8>,
    /// The shard that has the number of its last batch.
    pub(super) home: usize,
    pub(super) seq: u64,
}

/// Returns the shard of an event id.
pub(super) fn home_of(shards: &Shards, id: &EventId) -> usize {
    shards.of(&[b"event", &id.0])
}

/// Returns the shard of all values of an entity.
pub(super) fn shard_of(shards: &Shards, pipeline: &Pipeline, entity: &str) -> usize {
    shards.of(&[b"aggregate", pipeline.name.as_str().as_bytes(), entity.as_bytes()])
}

impl Group {
    /// Makes a group of at least one merge.
    pub(super) fn new(shards: &Shards, merges: Vec<Merge>) -> Option<Self> {
        let first = merges.first()?;
        let (pipeline, fence) = (Arc::clone(&first.pipeline), first.fence.clone());
        let mut group = Self { pipeline, fence, batches: Vec::new(), keys: Vec::new() };
        let mut known = HashMap::new();
        for merge in merges {
            let batch = group.batch(shards, merge, &mut known);
            group.batches.push(batch);
        }
        Some(group)
    }

    fn batch(
        &mut self,
        shards: &Shards,
        merge: Merge,
        known: &mut HashMap<Vec<u8>, usize>,
    ) -> Batch {
        let Merge { pipeline, updates, sequence, .. } = merge;
        let mut counts = HashMap::new();
        let mut places = Vec::with_capacity(updates.len());
        for update in &updates {
            let bytes = value_key(&pipeline.name, &update.entity, update.bucket);
            let key = match known.get(&bytes) {
                Some(key) => *key,
                None => {
                    let shard = shard_of(shards, &pipeline, update.entity.as_str());
                    known.insert(bytes.clone(), self.keys.len());
                    self.keys.push(Key { bytes, shard });
                    self.keys.len() - 1
                }
            };
            let shard = self.keys[key].shard;
            let home = update.event.map_or(shard, |event| home_of(shards, &event.id));
            let count: &mut u32 = counts.entry(shard).or_default();
            places.push(Place { key, shard, home, ordinal: *count });
            *count += 1;
        }
        let numbered = sequence.map(|sequence| {
            let producer = producer_key(&pipeline.name, &sequence.producer);
            let home = shards.of(&[b"producer", &producer]);
            Numbered { producer, home, seq: sequence.seq }
        });
        Batch { updates, numbered, places, counts }
    }

    /// Returns the update and its place.
    pub(super) fn update(&self, at: At) -> (&Update, &Place) {
        let batch = &self.batches[at.batch];
        (&batch.updates[at.update], &batch.places[at.update])
    }
}

/// An update of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) batch: usize,
    pub(super) update: usize,
}
