//! Blocks: what is compressed and sent as one. A large page is a block; neighbouring small
//! ones, such as families of a few series, share one.
//!
//! Invariant: a block is made again only when one of its pieces changed.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;

use super::gzip::{Checksum, Compressor, Fragment};
use super::page::PAGE_TARGET_BYTES;
use super::totals::{CacheTotal, CacheTotals};
use crate::model::cache::MissReason;

/// A piece of at least this size is a block by itself, in bytes.
const ALONE_BYTES: usize = 4 * 1024;
/// One in so many families ends a shared block, so that blocks find the same borders again
/// behind a place where something came or went.
const BORDER_EVERY: u64 = 16;

/// A part of the page that changes as a whole: a page, with its family's header where it is the
/// first one.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The header and the text, each with an id that differs between any two contents.
    pub(super) header: Option<(u64, Bytes)>,
    pub(super) text: (u64, Bytes),
    /// A shared block may end behind this piece.
    pub(super) border: bool,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.header.as_ref().map_or(0, |(_, h)| h.len()) + self.text.1.len()
    }
}

/// Returns whether a shared block ends behind the family called `name`.
pub(super) fn is_border(name: &str) -> bool {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish().is_multiple_of(BORDER_EVERY)
}

/// A block.
#[derive(Debug)]
pub(super) struct Block {
    ids: Vec<u64>,
    pub(super) text: Bytes,
    pub(super) gzip: Fragment,
}

/// Where the text of a piece lies now: in the text of a block.
#[derive(Debug)]
pub(super) struct Moved {
    /// The index of the piece.
    pub(super) piece: usize,
    pub(super) text: Bytes,
}

/// Counts blocks that were taken as they are (hits) and made (misses).
#[derive(Debug, Default)]
pub struct PageReuse {
    reused: AtomicU64,
    made: AtomicU64,
}

impl CacheTotals for PageReuse {
    fn name(&self) -> &'static str {
        "pages"
    }

    fn for_each(&self, each: &mut dyn FnMut(CacheTotal<'_>)) {
        let hits = self.reused.load(Ordering::Relaxed);
        let misses = &[(MissReason::Absent.as_str(), self.made.load(Ordering::Relaxed))];
        each(CacheTotal { namespace: "", hits, misses });
    }
}

/// The blocks of the last time.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    blocks: HashMap<u64, Arc<Block>>,
    compressor: Compressor,
    reuse: Arc<PageReuse>,
}

impl BlockCache {
    /// Makes an empty cache that counts into `reuse`.
    pub(super) fn new(reuse: Arc<PageReuse>) -> Self {
        Self { reuse, ..Self::default() }
    }

    /// Makes the page of `pieces`; gives where the texts of pieces now lie that were put into new
    /// shared blocks, so that their owners need not keep a second copy.
    pub(super) fn assemble(&mut self, pieces: &[Piece]) -> (Rendered, Vec<Moved>) {
        let mut rendered = Rendered::default();
        let mut moved = Vec::new();
        let mut blocks = HashMap::with_capacity(self.blocks.len());
        for range in ranges(pieces) {
            let block = self.block(pieces, range, &mut moved);
            rendered.push(&block);
            if let Some(&first) = block.ids.first() {
                blocks.insert(first, block);
            }
        }
        self.blocks = blocks;
        (rendered, moved)
    }

    fn block(
        &mut self,
        pieces: &[Piece],
        range: Range<usize>,
        moved: &mut Vec<Moved>,
    ) -> Arc<Block> {
        let own = &pieces[range.clone()];
        let parts = || own.iter().flat_map(|p| p.header.iter().chain(std::iter::once(&p.text)));
        let old = parts().next().and_then(|(id, _)| self.blocks.get(id));
        if let Some(old) = old
            && old.ids.iter().copied().eq(parts().map(|(id, _)| *id))
        {
            self.reuse.reused.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(old);
        }
        self.reuse.made.fetch_add(1, Ordering::Relaxed);
        let ids: Vec<u64> = parts().map(|(id, _)| *id).collect();
        let text = match own {
            [Piece { header: None, text, .. }] => text.1.clone(),
            _ => join(pieces, range, parts().map(|(_, t)| t.len()).sum(), moved),
        };
        Arc::new(Block { ids, gzip: self.compressor.compress(&text), text })
    }
}

