//! A page: neighbouring rendered lines of one family, and the position of each.
//!
//! The text is the data. A page stores no keys beside it, since at a million series they would
//! take as much memory again; the key of a line is parsed from its text.
//! Invariant: the lines are sorted by their sort keys, which are unique; a page is never changed, a new
//! one takes its place.

use std::sync::Arc;

use bytes::Bytes;

use super::line::write_key;
use super::line_order::{LineSorter, SortKey};
use crate::model::number::write_float;

/// The size of a new page, in bytes. Below 8 KiB it compresses worse; the larger it is, the more is copied
/// for one change. With its last line a page should stay just below 16 KiB: allocators would round it up by a
/// quarter otherwise.
pub(in crate::exposition) const PAGE_TARGET_BYTES: usize = 16 * 1024 - 256;
/// A larger page is split.
const PAGE_MAX_BYTES: usize = 2 * PAGE_TARGET_BYTES;
/// A smaller page is merged with a neighbour.
const PAGE_MIN_BYTES: usize = PAGE_TARGET_BYTES / 4;
/// How much new text is collected before pages are made of it, in bytes.
const SCRATCH_BYTES: usize = 16 * PAGE_TARGET_BYTES;

/// The id of a series' metadata in the metadata table of the mirror.
pub(in crate::exposition) type MetadataId = u32;

/// A page. Cheap to clone: everything in it is shared.
#[derive(Debug, Clone)]
pub(in crate::exposition) struct Page {
    /// Two pages with the same id have the same text.
    pub(in crate::exposition) id: u64,
    /// The lines, each with its line feed.
    pub(in crate::exposition) text: Bytes,
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Lines {
    /// The position of each line in the text.
    starts: Box<[u32]>,
    metadata: LineMetadata,
}

/// The metadata of each line. Nearly always all lines of a page have the same.
#[derive(Debug)]
enum LineMetadata {
    Same(MetadataId),
    Each(Box<[MetadataId]>),
}

/// The value of a line that is to be written.
#[derive(Debug, Clone, Copy)]
pub(in crate::exposition) enum LineValue<'a> {
    /// A sample.
    Sample(f64),
    /// The text of the value in another page.
    Rendered(&'a [u8]),
}

/// A line of a family that is written, replaced or removed.
#[derive(Debug, Clone, Copy)]
pub(in crate::exposition) struct LineUpdate<'a> {
    pub(in crate::exposition) sort_key: SortKey<'a>,
    pub(in crate::exposition) name: &'a [u8],
    pub(in crate::exposition) labels: &'a [u8],
    /// The new value; `None` removes the line.
    pub(in crate::exposition) value: Option<(LineValue<'a>, MetadataId)>,
}

impl Page {
    /// Returns a key that only this page has, for as long as it exists. Ids of another mirror's pages may be the same.
    pub(in crate::exposition) fn address(&self) -> usize {
        Arc::as_ptr(&self.lines).addr()
    }

    /// Returns the number of lines.
    pub(in crate::exposition) fn len(&self) -> usize {
        self.lines.starts.len()
    }

    /// Returns a line without its line feed.
    pub(in crate::exposition) fn line(&self, index: usize) -> &[u8] {
        let start = self.start(index);
        &self.text[start..self.start(index + 1).saturating_sub(1).max(start)]
    }

    /// Iterates over the lines and their metadata.
    pub(in crate::exposition) fn iter(&self) -> impl Iterator<Item = (&[u8], MetadataId)> {
        (0..self.len()).map(|i| (self.line(i), self.metadata(i)))
    }

    fn start(&self, index: usize) -> usize {
        self.lines.starts.get(index).map_or(self.text.len(), |&s| s as usize)
    }

    fn metadata(&self, index: usize) -> MetadataId {
        match &self.lines.metadata {
            LineMetadata::Same(id) => *id,
            LineMetadata::Each(ids) => ids[index],
        }
    }

