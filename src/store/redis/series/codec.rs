//! How a series is stored in Redis, and how points are sent there: compact bytes that scripts can take
//! apart.
//!
//! A record is, in network order: 6 bytes of milliseconds since 1970, 3 of nanoseconds within them, 6
//! that only the scripts read, 8 of the value's bits, the role (a byte of length), metadata (4 bytes of length), the
//! name and the labels (4 bytes of length each, then both texts). The highest bit of the nanoseconds says whether there
//! is a role, which only scripts read. A record with the least time is a deletion.
//! Invariant: what is written reads back to the bit; anything else is an error, never a guess.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::series::{Metadata, MetricType, Point, Sample, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::{Change, ErrorKind, StoreError, StoreResult};

/// The time that says "on arrival" in a point, and "deleted" in a record.
const NO_MILLIS: i64 = -(1 << 47);

/// In the first byte of the nanoseconds: the record has a role.
const HAS_ROLE: u8 = 0x80;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// The types by the byte that stands for them, from 0.
const TYPES: [MetricType; 8] = [
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::Summary,
    MetricType::GaugeHistogram,
    MetricType::Info,
    MetricType::StateSet,
    MetricType::Unknown,
];

/// Appends a length in 4 bytes. No text of a request is longer than these can say.
pub(super) fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_millis(millis: i64, out: &mut Vec<u8>) {
    out.extend(&millis.to_be_bytes()[2..]);
}

/// Appends a series' key.
pub(super) fn put_key(name: &str, labels: &str, out: &mut Vec<u8>) {
    put_length(name.len(), out);
    put_length(labels.len(), out);
    out.extend(name.as_bytes());
    out.extend(labels.as_bytes());
}

/// Appends metadata, with its length before it.
pub(super) fn put_metadata(metadata: &Metadata, out: &mut Vec<u8>) {
    let Metadata { metric_type, help, unit } = metadata;
    put_length(1 + 4 + help.len() + unit.len(), out);
    let index = TYPES.iter().position(|known| known == metric_type);
    out.push(index.and_then(|index| u8::try_from(index).ok()).unwrap_or(u8::MAX));
    put_length(help.len(), out);
    out.extend(help.as_bytes());
    out.extend(unit.as_bytes());
}

/// Appends a point as the script that applies it reads it; `metadata` counts from 1.
pub(super) fn put_point(
    name: &str,
    labels: &str,
    value: f64,
    updated_at: Option<Timestamp>,
    metadata: u16,
    out: &mut Vec<u8>,
) {
    out.extend(metadata.to_be_bytes());
    let nanos = updated_at.map(Timestamp::as_nanos);
    put_millis(nanos.map_or(NO_MILLIS, |nanos| nanos.div_euclid(NANOS_PER_MILLI)), out);
    let part = nanos.map_or(0, |nanos| nanos.rem_euclid(NANOS_PER_MILLI));
    out.extend(&part.to_be_bytes()[5..]);
    out.extend(value.to_bits().to_be_bytes());
    put_length(8 + name.len() + labels.len(), out);
    put_key(name, labels, out);
}

/// Appends a time as the script that checks a part reads it: rounded up.
pub(super) fn put_time(updated_at: Option<Timestamp>, out: &mut Vec<u8>) {
    let nanos = updated_at.map(Timestamp::as_nanos);
    let up = |nanos: i64| -(-i128::from(nanos)).div_euclid(i128::from(NANOS_PER_MILLI));
    put_millis(nanos.map_or(NO_MILLIS, |n| i64::try_from(up(n)).unwrap_or(i64::MAX)), out);
}

/// One record, its texts not copied yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a str,
    /// `None` where the series was deleted.
    pub(super) state: Option<State<'a>>,
}

/// What a live series holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State<'a> {
    value_bits: u64,
    updated_at: Timestamp,
    metadata: &'a [u8],
}

