//! The binary format of HLL sketches that all DataSketches libraries share (Java, C++, Python, Rust, Go).
//!
//! Sketches with 4, 6 or 8 bits for each register are read, and those with 8 bits written. Not read are the estimators
//! that a sketch which was never merged brings along. Invariant: what is read may be anything; its parameters and lengths
//! are checked before anything is allocated.

use super::super::codec::Reader;
use super::super::{DecodeError, sketch};
use super::registers::{MAX_VALUE, Registers, is_coupon};
use crate::model::Invalid;

const LIST_PREAMBLE: u8 = 2;
const SET_PREAMBLE: u8 = 3;
const HLL_PREAMBLE: u8 = 10;
const SERIAL_VERSION: u8 = 1;
const FAMILY: u8 = 7;

const FLAG_EMPTY: u8 = 4;
const FLAG_COMPACT: u8 = 8;
const FLAG_OUT_OF_ORDER: u8 = 16;

const MODE_LIST: u8 = 0;
const MODE_SET: u8 = 1;
const MODE_HLL: u8 = 2;
const TARGET_HLL_4: u8 = 0;
const TARGET_HLL_6: u8 = 1;
const TARGET_HLL_8: u8 = 2;

/// The logarithm of the room of a list, and of the least room of a set.
const LG_LIST: u8 = 3;
const LG_SET: u8 = 5;

/// Of a sketch with 4 bits: stands for a value in the list of exceptions.
const EXCEPTION: u8 = 15;

/// Writes a sketch as one that was merged: estimates then come from the registers alone.
pub(super) fn write(lg_k: u8, registers: &Registers) -> Vec<u8> {
    match registers {
        Registers::Sparse(coupons) => write_coupons(lg_k, coupons),
        Registers::Dense(values) => write_registers(lg_k, values),
    }
}

fn write_coupons(lg_k: u8, coupons: &[u32]) -> Vec<u8> {
    let count = u32::try_from(coupons.len()).unwrap_or(u32::MAX).to_le_bytes();
    let is_list = coupons.len() < 1 << LG_LIST;
    let mut out = Vec::with_capacity(12 + 4 * coupons.len());
    if is_list {
        let flags = if coupons.is_empty() { FLAG_COMPACT | FLAG_EMPTY } else { FLAG_COMPACT };
        let mode = MODE_LIST | TARGET_HLL_8 << 2;
        out.extend([LIST_PREAMBLE, SERIAL_VERSION, FAMILY, lg_k, LG_LIST, flags, count[0], mode]);
    } else {
        let mut lg_room = LG_SET;
        while 4 * coupons.len() > 3 << lg_room {
            lg_room += 1;
        }
        let mode = MODE_SET | TARGET_HLL_8 << 2;
        out.extend([SET_PREAMBLE, SERIAL_VERSION, FAMILY, lg_k, lg_room, FLAG_COMPACT, 0, mode]);
        out.extend(count);
    }
    out.extend(coupons.iter().flat_map(|coupon| coupon.to_le_bytes()));
    out
}

