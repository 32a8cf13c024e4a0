//! The binary format of Bloom filters that the DataSketches libraries share.
//!
//! Invariant: what is read may be anything; its parameters and lengths are checked before anything is allocated.

use super::super::codec::Reader;
use super::super::{DecodeError, sketch};
use super::Bloom;
use super::bits::{self, Bits};
use crate::model::Invalid;

const PREAMBLE_EMPTY: u8 = 3;
const PREAMBLE: u8 = 4;
const SERIAL_VERSION: u8 = 1;
const FAMILY: u8 = 21;
const FLAG_EMPTY: u8 = 4;

/// What stands in place of the number of bits that are set if it is not known.
const NOT_COUNTED: u64 = u64::MAX;

/// Writes a filter.
pub(super) fn write(filter: &Bloom, state: &Bits) -> Vec<u8> {
    let count = state.count();
    let (preamble, flags) = if count == 0 { (PREAMBLE_EMPTY, FLAG_EMPTY) } else { (PREAMBLE, 0) };
    let mut out = vec![preamble, SERIAL_VERSION, FAMILY, flags];
    out.extend(filter.hashes.to_le_bytes());
    out.extend([0; 2]);
    out.extend(filter.seed.to_le_bytes());
    out.extend((filter.bits / 64).to_le_bytes());
    if count > 0 {
        out.extend((count as u64).to_le_bytes());
        out.extend(state.words(filter.bits).iter().flat_map(|word| word.to_le_bytes()));
    }
    out
}

/// Reads a filter.
///
/// # Errors
/// When the bytes are not a Bloom filter, or one with another size, number of hashes or seed.
pub(super) fn read(filter: &Bloom, bytes: &[u8]) -> Result<Bits, Invalid> {
    read_header(filter, &mut Reader::new(bytes))?
        .map_err(|error| sketch::not_readable("a Bloom filter", &error))
}

/// Returns an error of the parameters outside, one of the form inside.
fn read_header(
    filter: &Bloom,
    input: &mut Reader<'_>,
) -> Result<Result<Bits, DecodeError>, Invalid> {
    let cut = |_| Invalid::new("not a Bloom filter of DataSketches: it is cut off");
    let mut byte = || input.u8().map_err(cut);
    let (preamble, version, family, flags) = (byte()?, byte()?, byte()?, byte()?);
    if (version, family) != (SERIAL_VERSION, FAMILY) {
        return Err(Invalid::new("not a Bloom filter of DataSketches, serial version 1"));
    }
    let hashes = input.u32().map_err(cut)? & 0xFFFF;
    let seed = input.u64().map_err(cut)?;
    let bits = (input.u64().map_err(cut)? & 0xFFFF_FFFF) * 64;
    if (bits, hashes, seed) != (filter.bits, u32::from(filter.hashes), filter.seed) {
        return Err(Invalid::new(format!(
            "a Bloom filter of {bits} bits with {hashes} hashes and seed {seed}, not of {} bits with \
             {} hashes and seed {}",
            filter.bits, filter.hashes, filter.seed
        )));
    }
    let is_empty = flags & FLAG_EMPTY != 0;
    Ok(match (preamble, is_empty) {
        (PREAMBLE_EMPTY, true) if input.is_empty() => Ok(Bits::EMPTY),
        (PREAMBLE, false) => read_bits(filter.bits, input),
        _ => Err(DecodeError::Damaged("its preamble is none that there is")),
    })
}

fn read_bits(bits: u64, input: &mut Reader<'_>) -> Result<Bits, DecodeError> {
    let count = input.u64()?;
    let read = Bits::from_words(bits, bits::read_words(bits, input)?);
    if !input.is_empty() {
        return Err(DecodeError::Damaged("something follows it"));
    }
    if count != NOT_COUNTED && count != read.count() as u64 {
        return Err(DecodeError::Damaged("its number of bits is not that of its bits"));
    }
    Ok(read)
}
