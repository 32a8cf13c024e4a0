//! Gzip that is concatenated from fragments which were compressed before.
//!
//! Each fragment is a raw deflate stream that depends on nothing before it, ends at a byte boundary and
//! is not final (a sync flush). So fragments can follow each other in any order within *one* gzip
//! member; curl, wget and others read several members wrongly. The CRC-32 of the whole is combined
//! from those of the fragments, without reading the text again.
//! Invariant: header, fragments and trailer together are one valid gzip member.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

/// The header of a member: deflate, no name, no time, unknown system (RFC 1952).
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last, empty block of a deflate stream (RFC 1951).
const FINAL_BLOCK: [u8; 2] = [3, 0];
/// Level 1: 4 times as fast as the usual 6, for output a third larger.
const LEVEL: u32 = 1;
/// The longest stored block of deflate, in bytes.
const STORED_MAX_BYTES: usize = 0xffff;

/// A compressed part of a text.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    /// The deflate blocks.
    pub(crate) bytes: Bytes,
    /// The CRC-32 of the plain text.
    pub(crate) crc: u32,
    /// The length of the plain text.
    pub(crate) plain_bytes: u64,
}

/// Compresses fragments, one after the other.
pub(crate) struct Compressor {
    stream: Compress,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self { stream: Compress::new(Compression::new(LEVEL), false), buffer: Vec::new() }
    }
}

impl Compressor {
    /// Compresses `plain` into a fragment.
    pub(crate) fn compress(&mut self, plain: &[u8]) -> Fragment {
        self.stream.reset();
        self.buffer.clear();
        if !self.deflate(plain) {
            // No known input leads here. Uncompressed blocks keep the exposition valid if one does.
            store(plain, &mut self.buffer);
        }
        Fragment {
            bytes: Bytes::copy_from_slice(&self.buffer),
            crc: crc32fast::hash(plain),
            plain_bytes: plain.len() as u64,
        }
    }

    /// Returns whether it succeeded.
    fn deflate(&mut self, plain: &[u8]) -> bool {
        loop {
            self.buffer.reserve(plain.len() / 4 + 256);
            let read = usize::try_from(self.stream.total_in()).unwrap_or(plain.len());
            let rest = &plain[read.min(plain.len())..];
            if self.stream.compress_vec(rest, &mut self.buffer, FlushCompress::Sync).is_err() {
                return false;
            }
            // zlib's rule: a flush is complete when it left room in the buffer; otherwise it continues at the
            // next call.
            let all_read = self.stream.total_in() == plain.len() as u64;
            if all_read && self.buffer.len() < self.buffer.capacity() {
                return true;
            }
        }
    }
}

/// Writes uncompressed deflate blocks (RFC 1951, 3.2.4).
fn store(plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for part in plain.chunks(STORED_MAX_BYTES) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// The CRC-32 of fragments, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// Adds a fragment behind the others.
    pub(crate) fn add(&mut self, fragment: &Fragment) {
        // Combining needs only the CRC and the length of the appended text.
        self.0
            .combine(&crc32fast::Hasher::new_with_initial_len(fragment.crc, fragment.plain_bytes));
    }

    /// Adds the fragments of `other` behind the others.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.combine(&other.0);
    }

    /// Returns the end of a member with `plain_bytes` of text: the final block, the checksum, the length.
    pub(crate) fn trailer(&self, plain_bytes: u64) -> Bytes {
        let mut out = Vec::with_capacity(10);
        out.extend_from_slice(&FINAL_BLOCK);
        out.extend_from_slice(&self.0.clone().finalize().to_le_bytes());
        // The length modulo 2^32 (RFC 1952).
        out.extend_from_slice(&plain_bytes.to_le_bytes()[..4]);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::{any, prop, proptest};

    use super::*;

    fn member(fragments: &[Fragment]) -> Vec<u8> {
        let mut sum = Checksum::default();
        let mut out = HEADER.to_vec();
        for fragment in fragments {
            sum.add(fragment);
            out.extend_from_slice(&fragment.bytes);
        }
        out.extend_from_slice(&sum.trailer(fragments.iter().map(|f| f.plain_bytes).sum()));
        out
    }

    fn unzip(member: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(member).read_to_end(&mut out).expect("one valid member");
        out
    }

    #[test]
    fn stored_blocks_are_a_valid_fragment() {
        let plain = vec![b'x'; 3 * STORED_MAX_BYTES + 7];
        let mut bytes = Vec::new();
        store(&plain, &mut bytes);
        let stored = Fragment {
            bytes: bytes.into(),
            crc: crc32fast::hash(&plain),
            plain_bytes: plain.len() as u64,
        };
        let fragments = [stored, Compressor::default().compress(b"tail")];
        assert_eq!(unzip(&member(&fragments)), [&plain[..], b"tail"].concat());
    }

    proptest! {
        #[test]
        fn any_number_of_fragments_is_one_member(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..6),
            repeat in 1_usize..40,
        ) {
            let mut compressor = Compressor::default();
            let texts: Vec<_> = texts.iter().map(|t| t.repeat(repeat)).collect();
            let fragments: Vec<_> = texts.iter().map(|t| compressor.compress(t)).collect();
            assert_eq!(unzip(&member(&fragments)), texts.concat());
        }
    }
}
