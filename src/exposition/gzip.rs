//! Gzip put together from parts that were compressed before.
//!
//! Each part is a raw deflate stream of its own that ends at a byte boundary and is not final
//! (a sync flush), so that parts can follow each other in any order within *one* gzip member:
//! curl, wget and others read several members wrongly. The checksum of the whole is computed from
//! those of the parts.
//! Invariant: header, parts and trailer together are one valid gzip member.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

/// The header of a member: deflate, no name, no time, unknown system (RFC 1952).
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last, empty block of a deflate stream (RFC 1951).
const FINAL_BLOCK: [u8; 2] = [3, 0];
/// Level 1: 4 times as fast as the usual 6, for pages a third larger.
const LEVEL: u32 = 1;
/// The longest stored block of deflate, in bytes.
const STORED_MAX_BYTES: usize = 0xffff;

/// A compressed part of a page.
#[derive(Debug, Clone)]
pub(super) struct Fragment {
    /// The deflate blocks.
    pub(super) bytes: Bytes,
    /// The CRC-32 of the plain text.
    pub(super) crc: u32,
    /// The length of the plain text.
    pub(super) plain_bytes: u64,
}

/// Compresses parts, one after the other.
pub(super) struct Compressor {
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
    /// Compresses `plain` so that it depends on nothing before it.
    pub(super) fn compress(&mut self, plain: &[u8]) -> Fragment {
        self.stream.reset();
        self.buffer.clear();
        if !self.deflate(plain) {
            // Nothing known leads here; uncompressed blocks keep the page right all the same.
            store(plain, &mut self.buffer);
        }
        Fragment {
            bytes: Bytes::copy_from_slice(&self.buffer),
            crc: crc32fast::hash(plain),
            plain_bytes: plain.len() as u64,
        }
    }

    fn deflate(&mut self, plain: &[u8]) -> bool {
        loop {
            self.buffer.reserve(plain.len() / 4 + 256);
            let read = usize::try_from(self.stream.total_in()).unwrap_or(plain.len());
            let rest = &plain[read.min(plain.len())..];
            if self.stream.compress_vec(rest, &mut self.buffer, FlushCompress::Sync).is_err() {
                return false;
            }
            // The flush is complete only when it did not need all the room that it had.
            let all_read = self.stream.total_in() == plain.len() as u64;
            if all_read && self.buffer.len() < self.buffer.capacity() {
                return true;
            }
        }
    }
}

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

/// The checksum of parts, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// Adds a part behind the others.
    pub(super) fn add(&mut self, part: &Fragment) {
        self.0.combine(&crc32fast::Hasher::new_with_initial_len(part.crc, part.plain_bytes));
    }

    /// Adds the parts of `other` behind the others.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.combine(&other.0);
    }

    /// Returns what ends a member of `plain_bytes` bytes, the last block included.
    pub(super) fn trailer(&self, plain_bytes: u64) -> Bytes {
        let mut out = Vec::with_capacity(10);
        out.extend_from_slice(&FINAL_BLOCK);
        out.extend_from_slice(&self.0.clone().finalize().to_le_bytes());
        // The format wants the length modulo 2^32.
        out.extend_from_slice(&plain_bytes.to_le_bytes()[..4]);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::{any, prop, proptest};

    use super::*;

    fn member(parts: &[Fragment]) -> Vec<u8> {
        let mut sum = Checksum::default();
        let mut out = HEADER.to_vec();
        for part in parts {
            sum.add(part);
            out.extend_from_slice(&part.bytes);
        }
        out.extend_from_slice(&sum.trailer(parts.iter().map(|p| p.plain_bytes).sum()));
        out
    }

    fn unzip(member: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(member).read_to_end(&mut out).expect("one valid member");
        out
    }

    #[test]
    fn stored_blocks_are_valid_parts() {
        let plain = vec![b'x'; 3 * STORED_MAX_BYTES + 7];
        let mut bytes = Vec::new();
        store(&plain, &mut bytes);
        let stored = Fragment {
            bytes: bytes.into(),
            crc: crc32fast::hash(&plain),
            plain_bytes: plain.len() as u64,
        };
        let parts = [stored, Compressor::default().compress(b"tail")];
        assert_eq!(unzip(&member(&parts)), [&plain[..], b"tail"].concat());
    }

    proptest! {
        #[test]
        fn parts_in_any_number_are_one_member(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..6),
            repeat in 1_usize..40,
        ) {
            let mut compressor = Compressor::default();
            let texts: Vec<_> = texts.iter().map(|t| t.repeat(repeat)).collect();
            let parts: Vec<_> = texts.iter().map(|t| compressor.compress(t)).collect();
            assert_eq!(unzip(&member(&parts)), texts.concat());
        }
    }
}
