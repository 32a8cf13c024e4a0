//! The binary format of frequent-strings sketches that the DataSketches libraries share.
//!
//! Invariant: what is read may be anything; its parameters and lengths are checked before anything is allocated.

use std::collections::BTreeMap;

use super::super::codec::{self, Reader};
use super::super::{DecodeError, sketch};
use super::counters::Counters;
use crate::model::Invalid;

const PREAMBLE_EMPTY: u8 = 1;
const PREAMBLE: u8 = 4;
const SERIAL_VERSION: u8 = 1;
const FAMILY: u8 = 10;
/// Two bits, since some libraries test the one and some the other.
const FLAGS_EMPTY: u8 = 5;
/// The logarithm of the least size of a table.
const LG_MIN_MAP_SIZE: u8 = 3;

/// Writes a sketch with the texts in their order.
pub(super) fn write(lg_map_size: u8, counters: &Counters) -> Vec<u8> {
    let mut lg_size = LG_MIN_MAP_SIZE;
    while counters.len() > 3 << lg_size >> 2 {
        lg_size += 1;
    }
    let is_empty = counters.total() == 0;
    let (preamble, flags) = if is_empty { (PREAMBLE_EMPTY, FLAGS_EMPTY) } else { (PREAMBLE, 0) };
    let mut out = vec![preamble, SERIAL_VERSION, FAMILY, lg_map_size, lg_size, flags, 0, 0];
    if is_empty {
        return out;
    }
    codec::write_length(counters.len(), &mut out);
    out.extend([0; 4]);
    out.extend(counters.total().to_le_bytes());
    out.extend(counters.max_error().to_le_bytes());
    out.extend(counters.iter().flat_map(|(_, count)| count.to_le_bytes()));
    for (item, _) in counters.iter() {
        codec::write_bytes(item.as_bytes(), &mut out);
    }
    out
}

/// Reads a sketch.
///
/// # Errors
/// When the bytes are not a frequent-strings sketch, or one with another size of its table.
pub(super) fn read(lg_map_size: u8, bytes: &[u8]) -> Result<Counters, Invalid> {
    let Some(([preamble, version, family, its_size, lg_size, flags, ..], body)) =
        bytes.split_first_chunk::<8>()
    else {
        return Err(Invalid::new("not a frequent-strings sketch of DataSketches: it is cut off"));
    };
    if (*version, *family) != (SERIAL_VERSION, FAMILY) {
        return Err(Invalid::new(
            "not a frequent-strings sketch of DataSketches, serial version 1",
        ));
    }
    if *its_size != lg_map_size {
        return Err(Invalid::new(format!(
            "a frequent-strings sketch with a table of 2^{its_size}, not 2^{lg_map_size}"
        )));
    }
    let input = Reader::new(body);
    let is_empty = flags & FLAGS_EMPTY != 0;
    let read = match (*preamble, is_empty) {
        (PREAMBLE_EMPTY, true) => input.finish().map(|()| Counters::default()),
        (PREAMBLE, false) if *lg_size <= lg_map_size => read_counters(input, 3 << lg_size >> 2),
        _ => Err(DecodeError::Damaged("its preamble is none that there is")),
    };
    read.map_err(|error| sketch::not_readable("a frequent-strings sketch", &error))
}

fn read_counters(mut input: Reader<'_>, capacity: usize) -> Result<Counters, DecodeError> {
    let (length, _) = (input.u32()? as usize, input.u32()?);
    let (total, max_error) = (input.u64()?, input.u64()?);
    if length > capacity {
        return Err(DecodeError::Damaged("it has more counters than its table can hold"));
    }
    let mut counts = Reader::new(input.take(length * size_of::<u64>())?);
    let mut counters = BTreeMap::new();
    for _ in 0..length {
        counters.insert(input.text()?.into(), counts.u64()?);
    }
    input.finish()?;
    if counters.len() < length {
        return Err(DecodeError::Damaged("a text has two counters"));
    }
    Counters::new(counters, max_error, total)
}
