//! Chunks: the pieces in which an exposition is compressed and sent. A large page is a chunk of its own;
//! neighbouring small pages, such as those of families with few series, share one.
//!
//! Not the pages themselves, and not the HTTP body, which is in [`super::scrape`].
//! Invariant: a chunk is compressed again only when one of its pages changed.

pub(crate) mod gzip;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use self::gzip::{Checksum, Compressor, Fragment};
use super::family::page::PAGE_TARGET_BYTES;
use super::own::totals::{CacheTotal, CacheTotals};
use crate::model::cache::MissReason;

/// A page of at least this size is a chunk of its own, in bytes.
const OWN_CHUNK_BYTES: usize = 4 * 1024;
/// One family in so many ends a shared chunk. The choice depends only on the family's name, so that an insertion
/// or deletion moves the boundaries of few chunks, and the others can be reused (content-defined chunking).
const BOUNDARY_EVERY: u64 = 16;

/// Bytes with an id: two contents with the same id are equal.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) id: u64,
    pub(super) bytes: Bytes,
}

/// A page, with the header of its family if it is the first one.
#[derive(Debug, Clone)]
pub(super) struct RenderedPage {
    pub(super) header: Option<Content>,
    pub(super) text: Content,
    /// A shared chunk ends behind this page.
    pub(super) boundary: bool,
}

impl RenderedPage {
    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.header.iter().chain(std::iter::once(&self.text))
    }

    fn size_bytes(&self) -> usize {
        self.contents().map(|content| content.bytes.len()).sum()
    }
}

/// Returns whether a shared chunk ends behind the family called `name`.
pub(super) fn is_chunk_boundary(name: &str) -> bool {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish().is_multiple_of(BOUNDARY_EVERY)
}

/// Text that is compressed and sent as one.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The ids of the contents, in their order: chunks with equal ids are equal.
    ids: Vec<u64>,
    pub(super) text: Bytes,
    pub(super) gzip: Fragment,
}

/// The text of a page as a slice of the chunk that it was put into.
#[derive(Debug)]
pub(super) struct SharedText {
    /// The index of the page.
    pub(super) page: usize,
    pub(super) text: Bytes,
}

/// Counts chunks that were reused (hits) and made (misses).
#[derive(Debug, Default)]
pub struct ChunkReuse {
    reused: AtomicU64,
    made: AtomicU64,
}

impl CacheTotals for ChunkReuse {
    fn name(&self) -> &'static str {
        "pages"
    }

    fn for_each(&self, each: &mut dyn FnMut(CacheTotal<'_>)) {
        let hits = self.reused.load(Ordering::Relaxed);
        let misses = &[(MissReason::Absent.as_str(), self.made.load(Ordering::Relaxed))];
        each(CacheTotal { namespace: "", hits, misses });
    }
}

/// The chunks of the last exposition.
#[derive(Debug, Default)]
pub(super) struct ChunkCache {
    /// By the id of their first content.
    chunks: HashMap<u64, Arc<Chunk>>,
    compressor: Compressor,
    reuse: Arc<ChunkReuse>,
}

impl ChunkCache {
    /// Makes an empty cache that counts into `reuse`.
    pub(super) fn new(reuse: Arc<ChunkReuse>) -> Self {
        Self { reuse, ..Self::default() }
    }

    /// Makes the exposition of `pages`. Also returns the texts of the pages that were copied into new
    /// shared chunks: with these their owners need not keep a second copy.
    pub(super) fn assemble(&mut self, pages: &[RenderedPage]) -> (Exposition, Vec<SharedText>) {
        let mut shared = Vec::new();
        let chunks: Vec<Arc<Chunk>> =
            ranges(pages).into_iter().map(|range| self.chunk(pages, range, &mut shared)).collect();
        let exposition = Exposition::of(&chunks);
        // Only the chunks of this exposition are kept: the next one will differ little.
        self.chunks =
            chunks.into_iter().filter_map(|chunk| Some((*chunk.ids.first()?, chunk))).collect();
        (exposition, shared)
    }

    fn chunk(
        &mut self,
        pages: &[RenderedPage],
        range: Range<usize>,
        shared: &mut Vec<SharedText>,
    ) -> Arc<Chunk> {
        let own = &pages[range.clone()];
        let contents = || own.iter().flat_map(RenderedPage::contents);
        let old = contents().next().and_then(|first| self.chunks.get(&first.id));
        if let Some(old) = old
            && old.ids.iter().copied().eq(contents().map(|content| content.id))
        {
            self.reuse.reused.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(old);
        }
        self.reuse.made.fetch_add(1, Ordering::Relaxed);
        let ids: Vec<u64> = contents().map(|content| content.id).collect();
        let text = match own {
            // A single page without a header is already one text.
            [RenderedPage { header: None, text, .. }] => text.bytes.clone(),
            _ => join(pages, range, contents().map(|content| content.bytes.len()).sum(), shared),
        };
        Arc::new(Chunk { ids, gzip: self.compressor.compress(&text), text })
    }
}

