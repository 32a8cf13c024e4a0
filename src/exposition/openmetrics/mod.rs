//! The exposition in OpenMetrics 1.0.
//!
//! OpenMetrics forbids much that the text format allows and that writers push: a counter without
//! `_total`, a histogram without `+Inf`, a negative sum. A family that breaks a rule of its type is
//! shown as families of type `unknown`, one for each sample name, with the same samples: no sample is
//! ever omitted because of its type. The rules are in [`types`].
//! Invariant: a strict parser accepts the exposition.

#[cfg(test)]
mod tests;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use self::types::{OpenMetricsType, allowed_type};
use super::chunks::{ChunkCache, Content, Exposition, RenderedPage, is_chunk_boundary};
use super::family::Family;
use super::family::line::{LabelSplit, LineParts, parse_bound, write_key};
use super::family::page::{PAGE_TARGET_BYTES, Scratch};
use crate::model::number::canonical_bound;

/// The last line of an exposition.
pub(super) const EOF_LINE: &[u8] = b"# EOF\n";

/// Renders expositions, and reuses what did not change since the last one.
#[derive(Debug, Default)]
pub(super) struct OpenMetrics {
    families: HashMap<Arc<str>, CachedFamily>,
    chunks: ChunkCache,
    scratch: Scratch,
}

/// A family as it was rendered.
#[derive(Debug)]
struct CachedFamily {
    /// The version of the family.
    version: u64,
    /// The type that its own samples allow.
    allowed: OpenMetricsType,
    /// The type that `pages` are rendered with; `None` before the first time. It differs from `allowed` as long
    /// as another family reserves the same names.
    rendered_as: Option<OpenMetricsType>,
    pages: Vec<RenderedPage>,
}

impl OpenMetrics {
    /// Renders `families`, without the last line.
    pub(super) fn render(&mut self, families: &[Arc<Family>]) -> Exposition {
        // 1. Keep what is cached of families that did not change; check the rules of the others.
        let mut cached = std::mem::take(&mut self.families);
        for family in families {
            let entry = match cached.remove(&family.header.name) {
                Some(entry) if entry.version == family.version => entry,
                _ => CachedFamily {
                    version: family.version,
                    allowed: allowed_type(family),
                    rendered_as: None,
                    pages: Vec::new(),
                },
            };
            self.families.insert(Arc::clone(&family.header.name), entry);
        }
        // 2. Whether names conflict depends on all families, so that types are decided for all of them.
        let types = self.resolve_conflicts(families);
        // 3. Render families that are new, have changed, or have another type than before.
        let mut pages = Vec::new();
        for (family, metric_type) in families.iter().zip(types) {
            let Some(entry) = self.families.get_mut(&family.header.name) else { continue };
            if entry.rendered_as != Some(metric_type) {
                entry.pages = render_family(family, metric_type, &mut self.scratch);
                entry.rendered_as = Some(metric_type);
            }
            pages.extend_from_slice(&entry.pages);
        }
        self.chunks.assemble(&pages).0
    }

    /// Returns the type of each family. A family that reserves a name which another one reserves as well
    /// becomes unknown: then it needs only the names of its samples, which no other family has.
    fn resolve_conflicts(&self, families: &[Arc<Family>]) -> Vec<OpenMetricsType> {
        let allowed = |family: &Arc<Family>| {
            let entry = self.families.get(&family.header.name);
            entry.map_or(OpenMetricsType::Unknown, |entry| entry.allowed)
        };
        let mut claims: HashMap<String, usize> = HashMap::new();
        for family in families {
            for name in allowed(family).reserved(family) {
                *claims.entry(name).or_default() += 1;
            }
        }
        let conflicts = |metric_type: OpenMetricsType, family: &Family| {
            let mut names = metric_type.reserved(family).into_iter();
            names.any(|name| claims.get(&name).is_some_and(|&n| n > 1))
        };
        families
            .iter()
            .map(|family| match allowed(family) {
                metric_type if metric_type.has_no_rules() => metric_type,
                metric_type if conflicts(metric_type, family) => OpenMetricsType::Unknown,
                metric_type => metric_type,
            })
            .collect()
    }
}

fn render_family(
    family: &Family,
    metric_type: OpenMetricsType,
    scratch: &mut Scratch,
) -> Vec<RenderedPage> {
    let mut pages = match metric_type {
        OpenMetricsType::Histogram => canonical_pages(family, b"le", scratch),
        OpenMetricsType::Summary => canonical_pages(family, b"quantile", scratch),
        OpenMetricsType::Unknown if family.header.line_order().has_several_names() => {
            return render_by_name(family, scratch);
        }
        // The lines are the same as in the text format: the pages are shared, under ids of their own.
        _ => family.pages.iter().map(|page| rendered_page(page.text.clone(), scratch)).collect(),
    };
    let header = header_text(family, metric_type.family_name(family.name()), metric_type);
    if let Some(first) = pages.first_mut() {
        first.header = Some(Content { id: scratch.next_id(), bytes: header });
    }
    if let Some(last) = pages.last_mut() {
        last.boundary = is_chunk_boundary(family.name());
    }
    pages
}

fn rendered_page(text: Bytes, scratch: &mut Scratch) -> RenderedPage {
    let text = Content { id: scratch.next_id(), bytes: text };
    RenderedPage { header: None, text, boundary: false }
}

/// Renders each sample name of a family as a family of type unknown.
fn render_by_name(family: &Family, scratch: &mut Scratch) -> Vec<RenderedPage> {
    // The names alternate from line to line; there are at most four of them.
    let mut by_name: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for (line, _) in family.lines() {
        let name = LineParts::parse(line).name;
        let at = by_name.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
            by_name.push((name, Vec::new()));
            by_name.len() - 1
        });
        by_name[at].1.extend_from_slice(line);
        by_name[at].1.push(b'\n');
    }
    let boundary = is_chunk_boundary(family.name());
    by_name
        .into_iter()
        .map(|(name, text)| {
            let name = String::from_utf8_lossy(name);
            let header = header_text(family, &name, OpenMetricsType::Unknown);
            RenderedPage {
                header: Some(Content { id: scratch.next_id(), bytes: header }),
                boundary,
                ..rendered_page(text.into(), scratch)
            }
        })
        .collect()
}

/// Returns the `# HELP`, `# TYPE` and `# UNIT` lines of a family under this name.
fn header_text(family: &Family, name: &str, metric_type: OpenMetricsType) -> Bytes {
    let mut out = String::new();
    let header = &family.header;
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

/// Renders the lines with the bound of each in its canonical form. `label` is `le` or `quantile`.
fn canonical_pages(family: &Family, label: &[u8], scratch: &mut Scratch) -> Vec<RenderedPage> {
    let mut pages = Vec::new();
    let mut text = Vec::with_capacity(PAGE_TARGET_BYTES + 1024);
    let mut finish_page = |text: &mut Vec<u8>| {
        if !text.is_empty() {
            pages.push(rendered_page(Bytes::copy_from_slice(text), scratch));
            text.clear();
        }
    };
    for (line, _) in family.lines() {
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
        if text.len() >= PAGE_TARGET_BYTES {
            finish_page(&mut text);
        }
    }
    finish_page(&mut text);
    pages
}
