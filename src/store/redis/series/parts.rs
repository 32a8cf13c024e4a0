//! A batch, cut into parts: what belongs to one shard, in pieces that keep no other caller of Redis
//! waiting for long.
//!
//! Invariant: points of one series stay in their order, since they are of one shard and its
//! pieces are applied one after the other.

use std::collections::{HashMap, HashSet};

use super::codec;
use crate::model::batch::PointBatch;
use crate::model::series::SeriesId;

/// The most points that one script applies.
pub(super) const PIECE_POINTS: usize = 5_000;

/// What one script applies.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// How many points there are.
    pub(super) points: usize,
    /// Some series stands more than once.
    pub(super) repeats: bool,
    /// The metadata that the points refer to.
    pub(super) metadata: Vec<u8>,
    /// The ids, 16 bytes each.
    pub(super) ids: Vec<u8>,
    /// The points.
    pub(super) bytes: Vec<u8>,
    known_metadata: HashMap<usize, u16>,
}

/// What one shard gets of a batch.
#[derive(Debug)]
pub(super) struct Part {
    /// The shard.
    pub(super) shard: usize,
    /// In their order; at least one.
    pub(super) pieces: Vec<Piece>,
    /// Each id once, with the age of its youngest point, where that is worth asking for.
    pub(super) ages: Vec<u8>,
    /// How many different series there are.
    pub(super) series: usize,
}

/// Returns the shard of a series.
pub(super) fn shard_of(id: SeriesId, shards: usize) -> usize {
    let mut tail = [0; 8];
    tail.copy_from_slice(&id.to_bytes()[8..]);
    usize::try_from(u64::from_be_bytes(tail) % shards.max(1) as u64).unwrap_or(0)
}

/// Cuts a batch into what each shard gets.
pub(super) fn cut(batch: &PointBatch, shards: usize) -> Vec<Part> {
    let ids: Vec<SeriesId> =
        batch.iter().map(|point| SeriesId::of(point.name, point.labels)).collect();
    let mut parts: Vec<Part> = (0..shards).map(Part::new).collect();
    let mut seen = HashSet::with_capacity(batch.len());
    for (point, id) in batch.iter().zip(&ids) {
        let part = &mut parts[shard_of(*id, shards)];
        let first = seen.insert(*id);
        let piece = part.piece();
        piece.repeats |= !first;
        piece.points += 1;
        piece.ids.extend(id.to_bytes());
        let metadata = point.metadata.map_or(0, |index| piece.metadata_of(batch, index));
        let bytes = &mut piece.bytes;
        codec::put_point(point.name, point.labels, point.value, point.updated_at, metadata, bytes);
        part.series += usize::from(first);
    }
    parts.retain(|part| !part.pieces.is_empty());
    parts
}

/// Notes for each part which of its series may be new, to be counted by Redis.
pub(super) fn age(batch: &PointBatch, shards: usize, parts: &mut [Part]) {
    let mut youngest: HashMap<SeriesId, Option<crate::model::time::Timestamp>> = HashMap::new();
    for point in batch.iter() {
        let at = point.updated_at;
        youngest
            .entry(SeriesId::of(point.name, point.labels))
            .and_modify(|known| *known = known.zip(at).map(|(one, two)| one.max(two)))
            .or_insert(at);
    }
    let mut places = vec![None; shards];
    for (place, part) in parts.iter_mut().enumerate() {
        part.ages.clear();
        places[part.shard] = Some(place);
    }
    for (id, at) in youngest {
        if let Some(place) = places[shard_of(id, shards)] {
            let ages = &mut parts[place].ages;
            ages.extend(id.to_bytes());
            codec::put_age(at, ages);
        }
    }
}

impl Part {
    fn new(shard: usize) -> Self {
        Self { shard, pieces: Vec::new(), ages: Vec::new(), series: 0 }
    }

    /// Returns the piece that takes the next point.
    fn piece(&mut self) -> &mut Piece {
        let full = self.pieces.last().is_none_or(|piece| piece.points >= PIECE_POINTS);
        if full {
            self.pieces.push(Piece::default());
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }
}

impl Piece {
    /// Returns the number of a metadata of the batch in this piece, from 1.
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
    fn every_point_is_in_the_part_of_its_shard_and_repeats_are_told() {
        let mut batch = PointBatch::default();
        for round in 0..3_u32 {
            for n in 0..4 * PIECE_POINTS {
                if round == 0 || n % 100 == 0 {
                    batch.push("m", &format!("n=\"{n}\""), f64::from(round), None, None);
                }
            }
        }
        let mut parts = cut(&batch, 3);
        age(&batch, 3, &mut parts);
        assert_eq!(parts.iter().map(|part| part.series).sum::<usize>(), 4 * PIECE_POINTS);
        let mut points = 0;
        for part in &parts {
            assert_eq!(part.ages.len(), 22 * part.series);
            for piece in &part.pieces {
                assert!(piece.points <= PIECE_POINTS);
                assert_eq!(piece.ids.len(), 16 * piece.points);
                points += piece.points;
            }
            assert!(part.pieces.iter().any(|piece| piece.repeats));
            assert!(!part.pieces[0].repeats);
        }
        assert_eq!(points, batch.len());
        assert!(cut(&PointBatch::default(), 3).is_empty());
    }

    #[test]
    fn metadata_travels_once_a_piece() {
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
        let parts = cut(&batch, 1);
        let mut expected = Vec::new();
        batch.metadata().iter().for_each(|text| codec::put_metadata(text, &mut expected));
        assert_eq!(parts[0].pieces[0].metadata, expected);
    }
}