impl State<'_> {
    /// Returns the sample.
    pub(super) fn sample(&self) -> Sample {
        Sample { value: f64::from_bits(self.value_bits), updated_at: self.updated_at }
    }
}

/// Iterates over concatenated records.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = StoreResult<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut rest = self.0;
        let record = take_record(&mut rest);
        self.0 = if record.is_some() { rest } else { &[] };
        Some(record.ok_or_else(damaged))
    }
}

fn damaged() -> StoreError {
    StoreError::new(ErrorKind::Corrupt, "a record of a series that can't be read")
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn take_text<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a str> {
    std::str::from_utf8(take(rest, length)?).ok()
}

/// Reads a number of fewer than 8 bytes, with its sign.
fn signed(bytes: &[u8]) -> i64 {
    let start = if bytes.first().is_some_and(|first| *first >= 0x80) { -1 } else { 0 };
    bytes.iter().fold(start, |number, byte| (number << 8) | i64::from(*byte))
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let millis = signed(take(rest, 6)?);
    let part = take(rest, 3)?;
    let has_role = part[0] & HAS_ROLE != 0;
    let part = i64::from(u32::from_be_bytes([0, part[0] & !HAS_ROLE, part[1], part[2]]));
    take(rest, 6)?;
    let value_bits = u64::from_be_bytes(take(rest, 8)?.try_into().ok()?);
    if has_role {
        let role_bytes = take(rest, 1)?[0];
        take(rest, usize::from(role_bytes))?;
    }
    let metadata_bytes = take_length(rest)?;
    let metadata = take(rest, metadata_bytes)?;
    let (name_bytes, labels_bytes) = (take_length(rest)?, take_length(rest)?);
    let name = take_text(rest, name_bytes)?;
    let labels = take_text(rest, labels_bytes)?;
    if millis == NO_MILLIS {
        return Some(Record { name, labels, state: None });
    }
    let nanos = i128::from(millis) * i128::from(NANOS_PER_MILLI) + i128::from(part);
    let updated_at = Timestamp::from_nanos(i64::try_from(nanos).ok()?);
    Some(Record { name, labels, state: Some(State { value_bits, updated_at, metadata }) })
}

fn read_metadata(bytes: &[u8]) -> Option<Metadata> {
    let mut rest = bytes;
    let metric_type = *TYPES.get(usize::from(take(&mut rest, 1)?[0]))?;
    let help_bytes = take_length(&mut rest)?;
    let help = take_text(&mut rest, help_bytes)?.into();
    let unit = std::str::from_utf8(rest).ok()?.into();
    Some(Metadata { metric_type, help, unit })
}

/// Turns records into what readers get, and keeps each name and each metadata once, however many series
/// have it.
#[derive(Debug, Default)]
pub(super) struct Interner {
    names: HashMap<Box<str>, Arc<str>>,
    metadata: HashMap<Box<[u8]>, Arc<Metadata>>,
}

impl Interner {
    /// Returns the name.
    pub(super) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.into(), Arc::clone(&shared));
        shared
    }

    /// Returns the metadata of a live series.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn metadata(&mut self, state: &State<'_>) -> StoreResult<Option<Arc<Metadata>>> {
        if state.metadata.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.metadata.get(state.metadata) {
            return Ok(Some(Arc::clone(known)));
        }
        let metadata = Arc::new(read_metadata(state.metadata).ok_or_else(damaged)?);
        self.metadata.insert(state.metadata.into(), Arc::clone(&metadata));
        Ok(Some(metadata))
    }

    /// Returns a record as a change.
    ///
    /// # Errors
    /// When its metadata can't be read.
    pub(super) fn change(&mut self, record: &Record<'_>) -> StoreResult<Change> {
        let key = SeriesKey { name: self.name(record.name), labels: record.labels.into() };
        Ok(match &record.state {
            None => Change::Deleted(key),
            Some(state) => Change::Upserted(Point {
                key,
                sample: state.sample(),
                metadata: self.metadata(state)?,
            }),
        })
    }

    /// Forgets names and metadata that no series has any more.
    pub(super) fn sweep(&mut self) {
        self.names.retain(|_, name| Arc::strong_count(name) > 1);
        self.metadata.retain(|_, metadata| Arc::strong_count(metadata) > 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// Makes of a point what the scripts make of it.
    fn stored(point: &[u8], role: &str, metadata: &[u8]) -> Vec<u8> {
        let mut record = point[2..11].to_vec();
        record.extend([7; 6]);
        record.extend(&point[11..19]);
        if !role.is_empty() {
            record[6] |= HAS_ROLE;
            record.extend(u8::try_from(role.len()));
            record.extend(role.as_bytes());
        }
        record.extend(metadata);
        record.extend(&point[23..]);
        record
    }

    fn metadata() -> impl Strategy<Value = Option<Metadata>> {
        let some = (0..TYPES.len(), "\\PC{0,9}", "\\PC{0,3}").prop_map(|(place, help, unit)| {
            Metadata { metric_type: TYPES[place], help: help.into(), unit: unit.into() }
        });
        proptest::option::of(some)
    }

    proptest! {
        #[test]
        fn records_read_back_to_the_bit(
            points in proptest::collection::vec(
                ("\\PC{1,9}", "\\PC{0,30}", any::<u64>(), any::<i64>(), metadata()), 0..5),
            role in "[a-z]{0,9}",
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (name, labels, bits, nanos, metadata) in &points {
                let at = Timestamp::from_nanos(*nanos);
                let mut point = Vec::new();
                put_point(name, labels, f64::from_bits(*bits), Some(at), 0, &mut point);
                let mut text = Vec::new();
                match metadata {
                    Some(metadata) => put_metadata(metadata, &mut text),
                    None => put_length(0, &mut text),
                }
                bytes.extend(stored(&point, &role, &text));
                expected.push(Change::Upserted(Point {
                    key: SeriesKey { name: name.as_str().into(), labels: labels.as_str().into() },
                    sample: Sample { value: f64::from_bits(*bits), updated_at: at },
                    metadata: metadata.clone().map(Arc::new),
                }));
            }
            let mut interner = Interner::default();
            let read: StoreResult<Vec<Change>> =
                Records(&bytes).map(|record| interner.change(&record?)).collect();
            prop_assert_eq!(read.expect("readable"), expected);
        }

        #[test]
        fn damaged_records_are_errors_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            let mut interner = Interner::default();
            for record in Records(&bytes).flatten() {
                let _ = interner.change(&record);
            }
        }

        #[test]
        fn a_record_cut_short_is_an_error(
            (name, labels, role) in ("\\PC{1,9}", "\\PC{0,30}", "[a-z]{0,9}"), cut in any::<proptest::sample::Index>(),
        ) {
            let mut point = Vec::new();
            put_point(&name, &labels, 1.0, None, 0, &mut point);
            let record = stored(&point, &role, &[0; 4]);
            let whole: Vec<_> = Records(&record).collect();
            let lost = matches!(&whole[..], [Ok(Record { state: None, .. })]);
            prop_assert!(lost);
            let cut = 1 + cut.index(record.len() - 1);
            let mut cut_records = Records(&record[..cut]);
            prop_assert!(cut_records.next().is_some_and(|read| read.is_err()));
            prop_assert!(cut_records.next().is_none());
        }

        #[test]
        fn times_are_rounded_up(nanos in any::<i64>()) {
            let mut bytes = Vec::new();
            put_time(Some(Timestamp::from_nanos(nanos)), &mut bytes);
            let millis = i128::from(signed(&bytes)) * i128::from(NANOS_PER_MILLI);
            let nanos = i128::from(nanos);
            prop_assert!(millis >= nanos && millis - nanos < i128::from(NANOS_PER_MILLI));
        }
    }
}
