//! 64-bit numbers as 16 hexadecimal digits: the text of fences, fill tokens and content hashes.
//!
//! Invariant: a number has exactly one text that is read back, up to the case of its digits.

use std::fmt;

/// The number of digits.
const DIGITS: usize = 16;

/// Writes all digits of a number in lower case, as `{:016x}` does, but without going through the
/// formatting machinery for each: tokens are printed for every cached value.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    const ALPHABET: &[u8; 16] = b"0123456789abcdef";
    let digits = number
        .to_be_bytes()
        .map(|byte| [ALPHABET[usize::from(byte >> 4)], ALPHABET[usize::from(byte & 15)]]);
    f.write_str(std::str::from_utf8(digits.as_flattened()).map_err(|_| fmt::Error)?)
}

/// Reads what [`write_hex`] writes; `None` for anything else, such as a sign or fewer digits.
pub(super) fn parse_hex(text: &str) -> Option<u64> {
    let plain = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}
