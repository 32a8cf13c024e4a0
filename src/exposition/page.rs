//! A page: some neighbouring lines of one family, rendered, and where each begins.
//!
//! The text is the data: a page keeps no keys beside it, since at a million series they would
//! cost as much again. A line's key is found in its text.
//! Invariant: the lines are sorted by their place, and no two have the same.

use std::sync::Arc;

use bytes::Bytes;

use super::order::{Arrangement, LineParts, Place};
use crate::model::number::write_float;

/// The size that pages are made at, in bytes. Below 8 KiB compression suffers, see
/// [`super::gzip`]; the larger the page, the more is copied for one change. With its last line a
/// page should stay just below 16 KiB: allocators would give it a quarter more otherwise.
pub(super) const PAGE_TARGET_BYTES: usize = 16 * 1024 - 256;
/// A page that is larger is parted.
const PAGE_MAX_BYTES: usize = 2 * PAGE_TARGET_BYTES;
/// A page that is smaller is joined with its neighbour.
const PAGE_MIN_BYTES: usize = PAGE_TARGET_BYTES / 4;
/// How much text is collected before pages are made of it, in bytes.
const SCRATCH_BYTES: usize = 16 * PAGE_TARGET_BYTES;

/// Names what a series' last writer said about its family; the mirror knows what stands behind it.
pub(super) type MetadataId = u32;

/// A page. Cheap to clone: everything in it is shared.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Differs between any two contents.
    pub(super) id: u64,
    /// The lines, each with its line feed.
    pub(super) text: Bytes,
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Lines {
    starts: Box<[u32]>,
    metadata: LineMetadata,
}

/// Nearly always all lines of a page have the same metadata.
#[derive(Debug)]
enum LineMetadata {
    Same(MetadataId),
    Each(Box<[MetadataId]>),
}

/// Which family lines are sorted for, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sorting<'a> {
    pub(super) arrangement: Arrangement,
    pub(super) family: &'a [u8],
}

impl Sorting<'_> {
    fn place_of<'l>(&self, line: &'l [u8]) -> Place<'l> {
        let parts = LineParts::of(line);
        self.arrangement.place(self.family, parts.name, parts.labels)
    }
}

/// The value of a series that is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum NewValue<'a> {
    /// A sample.
    Float(f64),
    /// The text of a value that another page held.
    Text(&'a [u8]),
}

/// One series of a family that changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit<'a> {
    pub(super) place: Place<'a>,
    pub(super) name: &'a [u8],
    pub(super) labels: &'a [u8],
    /// `None` when the series is gone.
    pub(super) state: Option<(NewValue<'a>, MetadataId)>,
}

impl Page {
    /// Returns the number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.starts.len()
    }

    /// Returns a line without its line feed.
    pub(super) fn line(&self, index: usize) -> &[u8] {
        let start = self.start(index);
        &self.text[start..self.start(index + 1).saturating_sub(1).max(start)]
    }

    /// Walks the lines and their metadata.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], MetadataId)> {
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

    /// Returns the place of the first line.
    pub(super) fn first_place(&self, sorting: Sorting<'_>) -> Place<'_> {
        sorting.place_of(self.line(0))
    }

    /// Finds the first line from `from` on that is not before `place`, and whether it is there.
    fn find(&self, from: usize, place: &Place<'_>, sorting: Sorting<'_>) -> (usize, bool) {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match sorting.place_of(self.line(middle)).cmp(place) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return (middle, true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// Writes this page with `edits` (sorted) applied. Notes for each edit the metadata
    /// that the series had, `None` when it was not here.
    pub(super) fn apply(
        &self,
        edits: &[Edit<'_>],
        sorting: Sorting<'_>,
        writer: &mut PageWriter<'_>,
        before: &mut Vec<Option<MetadataId>>,
    ) {
        let mut copied = 0;
        for edit in edits {
            let (at, found) = self.find(copied, &edit.place, sorting);
            writer.copy(self, copied, at);
            copied = at + usize::from(found);
            before.push(found.then(|| self.metadata(at)));
            writer.write(edit);
        }
        writer.copy(self, copied, self.len());
        writer.finish();
    }

    /// Returns whether this page and `next` should be one.
    pub(super) fn should_join(&self, next: &Self) -> bool {
        let (a, b) = (self.text.len(), next.text.len());
        a.min(b) < PAGE_MIN_BYTES && a + b <= PAGE_TARGET_BYTES
    }
}

/// Makes pages from lines that come in their order.
#[derive(Debug)]
pub(super) struct PageWriter<'a> {
    scratch: &'a mut Scratch,
    pages: &'a mut Vec<Page>,
}

/// Buffers that live from page to page, and the next page's id.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    text: Vec<u8>,
    starts: Vec<u32>,
    metadata: Vec<MetadataId>,
    last_id: u64,
}

impl Scratch {
    /// Returns an id that no page has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl<'a> PageWriter<'a> {
    /// Starts to write behind `pages`.
    pub(super) fn new(scratch: &'a mut Scratch, pages: &'a mut Vec<Page>) -> Self {
        scratch.text.clear();
        scratch.starts.clear();
        scratch.metadata.clear();
        Self { scratch, pages }
    }

    /// Writes lines `from..to` of `page` as they are.
    pub(super) fn copy(&mut self, page: &Page, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (start, end) = (page.start(from), page.start(to));
        let base = self.scratch.text.len();
        self.scratch.text.extend_from_slice(&page.text[start..end]);
        self.scratch
            .starts
            .extend(page.lines.starts[from..to].iter().map(|&s| offset(base + s as usize - start)));
        self.scratch.metadata.extend((from..to).map(|i| page.metadata(i)));
    }

    /// Writes the line of a series, unless it is gone.
    pub(super) fn write(&mut self, edit: &Edit<'_>) {
        let Some((value, metadata)) = edit.state else { return };
        if self.scratch.text.len() >= SCRATCH_BYTES {
            self.finish();
        }
        let text = &mut self.scratch.text;
        self.scratch.starts.push(offset(text.len()));
        self.scratch.metadata.push(metadata);
        write_key(edit.name, edit.labels, text);
        text.push(b' ');
        match value {
            NewValue::Float(value) => write_float(value, text),
            NewValue::Text(value) => text.extend_from_slice(value),
        }
        text.push(b'\n');
    }

    /// Makes pages of what was written: one, or when it is too large some of equal size.
    pub(super) fn finish(&mut self) {
        let Scratch { text, starts, metadata, last_id } = &mut *self.scratch;
        let parts =
            if text.len() > PAGE_MAX_BYTES { text.len().div_ceil(PAGE_TARGET_BYTES) } else { 1 };
        let size = text.len().div_ceil(parts);
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
                    metadata: pack(&metadata[first..next]),
                }),
            });
            first = next;
        }
        text.clear();
        starts.clear();
        metadata.clear();
    }
}

