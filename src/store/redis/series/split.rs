//! Splits a batch into parts, one for each shard, and parts into chunks, so that no script keeps other
//! commands waiting for long.
//!
//! Invariant: points of one series stay in their order, since they belong to one shard, whose
//! chunks are applied one after the other.

use std::collections::{HashMap, HashSet};

use super::codec;
use crate::model::batch::{BatchPoint, PointBatch};
use crate::model::series::SeriesId;
use crate::model::time::Timestamp;
use crate::store::series_bytes;

/// The most points that one script applies: it takes some milliseconds.
pub(super) const CHUNK_POINTS: usize = 1_000;

/// A chunk of so many bytes takes no more points: it must arrive in time on a slow connection too.
const CHUNK_BYTES: usize = 1 << 20;

/// What one script applies.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// How many points there are.
    pub(super) points: usize,
    /// Whether a series occurs more than once in the part.
    pub(super) repeats: bool,
    /// The metadata that the points refer to.
    pub(super) metadata: Vec<u8>,
    /// The ids, 16 bytes each.
    pub(super) ids: Vec<u8>,
    /// The positions of the points in the batch.
    pub(super) positions: Vec<usize>,
    /// The points.
    pub(super) bytes: Vec<u8>,
    known_metadata: HashMap<usize, u16>,
}

/// The part of a batch that belongs to one shard.
#[derive(Debug)]
pub(super) struct Part {
    /// The shard.
    pub(super) shard: usize,
    /// In their order; at least one.
    pub(super) chunks: Vec<Chunk>,
    /// Each id once, with the time of its newest point and its bytes, where Redis has to count which are new.
    pub(super) times: Vec<u8>,
    /// The number of distinct series.
    pub(super) series: usize,
    /// By how many bytes the series grow at most.
    pub(super) bytes: usize,
}

/// Returns the shard of a series.
pub(super) fn shard_of(id: SeriesId, shards: usize) -> usize {
    let mut tail = [0; 8];
    tail.copy_from_slice(&id.to_bytes()[8..]);
    usize::try_from(u64::from_be_bytes(tail) % shards.max(1) as u64).unwrap_or(0)
}

/// Splits a batch into the parts of its shards.
pub(super) fn split(batch: &PointBatch, shards: usize) -> Vec<Part> {
    let ids: Vec<SeriesId> =
        batch.iter().map(|point| SeriesId::of(point.name, point.labels)).collect();
    let mut parts: Vec<Part> = (0..shards).map(Part::new).collect();
    let mut seen = HashSet::with_capacity(batch.len());
    for (position, (point, id)) in batch.iter().zip(&ids).enumerate() {
        let part = &mut parts[shard_of(*id, shards)];
        let first = seen.insert(*id);
        let chunk = part.chunk();
        chunk.repeats |= !first;
        chunk.points += 1;
        chunk.positions.push(position);
        chunk.ids.extend(id.to_bytes());
        let metadata = point.metadata.map_or(0, |index| chunk.metadata_of(batch, index));
        let bytes = &mut chunk.bytes;
        codec::put_point(point.name, point.labels, point.value, point.updated_at, metadata, bytes);
        part.series += usize::from(first);
        let key = if first { series_bytes(point.name, point.labels, None) } else { 0 };
        part.bytes += key + metadata_bytes(batch, &point);
    }
    parts.retain(|part| !part.chunks.is_empty());
    parts
}

/// How many bytes [`add_times`] adds for each series: its id, a time, two lengths.
pub(super) const COUNTED_BYTES: usize = 30;