/// Copies the pages of `range` into one text of `size_bytes`.
fn join(
    pages: &[RenderedPage],
    range: Range<usize>,
    size_bytes: usize,
    shared: &mut Vec<SharedText>,
) -> Bytes {
    let mut joined = Vec::with_capacity(size_bytes);
    let mut slices = Vec::with_capacity(range.len());
    for page in &pages[range.clone()] {
        if let Some(header) = &page.header {
            joined.extend_from_slice(&header.bytes);
        }
        let start = joined.len();
        joined.extend_from_slice(&page.text.bytes);
        slices.push(start..joined.len());
    }
    let joined = Bytes::from(joined);
    let texts =
        range.zip(slices).map(|(page, slice)| SharedText { page, text: joined.slice(slice) });
    shared.extend(texts);
    joined
}

/// Divides `pages` into chunks.
fn ranges(pages: &[RenderedPage]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    let mut end_at = |start: &mut usize, end: usize| {
        if end > *start {
            ranges.push(*start..end);
        }
        *start = end;
    };
    for (i, page) in pages.iter().enumerate() {
        let alone = page.size_bytes() >= OWN_CHUNK_BYTES;
        if alone {
            end_at(&mut start, i);
            bytes = 0;
        }
        bytes += page.size_bytes();
        if alone || page.boundary || bytes >= PAGE_TARGET_BYTES {
            end_at(&mut start, i + 1);
            bytes = 0;
        }
    }
    end_at(&mut start, pages.len());
    ranges
}

/// The pushed series in one format, ready to be sent plain and compressed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Exposition {
    /// The chunks as text.
    pub(super) text: Arc<[Bytes]>,
    /// The chunks as gzip fragments.
    pub(super) gzip: Arc<[Bytes]>,
    pub(super) text_bytes: u64,
    pub(super) gzip_bytes: u64,
    /// The checksum of the whole text.
    pub(super) checksum: Checksum,
}

impl Exposition {
    fn of(chunks: &[Arc<Chunk>]) -> Self {
        let mut checksum = Checksum::default();
        chunks.iter().for_each(|chunk| checksum.add(&chunk.gzip));
        Self {
            text: chunks.iter().map(|chunk| chunk.text.clone()).collect(),
            gzip: chunks.iter().map(|chunk| chunk.gzip.bytes.clone()).collect(),
            text_bytes: chunks.iter().map(|chunk| chunk.text.len() as u64).sum(),
            gzip_bytes: chunks.iter().map(|chunk| chunk.gzip.bytes.len() as u64).sum(),
            checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(sizes: &[usize]) -> Vec<RenderedPage> {
        let mut id = 0;
        sizes
            .iter()
            .map(|&size| {
                id += 2;
                RenderedPage {
                    header: Some(Content { id, bytes: Bytes::from_static(b"# TYPE x gauge\n") }),
                    text: Content { id: id + 1, bytes: vec![b'x'; size].into() },
                    boundary: false,
                }
            })
            .collect()
    }

    fn totals(reuse: &ChunkReuse) -> (u64, u64) {
        let mut totals = (0, 0);
        reuse.for_each(&mut |total| totals = (total.hits, total.misses[0].1));
        totals
    }

    #[test]
    fn small_pages_share_chunks_and_large_pages_do_not() {
        let pages = pages(&[10, 20, 5000, 30, 6000, 6000]);
        assert_eq!(ranges(&pages), [0..2, 2..3, 3..4, 4..5, 5..6]);
        let small = vec![pages[0].clone(); 10_000];
        assert!(ranges(&small).len() < 30);
    }

    #[test]
    fn only_the_chunk_of_a_changed_page_is_made_again() {
        let reuse = Arc::new(ChunkReuse::default());
        let mut cache = ChunkCache::new(Arc::clone(&reuse));
        let mut pages = pages(&[10, 5000, 20, 30, 5000]);
        let (first, shared) = cache.assemble(&pages);
        assert_eq!(totals(&reuse), (0, 4));
        assert_eq!(shared.len(), 5);
        assert!(shared.iter().all(|s| s.text == pages[s.page].text.bytes));
        pages[2].text = Content { id: 1000, bytes: Bytes::from_static(b"y") };
        let (second, _) = cache.assemble(&pages);
        assert_eq!(totals(&reuse), (3, 5));
        assert_eq!(first.text[3].as_ptr(), second.text[3].as_ptr());
        assert_ne!(first.text[2], second.text[2]);
    }
}