fn join(pieces: &[Piece], range: Range<usize>, bytes: usize, moved: &mut Vec<Moved>) -> Bytes {
    let mut joined = Vec::with_capacity(bytes);
    let mut spans = Vec::with_capacity(range.len());
    for piece in &pieces[range.clone()] {
        if let Some((_, header)) = &piece.header {
            joined.extend_from_slice(header);
        }
        let start = joined.len();
        joined.extend_from_slice(&piece.text.1);
        spans.push(start..joined.len());
    }
    let joined = Bytes::from(joined);
    moved.extend(range.zip(spans).map(|(piece, span)| Moved { piece, text: joined.slice(span) }));
    joined
}

/// Cuts `pieces` into blocks.
fn ranges(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    let mut end_at = |start: &mut usize, end: usize| {
        if end > *start {
            ranges.push(*start..end);
        }
        *start = end;
    };
    for (i, piece) in pieces.iter().enumerate() {
        let alone = piece.bytes() >= ALONE_BYTES;
        if alone {
            end_at(&mut start, i);
            bytes = 0;
        }
        bytes += piece.bytes();
        if alone || piece.border || bytes >= PAGE_TARGET_BYTES {
            end_at(&mut start, i + 1);
            bytes = 0;
        }
    }
    end_at(&mut start, pieces.len());
    ranges
}

/// A page that is ready to be sent, plain and compressed.
#[derive(Debug, Clone, Default)]
pub(super) struct Rendered {
    pub(super) text: Vec<Bytes>,
    pub(super) gzip: Vec<Bytes>,
    pub(super) text_bytes: u64,
    pub(super) gzip_bytes: u64,
    pub(super) checksum: Checksum,
}

impl Rendered {
    fn push(&mut self, block: &Block) {
        self.text_bytes += block.text.len() as u64;
        self.gzip_bytes += block.gzip.bytes.len() as u64;
        self.checksum.add(&block.gzip);
        self.text.push(block.text.clone());
        self.gzip.push(block.gzip.bytes.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(sizes: &[usize]) -> Vec<Piece> {
        let mut id = 0;
        sizes
            .iter()
            .map(|&size| {
                id += 2;
                Piece {
                    header: Some((id, Bytes::from_static(b"# TYPE x gauge\n"))),
                    text: (id + 1, vec![b'x'; size].into()),
                    border: false,
                }
            })
            .collect()
    }

    fn totals(reuse: &PageReuse) -> (u64, u64) {
        let mut totals = (0, 0);
        reuse.for_each(&mut |total| totals = (total.hits, total.misses[0].1));
        totals
    }

    #[test]
    fn small_pieces_share_blocks_and_large_ones_do_not() {
        let pieces = pieces(&[10, 20, 5000, 30, 6000, 6000]);
        assert_eq!(ranges(&pieces), [0..2, 2..3, 3..4, 4..5, 5..6]);
        let small = vec![pieces[0].clone(); 10_000];
        assert!(ranges(&small).len() < 30);
    }

    #[test]
    fn only_the_block_of_a_changed_piece_is_made_again() {
        let reuse = Arc::new(PageReuse::default());
        let mut cache = BlockCache::new(Arc::clone(&reuse));
        let mut pieces = pieces(&[10, 5000, 20, 30, 5000]);
        let (first, moved) = cache.assemble(&pieces);
        assert_eq!(totals(&reuse), (0, 4));
        assert_eq!(moved.len(), 5);
        assert!(moved.iter().all(|m| m.text == pieces[m.piece].text.1));
        pieces[2].text = (1000, Bytes::from_static(b"y"));
        let (second, _) = cache.assemble(&pieces);
        assert_eq!(totals(&reuse), (3, 5));
        assert_eq!(first.text[3].as_ptr(), second.text[3].as_ptr());
        assert_ne!(first.text[2], second.text[2]);
    }
}
