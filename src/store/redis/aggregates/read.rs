//! Reading what merges depend on, shard by shard, in pieces of bounded size.
//!
//! Invariant: nothing is trusted for long. Whoever writes compares all of it once more, in the script that writes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use futures_util::future::join_all;
use redis::Cmd;

use super::super::core::client::Traffic;
use super::super::core::replies::{ReplyReader, malformed};
use super::Inner;
use super::group::{At, Group};
use super::record::{Bound, Mark, Row, number_of};
use super::scripts::{BYTES, GET, READ, STEP, values_at_once};
use crate::model::pipelines::Pipeline;
use crate::store::StoreResult;

/// Reads of few values don't wait behind large transfers.
const FEW: usize = 16;

/// What was read of a shard.
#[derive(Default)]
pub(super) struct ShardRead {
    /// The time of the shard in milliseconds since 1970.
    pub(super) now_ms: i64,
    /// How many live values, event ids and producers it has.
    pub(super) values: usize,
    pub(super) event_ids: usize,
    pub(super) producers: usize,
    /// The live values, by the positions of their keys in the group.
    pub(super) rows: HashMap<usize, Row>,
    /// What event ids of this shard are bound to.
    pub(super) ids: HashMap<[u8; 16], Bound>,
    /// What was merged here of event ids of other shards.
    pub(super) claims: HashMap<[u8; 16], Bound>,
    /// The numbers of the last batches of producers of this shard.
    pub(super) numbers: HashMap<Vec<u8>, u64>,
    /// How much of the last batches of producers was merged here.
    pub(super) marks: HashMap<Vec<u8>, Mark>,
}

/// What is read of a shard.
#[derive(Default)]
pub(super) struct Wanted {
    keys: Vec<usize>,
    ids: Vec<[u8; 16]>,
    claims: Vec<[u8; 16]>,
    producers: Vec<Vec<u8>>,
    marks: Vec<Vec<u8>>,
}

impl Wanted {
    /// Returns what updates of one shard need to know of it, once the ids of other shards were bound.
    pub(super) fn of_part(group: &Group, shard: usize, part: &[At]) -> Self {
        let mut wanted = Self::default();
        let mut known = HashSet::new();
        let mut batches = HashSet::new();
        for at in part {
            let (update, place) = group.update(*at);
            if known.insert(place.key) {
                wanted.keys.push(place.key);
            }
            if let Some(event) = update.event {
                let list = if place.home == shard { &mut wanted.ids } else { &mut wanted.claims };
                list.push(event.id.0);
            }
            if let Some(numbered) = &group.batches[at.batch].numbered
                && batches.insert(at.batch)
            {
                wanted.marks.push(numbered.producer.clone());
            }
        }
        wanted
    }

    /// Returns what a group needs to know of each shard; nothing of those that it does not touch.
    fn of_group(group: &Group, shards: usize) -> Vec<Option<Self>> {
        let mut wanted: Vec<Option<Self>> = (0..shards).map(|_| None).collect();
        let mut of = |shard: usize, add: &mut dyn FnMut(&mut Self)| {
            add(wanted[shard].get_or_insert_default());
        };
        for (index, key) in group.keys.iter().enumerate() {
            of(key.shard, &mut |wanted| wanted.keys.push(index));
        }
        for batch in &group.batches {
            for (update, place) in batch.updates.iter().zip(&batch.places) {
                let Some(event) = update.event else { continue };
                of(place.home, &mut |wanted| wanted.ids.push(event.id.0));
                if place.home != place.shard {
                    of(place.shard, &mut |wanted| wanted.claims.push(event.id.0));
                }
            }
            if let Some(numbered) = &batch.numbered {
                of(numbered.home, &mut |wanted| wanted.producers.push(numbered.producer.clone()));
                for shard in batch.counts.keys() {
                    of(*shard, &mut |wanted| wanted.marks.push(numbered.producer.clone()));
                }
            }
        }
        wanted
    }

    fn pieces(&self) -> usize {
        let lists = [self.keys.len(), self.ids.len(), self.claims.len(), self.producers.len()];
        let longest = lists.into_iter().max().unwrap_or(0).max(self.marks.len());
        longest.div_ceil(STEP).max(1)
    }
}

/// Returns the positions of the n-th piece of a list.
fn piece(length: usize, n: usize) -> Range<usize> {
    (n * STEP).min(length)..((n + 1) * STEP).min(length)
}

