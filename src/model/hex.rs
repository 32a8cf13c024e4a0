//! Hexadecimal text: of fences, fill tokens, content hashes and pages. The only codec of it.
//!
//! Invariant: what is written reads back, and a number has exactly one text that is read, up to the case of its digits.

use std::fmt;

/// The number of digits of a 64-bit number.
const NUMBER_DIGITS: usize = 16;

const ALPHABET: &[u8; 16] = b"0123456789abcdef";

fn digits(byte: u8) -> [u8; 2] {
    [ALPHABET[usize::from(byte >> 4)], ALPHABET[usize::from(byte & 15)]]
}

/// Returns `bytes` as lower-case digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// Reads digits of either case; `None` for any other text.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    pairs.iter().map(byte).collect()
}

/// Writes all digits of a number in lower case, as `{:016x}` does, but without going through the
/// formatting machinery for each: tokens are printed for every cached value.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    let digits = number.to_be_bytes().map(digits);
    f.write_str(std::str::from_utf8(digits.as_flattened()).map_err(|_| fmt::Error)?)
}

/// Reads what [`write_hex`] writes; `None` for anything else, such as a sign or fewer digits.
pub(super) fn parse_hex(text: &str) -> Option<u64> {
    let plain = text.len() == NUMBER_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back() {
        let bytes = [0, 1, 0xfe, 0xff, 0x7f];
        assert_eq!(encode(&bytes), "0001feff7f");
        assert_eq!(decode("0001FEff7f").as_deref(), Some(&bytes[..]));
        for text in ["0", "zz", "é", "0x", " 0", "+0"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
