//! How a page of a family, and its header, are written in OpenMetrics.
//!
//! Not which type the family has. Invariant: the parts of a page have all of its samples.

use std::sync::Arc;

use bytes::Bytes;

use super::created::Joined;
use super::types::OpenMetricsType;
use crate::exposition::chunks::Content;
use crate::exposition::family::FamilyHeader;
use crate::exposition::family::line::{LabelSplit, LineParts, parse_bound, write_key};
use crate::exposition::family::page::{Page, Scratch};
use crate::model::number::canonical_bound;

/// The lines of a page, or those of one name among them.
#[derive(Debug)]
pub(super) struct Part {
    /// The name of all samples; empty where the page is not split.
    pub(super) name: Arc<str>,
    pub(super) text: Content,
}

/// Returns whether a family is shown as families of one name each, since it is not what its writers said.
pub(super) fn split_by_name(joined: &Joined, metric_type: OpenMetricsType) -> bool {
    let several = joined.family.header.line_order().has_several_names();
    metric_type == OpenMetricsType::Unknown && (several || joined.created.is_some())
}

/// Writes a page of a family as this type.
pub(super) fn render_page(
    family: &Joined,
    page: &Page,
    metric_type: OpenMetricsType,
    scratch: &mut Scratch,
) -> Vec<Part> {
    if split_by_name(family, metric_type) {
        return by_name(page, scratch);
    }
    let text = match metric_type {
        OpenMetricsType::Histogram => canonical(page, b"le"),
        OpenMetricsType::Summary => canonical(page, b"quantile"),
        // The lines are the same as in the text format: they are shared, under an id of their own.
        _ => page.text.clone(),
    };
    vec![Part { name: Arc::default(), text: Content { id: scratch.next_id(), bytes: text } }]
}

/// Sorts the lines by the names of their samples.
fn by_name(page: &Page, scratch: &mut Scratch) -> Vec<Part> {
    // The names alternate from line to line; there are at most four of them.
    let mut by_name: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for (line, _) in page.iter() {
        let name = LineParts::parse(line).name;
        let at = by_name.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
            by_name.push((name, Vec::new()));
            by_name.len() - 1
        });
        by_name[at].1.extend_from_slice(line);
        by_name[at].1.push(b'\n');
    }
    let part = |(name, text): (&[u8], Vec<u8>)| Part {
        name: String::from_utf8_lossy(name).into(),
        text: Content { id: scratch.next_id(), bytes: text.into() },
    };
    by_name.into_iter().map(part).collect()
}

/// Writes the lines with the bound of each in its canonical form. `label` is `le` or `quantile`.
fn canonical(page: &Page, label: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(page.text.len() + page.text.len() / 16);
    for (line, _) in page.iter() {
        let parts = LineParts::parse(line);
        match LabelSplit::at(parts.labels, label) {
            Some(split) => {
                let bound = canonical_bound(parse_bound(split.value));
                let (head, tail) = parts.labels.split_at(split.value_start);
                let labels = [head, bound.as_bytes(), &tail[split.value.len()..]].concat();
                write_key(parts.name, &labels, &mut text);
            }
            None => write_key(parts.name, parts.labels, &mut text),
        }
        text.push(b' ');
        text.extend_from_slice(parts.value);
        text.push(b'\n');
    }
    Bytes::copy_from_slice(&text)
}

/// Returns the `# HELP`, `# TYPE` and `# UNIT` lines of a family under this name.
pub(super) fn header_text(
    header: &FamilyHeader,
    name: &str,
    metric_type: OpenMetricsType,
) -> Bytes {
    let mut out = String::new();
    if !header.help.trim().is_empty() {
        let help = header.help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        out += &format!("# HELP {name} {help}\n");
    }
    out += &format!("# TYPE {name} {}\n", metric_type.as_str());
    // A unit is allowed only if the name ends with it.
    let unit = &*header.unit;
    let has_unit_suffix = name.strip_suffix(unit).is_some_and(|n| n.len() > 1 && n.ends_with('_'));
    if !unit.is_empty() && has_unit_suffix && metric_type.may_have_unit() {
        out += &format!("# UNIT {name} {unit}\n");
    }
    Bytes::from(out)
}
