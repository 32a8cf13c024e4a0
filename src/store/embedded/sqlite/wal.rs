//! SQLite's write-ahead log, read without SQLite: what of it is whole, and what is damaged.
//!
//! SQLite ends a log at the first frame that is not whole, and says nothing about what stands behind it. So it
//! starts without acknowledged commits after a single flipped bit. A frame's checksum continues that of the
//! frame before it, and each is stored; so a frame behind a bad one can be recognised as whole. Invariant: no
//! byte that SQLite would read is changed: [`make_whole`] writes those over themselves.
//!
//! The format is described in <https://sqlite.org/fileformat.html#the_write_ahead_log>.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The magic number; its lowest bit says that checksums are over big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// The page size of our files, where the log itself does not say it.
const PAGE_BYTES: usize = 4096;

/// What a log may legitimately lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::embedded) enum Missing {
    /// Nothing: the machine has not been started since.
    Nothing,
    /// Blocks of the last transaction: each one was synced before the next began.
    LastTransaction,
    /// Any blocks: nothing was synced.
    Anything,
}

/// Checks a log for damage. A torn tail is none: SQLite leaves it out.
///
/// # Errors
/// When it can't be read; what is wrong with it, in words, in the inner result.
pub(super) fn verify(path: &Path, missing: Missing) -> io::Result<Result<(), String>> {
    let Some(mut log) = Log::open(path)? else { return Ok(Ok(())) };
    let Some(header) = log.header else {
        // The header is synced before the first frame is written, so no power cut leaves this.
        return Ok(match log.first_whole_frame()? {
            Some(at) => Err(format!("its log has no valid header, but a whole frame {at}")),
            None => Ok(()),
        });
    };
    let mut sum = header.sum;
    let mut tear: Option<Tear> = None;
    while let Some(frame) = log.next()? {
        let is_whole = frame.is_whole(&header, sum);
        sum = frame.sum();
        // The tail that is torn ends with its own transaction.
        let tear = match &mut tear {
            Some(tear) => tear,
            None if is_whole => continue,
            None => tear.insert(Tear { at: frame.number, ended: false }),
        };
        let is_damage = match missing {
            Missing::Nothing => is_whole && frame.is_commit(),
            Missing::LastTransaction => tear.ended && is_whole && frame.is_commit(),
            Missing::Anything => false,
        };
        if is_damage {
            return Ok(Err(format!(
                "frame {} of its log is damaged, but frame {} is a whole commit",
                tear.at, frame.number
            )));
        }
        tear.ended |= frame.salt() == header.salt && frame.is_commit();
    }
    Ok(Ok(()))
}

/// Writes the whole frames of a log over themselves, cuts off what stands behind them, and syncs it.
///
/// After a sync that failed, pages may be in the kernel's memory, clean, and not on disk: reading them says
/// nothing about the disk, and no later sync writes them. A write does. The same holds for what an earlier
/// process left. And what stands behind the whole frames must not look like damage later.
///
/// # Errors
/// When it can't be read, written or synced.
pub(super) fn make_whole(path: &Path) -> io::Result<()> {
    let Some(mut log) = Log::open(path)? else { return Ok(()) };
    let file = OpenOptions::new().write(true).open(path)?;
    if let Some(header) = log.header {
        file.write_all_at(&header.bytes, 0)?;
        let (mut sum, mut at) = (header.sum, HEADER_BYTES as u64);
        while let Some(frame) = log.next()?.filter(|frame| frame.is_whole(&header, sum)) {
            sum = frame.sum();
            file.write_all_at(frame.bytes, at)?;
            at += frame.bytes.len() as u64;
        }
        file.set_len(at)?;
    }
    file.sync_all()
}

/// Where a log stops being whole.
struct Tear {
    /// The first frame that is not.
    at: u64,
    /// Whether its transaction has ended.
    ended: bool,
}

/// A checksum.
type Sum = (u32, u32);