fn pack(ids: &[MetadataId]) -> LineMetadata {
    match ids {
        [first, rest @ ..] if rest.iter().all(|id| id == first) => LineMetadata::Same(*first),
        _ => LineMetadata::Each(ids.into()),
    }
}

/// The scratch buffer holds a few hundred KiB and one line, far less than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Appends `name{labels}`.
pub(super) fn write_key(name: &[u8], labels: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTING: Sorting<'static> =
        Sorting { arrangement: Arrangement::Plain, family: b"requests" };

    fn edit(labels: &str, value: Option<f64>) -> Edit<'_> {
        Edit {
            place: SORTING.arrangement.place(SORTING.family, b"requests", labels.as_bytes()),
            name: b"requests",
            labels: labels.as_bytes(),
            state: value.map(|v| (NewValue::Float(v), 0)),
        }
    }

    fn pages_of(count: usize) -> Vec<Page> {
        let labels: Vec<_> = (0..count).map(|i| format!("a=\"{i:06}\"")).collect();
        let mut scratch = Scratch::default();
        let mut pages = Vec::new();
        let mut writer = PageWriter::new(&mut scratch, &mut pages);
        for labels in &labels {
            writer.write(&edit(labels, Some(1.0)));
        }
        writer.finish();
        pages
    }

    #[test]
    fn pages_are_near_their_target() {
        let pages = pages_of(10_000);
        assert!(pages.len() > 10);
        for page in &pages {
            assert!((PAGE_MIN_BYTES..=PAGE_MAX_BYTES).contains(&page.text.len()));
            assert!(page.text.ends_with(b"\n"));
        }
    }

    #[test]
    fn edits_change_insert_and_remove() {
        let pages = pages_of(3);
        let edits = [
            edit("a=\"000000\"", None),
            edit("a=\"0000005\"", Some(7.0)),
            edit("a=\"000001\"", Some(0.5)),
            edit("a=\"9\"", None),
        ];
        let (mut out, mut before, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        let mut writer = PageWriter::new(&mut scratch, &mut out);
        pages[0].apply(&edits, SORTING, &mut writer, &mut before);
        let expected =
            "requests{a=\"0000005\"} 7\nrequests{a=\"000001\"} 0.5\nrequests{a=\"000002\"} 1\n";
        assert_eq!(out[0].text, expected);
        assert_eq!(before, [Some(0), None, Some(0), None]);
        let lines: Vec<_> = out[0].iter().map(|(line, _)| line.len()).collect();
        assert_eq!(lines, [23, 24, 22]);
    }

    #[test]
    fn a_page_that_lost_all_its_lines_is_gone() {
        let pages = pages_of(1);
        let (mut out, mut before, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        let mut writer = PageWriter::new(&mut scratch, &mut out);
        pages[0].apply(&[edit("a=\"000000\"", None)], SORTING, &mut writer, &mut before);
        assert!(out.is_empty());
    }
}