    /// Returns the sort key of the first line.
    pub(in crate::exposition) fn first_sort_key(&self, sorter: LineSorter<'_>) -> SortKey<'_> {
        sorter.sort_key_of(self.line(0))
    }

    /// Returns the index of the first line from `from` on that is not before `sort_key`, and whether that line
    /// has this key. A binary search that parses each line it looks at.
    fn find(&self, from: usize, sort_key: &SortKey<'_>, sorter: LineSorter<'_>) -> (usize, bool) {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match sorter.sort_key_of(self.line(middle)).cmp(sort_key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return (middle, true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// Writes this page with `updates`, which are sorted, applied. Appends to `previous` the metadata that
    /// each line had before; `None` where there was no such line.
    pub(in crate::exposition) fn apply(
        &self,
        updates: &[LineUpdate<'_>],
        sorter: LineSorter<'_>,
        writer: &mut PageWriter<'_>,
        previous: &mut Vec<Option<MetadataId>>,
    ) {
        // The lines up to `copied` are written or removed. Between two updates, lines are copied in one piece.
        let mut copied = 0;
        for update in updates {
            let (at, found) = self.find(copied, &update.sort_key, sorter);
            writer.copy(self, copied, at);
            copied = at + usize::from(found);
            previous.push(found.then(|| self.metadata(at)));
            writer.write(update);
        }
        writer.copy(self, copied, self.len());
        writer.finish();
    }

    /// Returns whether this page and the `next` one should be merged.
    pub(in crate::exposition) fn should_merge(&self, next: &Self) -> bool {
        let (a, b) = (self.text.len(), next.text.len());
        a.min(b) < PAGE_MIN_BYTES && a + b <= PAGE_TARGET_BYTES
    }
}

/// Makes pages of lines that are written in their order.
#[derive(Debug)]
pub(in crate::exposition) struct PageWriter<'a> {
    scratch: &'a mut Scratch,
    pages: &'a mut Vec<Page>,
}

/// Buffers that are reused from page to page, and the last id that was used.
#[derive(Debug, Default)]
pub(in crate::exposition) struct Scratch {
    text: Vec<u8>,
    starts: Vec<u32>,
    metadata: Vec<MetadataId>,
    last_id: u64,
}

impl Scratch {
    /// Returns a new id.
    pub(in crate::exposition) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl<'a> PageWriter<'a> {
    /// Makes a writer that appends to `pages`.
    pub(in crate::exposition) fn new(scratch: &'a mut Scratch, pages: &'a mut Vec<Page>) -> Self {
        scratch.text.clear();
        scratch.starts.clear();
        scratch.metadata.clear();
        Self { scratch, pages }
    }

    /// Copies lines `from..to` of `page`.
    pub(in crate::exposition) fn copy(&mut self, page: &Page, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (start, end) = (page.start(from), page.start(to));
        // The starts move by as much as the text does.
        let base = self.scratch.text.len();
        self.scratch.text.extend_from_slice(&page.text[start..end]);
        self.scratch
            .starts
            .extend(page.lines.starts[from..to].iter().map(|&s| offset(base + s as usize - start)));
        self.scratch.metadata.extend((from..to).map(|i| page.metadata(i)));
    }

    /// Writes the line of an update, unless it removes the line.
    pub(in crate::exposition) fn write(&mut self, update: &LineUpdate<'_>) {
        let Some((value, metadata)) = update.value else { return };
        if self.scratch.text.len() >= SCRATCH_BYTES {
            self.finish();
        }
        let text = &mut self.scratch.text;
        self.scratch.starts.push(offset(text.len()));
        self.scratch.metadata.push(metadata);
        write_key(update.name, update.labels, text);
        text.push(b' ');
        match value {
            LineValue::Sample(value) => write_float(value, text),
            LineValue::Rendered(value) => text.extend_from_slice(value),
        }
        text.push(b'\n');
    }

    /// Makes pages of what was written since the last call: one, or several of equal size if it is too large.
    pub(in crate::exposition) fn finish(&mut self) {
        let Scratch { text, starts, metadata, last_id } = &mut *self.scratch;
        let parts =
            if text.len() > PAGE_MAX_BYTES { text.len().div_ceil(PAGE_TARGET_BYTES) } else { 1 };
        let size = text.len().div_ceil(parts);
        // Each page takes lines until the next one would begin at or behind `size`. It takes at least one, so
        // that a line of any length ends up in some page.
        let mut first = 0;
        while first < starts.len() {
            let start = starts[first] as usize;
            let next =
                first + 1 + starts[first + 1..].partition_point(|&s| (s as usize) < start + size);
            let end = starts.get(next).map_or(text.len(), |&s| s as usize);
            *last_id += 1;
            self.pages.push(Page {
                id: *last_id,
                text: Bytes::copy_from_slice(&text[start..end]),
                lines: Arc::new(Lines {
                    starts: starts[first..next].iter().map(|&s| s - offset(start)).collect(),
                    metadata: compact(&metadata[first..next]),
                }),
            });
            first = next;
        }
        text.clear();
        starts.clear();
        metadata.clear();
    }
}

fn compact(ids: &[MetadataId]) -> LineMetadata {
    match ids {
        [first, rest @ ..] if rest.iter().all(|id| id == first) => LineMetadata::Same(*first),
        _ => LineMetadata::Each(ids.into()),
    }
}

/// Narrows a position in the scratch buffer, which holds a few hundred KiB and one line: far less than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::family::line_order::LineOrder;

    const SORTER: LineSorter<'static> =
        LineSorter { order: LineOrder::Labels, family: b"requests" };

    fn update(labels: &str, value: Option<f64>) -> LineUpdate<'_> {
        LineUpdate {
            sort_key: SORTER.sort_key(b"requests", labels.as_bytes()),
            name: b"requests",
            labels: labels.as_bytes(),
            value: value.map(|v| (LineValue::Sample(v), 0)),
        }
    }

    fn pages_of(count: usize) -> Vec<Page> {
        let labels: Vec<_> = (0..count).map(|i| format!("a=\"{i:06}\"")).collect();
        let mut scratch = Scratch::default();
        let mut pages = Vec::new();
        let mut writer = PageWriter::new(&mut scratch, &mut pages);
        for labels in &labels {
            writer.write(&update(labels, Some(1.0)));
        }
        writer.finish();
        pages
    }

    #[test]
    fn pages_have_about_the_target_size() {
        let pages = pages_of(10_000);
        assert!(pages.len() > 10);
        for page in &pages {
            assert!((PAGE_MIN_BYTES..=PAGE_MAX_BYTES).contains(&page.text.len()));
            assert!(page.text.ends_with(b"\n"));
        }
    }

    #[test]
    fn updates_replace_insert_and_remove_lines() {
        let pages = pages_of(3);
        let updates = [
            update("a=\"000000\"", None),
            update("a=\"0000005\"", Some(7.0)),
            update("a=\"000001\"", Some(0.5)),
            update("a=\"9\"", None),
        ];
        let (mut out, mut previous, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        let mut writer = PageWriter::new(&mut scratch, &mut out);
        pages[0].apply(&updates, SORTER, &mut writer, &mut previous);
        let expected =
            "requests{a=\"0000005\"} 7\nrequests{a=\"000001\"} 0.5\nrequests{a=\"000002\"} 1\n";
        assert_eq!(out[0].text, expected);
        assert_eq!(previous, [Some(0), None, Some(0), None]);
        let lines: Vec<_> = out[0].iter().map(|(line, _)| line.len()).collect();
        assert_eq!(lines, [23, 24, 22]);
    }

    #[test]
    fn a_page_without_lines_is_removed() {
        let pages = pages_of(1);
        let (mut out, mut previous, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        let mut writer = PageWriter::new(&mut scratch, &mut out);
        pages[0].apply(&[update("a=\"000000\"", None)], SORTER, &mut writer, &mut previous);
        assert!(out.is_empty());
    }
}