/// Adds the times of the newest points to the parts of `shards_to_count`, so that Redis can count which of
/// their series are new.
pub(super) fn add_times(
    batch: &PointBatch,
    shards: usize,
    parts: &mut [Part],
    shards_to_count: &[usize],
) {
    let mut positions = vec![None; shards];
    for (position, part) in parts.iter_mut().enumerate() {
        part.times.clear();
        if shards_to_count.contains(&part.shard) {
            positions[part.shard] = Some(position);
        }
    }
    // A point without a time gets that of its arrival, which is the newest of all.
    let mut newest: HashMap<SeriesId, Counted> = HashMap::new();
    for point in batch.iter() {
        let id = SeriesId::of(point.name, point.labels);
        if positions[shard_of(id, shards)].is_none() {
            continue;
        }
        let (at, texts) = (point.updated_at, metadata_bytes(batch, &point));
        let key_bytes = series_bytes(point.name, point.labels, None);
        newest
            .entry(id)
            .and_modify(|known| {
                known.at = known.at.zip(at).map(|(one, two)| one.max(two));
                known.metadata_bytes = known.metadata_bytes.max(texts);
            })
            .or_insert(Counted { at, key_bytes, metadata_bytes: texts });
    }
    for (id, counted) in newest {
        if let Some(position) = positions[shard_of(id, shards)] {
            let times = &mut parts[position].times;
            times.extend(id.to_bytes());
            codec::put_time(counted.at, times);
            codec::put_length(counted.key_bytes, times);
            codec::put_length(counted.metadata_bytes, times);
        }
    }
}

/// What Redis needs to know of a series of a batch to tell by how much it grows.
struct Counted {
    at: Option<Timestamp>,
    key_bytes: usize,
    metadata_bytes: usize,
}

fn metadata_bytes(batch: &PointBatch, point: &BatchPoint<'_>) -> usize {
    point.metadata.map_or(0, |index| batch.metadata()[index].text_bytes())
}

impl Part {
    fn new(shard: usize) -> Self {
        Self { shard, chunks: Vec::new(), times: Vec::new(), series: 0, bytes: 0 }
    }

    /// Returns the chunk that takes the next point.
    fn chunk(&mut self) -> &mut Chunk {
        let full = self.chunks.last().is_none_or(|chunk| {
            chunk.points >= CHUNK_POINTS || chunk.bytes.len() + chunk.metadata.len() >= CHUNK_BYTES
        });
        if full {
            self.chunks.push(Chunk::default());
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }
}

impl Chunk {
    /// Returns the number of a metadata of the batch in this chunk, from 1.
    fn metadata_of(&mut self, batch: &PointBatch, index: usize) -> u16 {
        let next = u16::try_from(self.known_metadata.len() + 1).unwrap_or(0);
        let out = &mut self.metadata;
        *self.known_metadata.entry(index).or_insert_with(|| {
            codec::put_metadata(&batch.metadata()[index], out);
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_in_the_part_of_its_shard_and_repeats_are_marked() {
        let mut batch = PointBatch::default();
        for round in 0..3_u32 {
            for n in 0..4 * CHUNK_POINTS {
                if round == 0 || n % 100 == 0 {
                    batch.push("m", &format!("n=\"{n}\""), f64::from(round), None, None);
                }
            }
        }
        let mut parts = split(&batch, 3);
        add_times(&batch, 3, &mut parts, &[0, 2]);
        assert_eq!(parts.iter().map(|part| part.series).sum::<usize>(), 4 * CHUNK_POINTS);
        let mut points = 0;
        for part in &parts {
            let counted = if part.shard == 1 { 0 } else { part.series };
            assert_eq!(part.times.len(), COUNTED_BYTES * counted);
            for chunk in &part.chunks {
                assert!(chunk.points <= CHUNK_POINTS);
                assert_eq!(chunk.ids.len(), 16 * chunk.points);
                points += chunk.points;
            }
            assert!(part.chunks.iter().any(|chunk| chunk.repeats));
            assert!(!part.chunks[0].repeats);
        }
        assert_eq!(points, batch.len());
        assert!(split(&PointBatch::default(), 3).is_empty());
    }

    #[test]
    fn metadata_is_sent_once_a_chunk() {
        use crate::model::series::{Metadata, MetricType};
        let mut batch = PointBatch::default();
        let text = |unit: &str| Metadata {
            metric_type: MetricType::Gauge,
            help: "help".into(),
            unit: unit.into(),
        };
        let (one, two) = (batch.add_metadata(text("a")), batch.add_metadata(text("b")));
        for n in 0..10 {
            let metadata = [Some(one), None, Some(two)][n % 3];
            batch.push("m", &format!("n=\"{n}\""), 1.0, None, metadata);
        }
        let parts = split(&batch, 1);
        let mut expected = Vec::new();
        batch.metadata().iter().for_each(|text| codec::put_metadata(text, &mut expected));
        assert_eq!(parts[0].chunks[0].metadata, expected);
    }
}