impl Inner {
    /// Reads what a group needs to know, from all its shards at the same time.
    pub(super) async fn read_group(&self, group: &Group) -> Vec<Option<StoreResult<ShardRead>>> {
        let wanted = Wanted::of_group(group, self.shards.count());
        let reads = wanted.iter().enumerate().map(|(shard, wanted)| async move {
            match wanted {
                Some(wanted) => Some(self.read_shard(group, shard, wanted).await),
                None => None,
            }
        });
        join_all(reads).await
    }

    /// Reads what is wanted of a shard.
    ///
    /// # Errors
    /// When the shard can't be read, or what it holds can't.
    pub(super) async fn read_shard(
        &self,
        group: &Group,
        shard: usize,
        wanted: &Wanted,
    ) -> StoreResult<ShardRead> {
        let mut read = ShardRead::default();
        for n in 0..wanted.pieces() {
            self.read_piece(group, shard, wanted, n, &mut read).await?;
        }
        Ok(read)
    }

    async fn read_piece(
        &self,
        group: &Group,
        shard: usize,
        wanted: &Wanted,
        n: usize,
        read: &mut ShardRead,
    ) -> StoreResult<()> {
        let keys = &wanted.keys[piece(wanted.keys.len(), n)];
        let ids = &wanted.ids[piece(wanted.ids.len(), n)];
        let claims = &wanted.claims[piece(wanted.claims.len(), n)];
        let producers = &wanted.producers[piece(wanted.producers.len(), n)];
        let marks = &wanted.marks[piece(wanted.marks.len(), n)];
        let arguments = |command: &mut Cmd| {
            command.arg(values_at_once(&group.pipeline)).arg(BYTES).arg(keys.len());
            command.arg(ids.len()).arg(claims.len()).arg(producers.len()).arg(marks.len());
            for key in keys {
                command.arg(&group.keys[*key].bytes);
            }
            for id in ids.iter().chain(claims) {
                command.arg(id);
            }
            command.arg(producers).arg(marks);
        };
        let traffic = traffic_of(keys.len() + ids.len() + claims.len());
        let reply = self.shards.run(shard, traffic, &READ, arguments).await?;
        let mut reply = ReplyReader::new(reply)?;
        read.now_ms = reply.number()?;
        read.values = reply.number()?;
        read.event_ids = reply.number()?;
        read.producers = reply.number()?;
        let done = reply.number::<usize>()?;
        let (first, rest) = keys.split_at_checked(done).ok_or_else(|| malformed(&done))?;
        for key in first {
            if let Some(row) = Row::read(&group.pipeline, &reply.bytes()?)? {
                read.rows.insert(*key, row);
            }
        }
        for (list, found) in [(ids, &mut read.ids), (claims, &mut read.claims)] {
            for id in list {
                if let Some(bound) = Bound::read(&reply.bytes()?)? {
                    found.insert(*id, bound);
                }
            }
        }
        for producer in producers {
            if let Some(number) = number_of(&reply.bytes()?)? {
                read.numbers.insert(producer.clone(), number);
            }
        }
        for producer in marks {
            if let Some(mark) = Mark::read(&reply.bytes()?)? {
                read.marks.insert(producer.clone(), mark);
            }
        }
        // The values that were too large to be read with the others.
        let names: Vec<&[u8]> = rest.iter().map(|key| &*group.keys[*key].bytes).collect();
        let rows = self.read_values(&group.pipeline, shard, &names).await?;
        let rows = rest.iter().zip(rows).filter_map(|(key, row)| Some((*key, row?)));
        read.rows.extend(rows);
        Ok(())
    }

    /// Reads values of one shard by their keys, in their order.
    ///
    /// # Errors
    /// When the shard can't be read, or a value can't.
    pub(super) async fn read_values(
        &self,
        pipeline: &Pipeline,
        shard: usize,
        keys: &[&[u8]],
    ) -> StoreResult<Vec<Option<Row>>> {
        let mut rows = Vec::with_capacity(keys.len());
        while rows.len() < keys.len() {
            let left = &keys[rows.len()..];
            let piece = &left[..left.len().min(STEP)];
            let arguments = |command: &mut Cmd| {
                command.arg(values_at_once(pipeline)).arg(BYTES).arg(piece);
            };
            let reply = self.shards.run(shard, traffic_of(piece.len()), &GET, arguments).await?;
            let mut reply = ReplyReader::new(reply)?;
            let done = reply.number::<usize>()?;
            if done == 0 || done > piece.len() {
                return Err(malformed(&done));
            }
            for _ in 0..done {
                rows.push(Row::read(pipeline, &reply.bytes()?)?);
            }
        }
        Ok(rows)
    }
}

/// Returns the connection for a transfer of so many entries.
pub(super) fn traffic_of(entries: usize) -> Traffic {
    if entries <= FEW { Traffic::Small } else { Traffic::Bulk }
}
