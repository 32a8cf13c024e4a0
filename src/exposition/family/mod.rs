//! A rendered metric family: its header and its pages.
//!
//! Which series belong to it is not decided here, but by the mirror.
//! Invariant: the pages are sorted, none is empty, and no two neighbours are small enough to be merged.

pub(super) mod line;
pub(super) mod line_order;
pub(super) mod page;

use std::sync::Arc;

use bytes::Bytes;

use self::line_order::{LineOrder, LineSorter};
use self::page::{LineUpdate, MetadataId, Page, PageWriter, Scratch};
use crate::model::series::MetricType;

/// What /metrics shows of a family before its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FamilyHeader {
    /// The name.
    pub(super) name: Arc<str>,
    /// The type. Unknown where the writers' type would contradict the format.
    pub(super) metric_type: MetricType,
    /// The help text, unescaped; may be empty.
    pub(super) help: Arc<str>,
    /// The unit; may be empty.
    pub(super) unit: Arc<str>,
}

impl FamilyHeader {
    /// Returns the order of the family's lines.
    pub(super) fn line_order(&self) -> LineOrder {
        match self.metric_type {
            MetricType::Histogram => LineOrder::Histogram,
            MetricType::Summary => LineOrder::Summary,
            MetricType::StateSet => LineOrder::StateSet,
            _ => LineOrder::Labels,
        }
    }

    /// Returns what sorts the family's lines.
    pub(super) fn sorter(&self) -> LineSorter<'_> {
        LineSorter { order: self.line_order(), family: self.name.as_bytes() }
    }

    /// Returns the `# HELP` and `# TYPE` lines of the text format.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.help.trim().is_empty() {
            let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
            out = format!("# HELP {} {help}\n", self.name);
        }
        out + "# TYPE " + &self.name + " " + text_type(self.metric_type) + "\n"
    }
}

/// Returns the type's name in the text format, which has fewer types than OpenMetrics.
fn text_type(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Counter => "counter",
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::GaugeHistogram | MetricType::Unknown => "untyped",
    }
}

/// A family. Its pages are shared with the scrapes that are sending them.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) header: FamilyHeader,
    /// The header in the text format.
    pub(super) header_text: Bytes,
    /// Two headers with the same id have the same text. Never equal to the id of a page.
    pub(super) header_id: u64,
    pub(super) pages: Vec<Page>,
}

impl Family {
    /// Makes a family without series.
    pub(super) fn new(header: FamilyHeader, scratch: &mut Scratch) -> Self {
        let header_text = Bytes::from(header.to_text());
        let header_id = scratch.next_id();
        Self { header, header_text, header_id, pages: Vec::new() }
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &str {
        &self.header.name
    }

    /// Changes the header. The order of the lines must stay the same.
    pub(super) fn set_header(&mut self, header: FamilyHeader, scratch: &mut Scratch) {
        if self.header != header {
            let pages = std::mem::take(&mut self.pages);
            *self = Self::new(header, scratch);
            self.pages = pages;
        }
    }

    /// Iterates over all lines and their metadata.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&[u8], MetadataId)> {
        self.pages.iter().flat_map(Page::iter)
    }

    /// Applies `updates`, which are sorted and contain each line once. Appends to `previous` the
    /// metadata that each line had before; `None` where there was no such line.
    ///
    /// Only pages with updates are written again; all others are kept as they are.
    pub(super) fn apply(
        &mut self,
        updates: &[LineUpdate<'_>],
        scratch: &mut Scratch,
        previous: &mut Vec<Option<MetadataId>>,
    ) {
        if updates.is_empty() {
            return;
        }
        let old = std::mem::take(&mut self.pages);
        let mut pages = Vec::with_capacity(old.len() + 1);
        let sorter = self.header.sorter();
        let mut rest = updates;
        if old.is_empty() {
            let mut writer = PageWriter::new(scratch, &mut pages);
            for update in updates {
                writer.write(update);
            }
            writer.finish();
            previous.extend(updates.iter().map(|_| None));
        }
        for (i, page) in old.iter().enumerate() {
            // A page takes the updates before the first line of the next page, so that lines before the
            // first page go into the first one. The last page takes the rest.
            let count = match old.get(i + 1) {
                Some(next) if !rest.is_empty() => {
                    let bound = next.first_sort_key(sorter);
                    rest.partition_point(|update| update.sort_key < bound)
                }
                _ => rest.len(),
            };
            let (here, later) = rest.split_at(count);
            rest = later;
            if here.is_empty() {
                pages.push(page.clone());
            } else {
                page.apply(here, sorter, &mut PageWriter::new(scratch, &mut pages), previous);
            }
        }
        self.pages = merge_small(pages, scratch);
    }
}

/// Merges small pages with their neighbours, so that deletions don't leave many tiny pages behind.
fn merge_small(pages: Vec<Page>, scratch: &mut Scratch) -> Vec<Page> {
    if pages.windows(2).all(|pair| !pair[0].should_merge(&pair[1])) {
        return pages;
    }
    let mut merged: Vec<Page> = Vec::with_capacity(pages.len());
    for page in pages {
        match merged.pop_if(|last| last.should_merge(&page)) {
            Some(last) => {
                let mut writer = PageWriter::new(scratch, &mut merged);
                writer.copy(&last, 0, last.len());
                writer.copy(&page, 0, page.len());
                writer.finish();
            }
            None => merged.push(page),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::family::page::{LineValue, PAGE_TARGET_BYTES};

    fn gauge() -> FamilyHeader {
        FamilyHeader {
            name: "x".into(),
            metric_type: MetricType::Gauge,
            help: "two\nlines \\".into(),
            unit: "".into(),
        }
    }

    fn gauge_sorter() -> LineSorter<'static> {
        LineSorter { order: LineOrder::Labels, family: b"x" }
    }

    fn updates(labels: &[String], present: bool) -> Vec<LineUpdate<'_>> {
        labels
            .iter()
            .map(|labels| LineUpdate {
                sort_key: gauge_sorter().sort_key(b"x", labels.as_bytes()),
                name: b"x",
                labels: labels.as_bytes(),
                value: present.then_some((LineValue::Sample(1.0), 0)),
            })
            .collect()
    }

    #[test]
    fn the_header_is_escaped_and_omits_an_empty_help() {
        let mut header = gauge();
        assert_eq!(header.to_text(), "# HELP x two\\nlines \\\\\n# TYPE x gauge\n");
        header.help = "".into();
        assert_eq!(header.to_text(), "# TYPE x gauge\n");
    }

    #[test]
    fn deletions_do_not_leave_many_small_pages() {
        let labels: Vec<_> = (0..20_000).map(|i| format!("a=\"{i:06}\"")).collect();
        let mut scratch = Scratch::default();
        let mut family = Family::new(gauge(), &mut scratch);
        family.apply(&updates(&labels, true), &mut scratch, &mut Vec::new());
        let full = family.pages.len();
        let gone: Vec<_> = labels.iter().filter(|l| !l.ends_with("7\"")).cloned().collect();
        let mut previous = Vec::new();
        for part in gone.chunks(100) {
            family.apply(&updates(part, false), &mut scratch, &mut previous);
        }
        assert!(previous.iter().all(Option::is_some));
        assert_eq!(family.lines().count(), 2000);
        let bytes: usize = family.pages.iter().map(|p| p.text.len()).sum();
        assert!(family.pages.len() <= 2 * bytes / PAGE_TARGET_BYTES + 2);
        assert!(family.pages.len() < full);
    }
}