fn write_registers(lg_k: u8, values: &[u8]) -> Vec<u8> {
    let flags = FLAG_COMPACT | FLAG_OUT_OF_ORDER;
    let mode = MODE_HLL | TARGET_HLL_8 << 2;
    // The sums of the inverse powers below and from 2^-32 on: each is exact, since no more than 2^21 are added.
    let inverse = |value: u8| f64::from_bits((1023 - u64::from(value)) << 52);
    // A sum of no floats is -0 in Rust.
    let sum_of = |is_low: bool| -> f64 {
        let values = values.iter().filter(|value| (**value < 32) == is_low);
        values.map(|value| inverse(*value)).sum::<f64>() + 0.0
    };
    let zeros = values.iter().filter(|value| **value == 0).count();
    let mut out = Vec::with_capacity(40 + values.len());
    out.extend([HLL_PREAMBLE, SERIAL_VERSION, FAMILY, lg_k, 0, flags, 0, mode]);
    out.extend(0.0_f64.to_le_bytes());
    out.extend(sum_of(true).to_le_bytes());
    out.extend(sum_of(false).to_le_bytes());
    out.extend(u32::try_from(zeros).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend_from_slice(values);
    out
}

/// Reads a sketch.
///
/// # Errors
/// When the bytes are not an HLL sketch, or one with another lg_k.
pub(super) fn read(lg_k: u8, bytes: &[u8]) -> Result<Registers, Invalid> {
    let Some(([preamble, version, family, its_lg_k, _, flags, state, mode], body)) =
        bytes.split_first_chunk::<8>()
    else {
        return Err(Invalid::new("not an HLL sketch of DataSketches: it is cut off"));
    };
    if (*version, *family) != (SERIAL_VERSION, FAMILY) {
        return Err(Invalid::new("not an HLL sketch of DataSketches, serial version 1"));
    }
    if *its_lg_k != lg_k {
        return Err(Invalid::new(format!("an HLL sketch with lg_k = {its_lg_k}, not {lg_k}")));
    }
    let input = Reader::new(body);
    let is_compact = flags & FLAG_COMPACT != 0;
    let read = match (mode & 3, *preamble, mode >> 2 & 3) {
        (MODE_LIST, LIST_PREAMBLE, _) => read_coupons(lg_k, input, u32::from(*state), is_compact),
        (MODE_SET, SET_PREAMBLE, _) => read_set(lg_k, input, is_compact),
        (MODE_HLL, HLL_PREAMBLE, TARGET_HLL_4) => read_4_bits(lg_k, input, *state, is_compact),
        (MODE_HLL, HLL_PREAMBLE, TARGET_HLL_6) => read_6_bits(lg_k, input),
        (MODE_HLL, HLL_PREAMBLE, TARGET_HLL_8) => read_8_bits(lg_k, input),
        _ => Err(DecodeError::Damaged("its mode is none that there is")),
    };
    read.map_err(|error| sketch::not_readable("an HLL sketch", &error))
}

fn read_set(lg_k: u8, mut input: Reader<'_>, is_compact: bool) -> Result<Registers, DecodeError> {
    let count = input.u32()?;
    read_coupons(lg_k, input, count, is_compact)
}

fn read_coupons(
    lg_k: u8,
    input: Reader<'_>,
    count: u32,
    is_compact: bool,
) -> Result<Registers, DecodeError> {
    let coupons = rest(input, count, is_compact)?;
    if !coupons.iter().all(|coupon| is_coupon(*coupon)) {
        return Err(DecodeError::Damaged("its coupons are not valid"));
    }
    Ok(Registers::from_coupons(lg_k, coupons))
}

/// Reads as many coupons as there must be from the rest. If the form is not compact, there are also empty places, which
/// are 0.
fn rest(mut input: Reader<'_>, count: u32, is_compact: bool) -> Result<Vec<u32>, DecodeError> {
    let places = if is_compact { count as usize } else { input.len() / size_of::<u32>() };
    let numbers = input.numbers(places)?;
    input.finish()?;
    let coupons: Vec<_> = numbers.filter(|number| *number != 0).collect();
    if coupons.len() != count as usize {
        return Err(DecodeError::Damaged("it has more or fewer coupons than it says"));
    }
    Ok(coupons)
}

/// Skips what is computed from the registers, and returns the number of exceptions.
fn read_summary(input: &mut Reader<'_>) -> Result<u32, DecodeError> {
    input.take(3 * size_of::<f64>() + size_of::<u32>())?;
    input.u32()
}

fn read_8_bits(lg_k: u8, mut input: Reader<'_>) -> Result<Registers, DecodeError> {
    read_summary(&mut input)?;
    let values = input.take(1 << lg_k)?;
    input.finish()?;
    Registers::dense(values)
}

fn read_6_bits(lg_k: u8, mut input: Reader<'_>) -> Result<Registers, DecodeError> {
    read_summary(&mut input)?;
    let slots = 1_usize << lg_k;
    // One byte more, so that each value lies in two bytes.
    let packed = input.take(slots * 6 / 8 + 1)?;
    input.finish()?;
    let value = |slot: usize| {
        let (byte, shift) = (slot * 6 / 8, slot * 6 % 8);
        let [low, _] =
            (u16::from_le_bytes([packed[byte], packed[byte + 1]]) >> shift).to_le_bytes();
        low & MAX_VALUE
    };
    Ok(Registers::Dense((0..slots).map(value).collect()))
}

/// Reads a sketch that has the difference to the least value of all registers in 4 bits. Exceptions follow as coupons.
fn read_4_bits(
    lg_k: u8,
    mut input: Reader<'_>,
    least: u8,
    is_compact: bool,
) -> Result<Registers, DecodeError> {
    let count = read_summary(&mut input)?;
    let slots = 1_usize << lg_k;
    let packed = input.take(slots / 2)?;
    let exceptions = rest(input, count, is_compact)?;
    if least > MAX_VALUE - EXCEPTION + 1 {
        return Err(DecodeError::Damaged("its least value is too large"));
    }
    let packed = || packed.iter().flat_map(|byte| [byte & 0xF, byte >> 4]);
    let is_exception: Vec<_> = packed().map(|value| value == EXCEPTION).collect();
    let mut values: Box<[u8]> =
        packed().map(|value| if value == EXCEPTION { 0 } else { least + value }).collect();
    for coupon in &exceptions {
        let (slot, [value, ..]) = (*coupon as usize & (slots - 1), (coupon >> 26).to_le_bytes());
        if !is_exception[slot] || values[slot] != 0 || value == 0 {
            return Err(DecodeError::Damaged("its exceptions are not valid"));
        }
        values[slot] = value;
    }
    if is_exception.iter().filter(|is_exception| **is_exception).count() != exceptions.len() {
        return Err(DecodeError::Damaged("its exceptions are not complete"));
    }
    Ok(Registers::Dense(values))
}