#[derive(Debug, Clone, Copy)]
struct Header {
    bytes: [u8; HEADER_BYTES],
    big_endian: bool,
    page_bytes: usize,
    salt: [u8; 8],
    sum: Sum,
}

impl Header {
    /// Returns `None` where it is not valid.
    fn parse(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let magic = word(&bytes, 0, true);
        let big_endian = magic & 1 == 1;
        let page_bytes = usize::try_from(word(&bytes, 8, true)).ok()?;
        let sum = stored_sum(&bytes, 24);
        let is_valid = magic & !1 == MAGIC
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && checksum((0, 0), &bytes[..24], big_endian) == sum;
        let salt = bytes[16..24].try_into().ok()?;
        is_valid.then_some(Self { bytes, big_endian, page_bytes, salt, sum })
    }
}

/// A frame: the number of its page, the size of the file where it ends a transaction, the salt, the checksum,
/// and the page.
struct Frame<'a> {
    /// Counted from 1.
    number: u64,
    bytes: &'a [u8],
}

impl Frame<'_> {
    fn is_commit(&self) -> bool {
        word(self.bytes, 4, true) != 0
    }

    fn salt(&self) -> &[u8] {
        &self.bytes[8..16]
    }

    fn sum(&self) -> Sum {
        stored_sum(self.bytes, 16)
    }

    /// Returns whether it is as it was written, behind a frame or a header with the checksum `before`.
    fn is_whole(&self, header: &Header, before: Sum) -> bool {
        self.salt() == header.salt && self.has_checksum(before, header.big_endian)
    }

    fn has_checksum(&self, before: Sum, big_endian: bool) -> bool {
        let of_header = checksum(before, &self.bytes[..8], big_endian);
        word(self.bytes, 0, true) != 0
            && checksum(of_header, &self.bytes[FRAME_HEADER_BYTES..], big_endian) == self.sum()
    }
}

/// A log that is read from its begin to its end.
struct Log {
    file: BufReader<File>,
    /// `None` where it is not valid.
    header: Option<Header>,
    frame: Vec<u8>,
    /// Frames that were read.
    frames: u64,
}

impl Log {
    /// Returns `None` when there is no log, or one without frames.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => BufReader::with_capacity(1 << 16, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; HEADER_BYTES];
        if !fill(&mut file, &mut bytes)? {
            return Ok(None);
        }
        let header = Header::parse(bytes);
        let page_bytes = header.map_or(PAGE_BYTES, |header| header.page_bytes);
        let frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
        Ok(Some(Self { file, header, frame, frames: 0 }))
    }

    /// Reads the next frame; one that is cut off is none.
    fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        if !fill(&mut self.file, &mut self.frame)? {
            return Ok(None);
        }
        self.frames += 1;
        Ok(Some(Frame { number: self.frames, bytes: &self.frame }))
    }

    /// Returns the number of the first frame that continues the one before it.
    fn first_whole_frame(&mut self) -> io::Result<Option<u64>> {
        let mut before: Option<([u8; 8], Sum)> = None;
        while let Some(frame) = self.next()? {
            let salt = <[u8; 8]>::try_from(frame.salt()).unwrap_or_default();
            let is_whole = before.is_some_and(|(salt_before, sum)| {
                salt == salt_before
                    && [false, true].iter().any(|endian| frame.has_checksum(sum, *endian))
            });
            before = Some((salt, frame.sum()));
            if is_whole {
                return Ok(Some(frame.number));
            }
        }
        Ok(None)
    }
}

/// Fills `buffer`; returns `false` when the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

fn stored_sum(bytes: &[u8], at: usize) -> Sum {
    (word(bytes, at, true), word(bytes, at + 4, true))
}

fn checksum(before: Sum, bytes: &[u8], big_endian: bool) -> Sum {
    bytes.chunks_exact(8).fold(before, |(first, second), chunk| {
        let first = first.wrapping_add(word(chunk, 0, big_endian)).wrapping_add(second);
        (first, second.wrapping_add(word(chunk, 4, big_endian)).wrapping_add(first))
    })
}
