//! A metric family as it is mirrored: its header and its pages.
//!
//! Which series belong to it is decided in [`super::naming`].
//! Invariant: the pages are sorted, none is empty, and the number of small ones is bounded by the
//! number of large ones.

use std::sync::Arc;

use bytes::Bytes;

use super::order::Arrangement;
use super::page::{Edit, MetadataId, Page, PageWriter, Scratch, Sorting};
use crate::model::series::MetricType;

/// What /metrics says of a family before its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// The name.
    pub(super) name: Arc<str>,
    /// The type; a family that could not keep its own is unknown.
    pub(super) metric_type: MetricType,
    /// The help text, unescaped; may be empty.
    pub(super) help: Arc<str>,
    /// The unit; may be empty.
    pub(super) unit: Arc<str>,
}

impl Description {
    /// Returns how the family's lines are sorted.
    pub(super) fn arrangement(&self) -> Arrangement {
        match self.metric_type {
            MetricType::Histogram => Arrangement::Histogram,
            MetricType::Summary => Arrangement::Summary,
            MetricType::StateSet => Arrangement::StateSet,
            _ => Arrangement::Plain,
        }
    }

    /// Writes the `# HELP` and `# TYPE` lines of the text format.
    pub(super) fn text_header(&self) -> String {
        let mut out = String::new();
        if !self.help.trim().is_empty() {
            let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
            out = format!("# HELP {} {help}\n", self.name);
        }
        out + "# TYPE " + &self.name + " " + text_type(self.metric_type) + "\n"
    }
}

/// Returns the word of the text format, which knows fewer types than OpenMetrics.
fn text_type(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Counter => "counter",
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::GaugeHistogram | MetricType::Unknown => "untyped",
    }
}

/// A family. Its pages are shared with whoever is just sending them.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) description: Description,
    /// The header in the text format.
    pub(super) header: Bytes,
    /// Differs between any two headers and pages.
    pub(super) header_id: u64,
    pub(super) pages: Vec<Page>,
    /// Grows with every change of the content or the header.
    pub(super) version: u64,
}

impl Family {
    /// Makes a family without series.
    pub(super) fn described(description: Description, scratch: &mut Scratch) -> Self {
        let header = Bytes::from(description.text_header());
        let header_id = scratch.next_id();
        Self { description, header, header_id, pages: Vec::new(), version: header_id }
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &str {
        &self.description.name
    }

    /// Returns what the lines are sorted for.
    pub(super) fn sorting(&self) -> Sorting<'_> {
        Sorting {
            arrangement: self.description.arrangement(),
            family: self.description.name.as_bytes(),
        }
    }

    /// Changes the header; the arrangement must be the same.
    pub(super) fn describe(&mut self, description: Description, scratch: &mut Scratch) {
        if self.description != description {
            let pages = std::mem::take(&mut self.pages);
            *self = Self::described(description, scratch);
            self.pages = pages;
        }
    }

    /// Walks all lines and their metadata.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&[u8], MetadataId)> {
        self.pages.iter().flat_map(Page::iter)
    }

    /// Applies `edits`, which are sorted and name each series once. Notes for each
    /// the metadata that the series had, `None` when it was not here.
    ///
    /// Only the pages that an edit falls into are written again.
    pub(super) fn apply(
        &mut self,
        edits: &[Edit<'_>],
        scratch: &mut Scratch,
        before: &mut Vec<Option<MetadataId>>,
    ) {
        if edits.is_empty() {
            return;
        }
        self.version = scratch.next_id();
        let old = std::mem::take(&mut self.pages);
        let mut pages = Vec::with_capacity(old.len() + 1);
        let sorting = self.sorting();
        let mut rest = edits;
        if old.is_empty() {
            let mut writer = PageWriter::new(scratch, &mut pages);
            for edit in edits {
                writer.write(edit);
            }
            writer.finish();
            before.extend(edits.iter().map(|_| None));
        }
        for (i, page) in old.iter().enumerate() {
            let count = match old.get(i + 1) {
                Some(next) if !rest.is_empty() => {
                    let bound = next.first_place(sorting);
                    rest.partition_point(|edit| edit.place < bound)
                }
                _ => rest.len(),
            };
            let (here, later) = rest.split_at(count);
            rest = later;
            if here.is_empty() {
                pages.push(page.clone());
            } else {
                page.apply(here, sorting, &mut PageWriter::new(scratch, &mut pages), before);
            }
        }
        self.pages = join_small(pages, scratch);
    }
}

/// Joins small pages with their neighbours.
fn join_small(pages: Vec<Page>, scratch: &mut Scratch) -> Vec<Page> {
    if pages.windows(2).all(|pair| !pair[0].should_join(&pair[1])) {
        return pages;
    }
    let mut joined: Vec<Page> = Vec::with_capacity(pages.len());
    for page in pages {
        match joined.pop_if(|last| last.should_join(&page)) {
            Some(last) => {
                let mut writer = PageWriter::new(scratch, &mut joined);
                writer.copy(&last, 0, last.len());
                writer.copy(&page, 0, page.len());
                writer.finish();
            }
            None => joined.push(page),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::page::{NewValue, PAGE_TARGET_BYTES};

    fn gauge() -> Description {
        Description {
            name: "x".into(),
            metric_type: MetricType::Gauge,
            help: "two\nlines \\".into(),
            unit: "".into(),
        }
    }

    fn edits(labels: &[String], alive: bool) -> Vec<Edit<'_>> {
        labels
            .iter()
            .map(|labels| Edit {
                place: Arrangement::Plain.place(b"x", b"x", labels.as_bytes()),
                name: b"x",
                labels: labels.as_bytes(),
                state: alive.then_some((NewValue::Float(1.0), 0)),
            })
            .collect()
    }

    #[test]
    fn the_header_is_escaped_and_leaves_out_an_empty_help() {
        let mut description = gauge();
        assert_eq!(description.text_header(), "# HELP x two\\nlines \\\\\n# TYPE x gauge\n");
        description.help = "".into();
        assert_eq!(description.text_header(), "# TYPE x gauge\n");
    }

    #[test]
    fn small_pages_do_not_pile_up() {
        let labels: Vec<_> = (0..20_000).map(|i| format!("a=\"{i:06}\"")).collect();
        let mut scratch = Scratch::default();
        let mut family = Family::described(gauge(), &mut scratch);
        family.apply(&edits(&labels, true), &mut scratch, &mut Vec::new());
        let full = family.pages.len();
        let gone: Vec<_> = labels.iter().filter(|l| !l.ends_with("7\"")).cloned().collect();
        let mut before = Vec::new();
        for part in gone.chunks(100) {
            family.apply(&edits(part, false), &mut scratch, &mut before);
        }
        assert!(before.iter().all(Option::is_some));
        assert_eq!(family.lines().count(), 2000);
        let bytes: usize = family.pages.iter().map(|p| p.text.len()).sum();
        assert!(family.pages.len() <= 2 * bytes / PAGE_TARGET_BYTES + 2);
        assert!(family.pages.len() < full);
    }
}
