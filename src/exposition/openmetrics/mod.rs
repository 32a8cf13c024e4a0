//! The page in OpenMetrics 1.0.
//!
//! OpenMetrics forbids much that the text format allows and that writers push: a counter without
//! `_total`, a histogram without `+Inf`, a negative sum. A family that breaks a rule of its
//! type is shown as families of type `unknown`, one per sample name, with the same samples: no
//! value is ever left out for the sake of a type. What is checked lies in [`super::forms`].
//! Invariant: the page is one that a strict parser takes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::{BlockCache, Piece, Rendered, is_border};
use super::family::Family;
use super::forms::{Form, judge};
use super::order::{LabelCut, LineParts, parse_number};
use super::page::{PAGE_TARGET_BYTES, Scratch, write_key};
use crate::model::number::canonical_bound;

/// The last line of a page.
pub(super) const EOF_LINE: &[u8] = b"# EOF\n";

/// Makes pages, and keeps what did not change from one to the next.
#[derive(Debug, Default)]
pub(super) struct OpenMetrics {
    families: HashMap<Arc<str>, Kept>,
    blocks: BlockCache,
    scratch: Scratch,
}

/// A family as it was rendered.
#[derive(Debug)]
struct Kept {
    version: u64,
    judged: Form,
    shown: Option<Form>,
    pieces: Vec<Piece>,
}

impl OpenMetrics {
    /// Makes the page of `families`, without its last line.
    pub(super) fn render(&mut self, families: &[Arc<Family>]) -> Rendered {
        let mut former = std::mem::take(&mut self.families);
        for family in families {
            let kept = match former.remove(&family.description.name) {
                Some(kept) if kept.version == family.version => kept,
                _ => Kept {
                    version: family.version,
                    judged: judge(family),
                    shown: None,
                    pieces: Vec::new(),
                },
            };
            self.families.insert(Arc::clone(&family.description.name), kept);
        }
        let shown = self.without_clashes(families);
        let mut pieces = Vec::new();
        for (family, form) in families.iter().zip(shown) {
            let Some(kept) = self.families.get_mut(&family.description.name) else { continue };
            if kept.shown != Some(form) {
                kept.pieces = render_family(family, form, &mut self.scratch);
                kept.shown = Some(form);
            }
            pieces.extend_from_slice(&kept.pieces);
        }
        self.blocks.assemble(&pieces).0
    }

    /// Returns the form of each family; one that reserves a name which another reserves, too, becomes
    /// unknown: what it then still needs are its samples' names, which nobody else has.
    fn without_clashes(&self, families: &[Arc<Family>]) -> Vec<Form> {
        let judged = |f: &Arc<Family>| {
            self.families.get(&f.description.name).map_or(Form::Unknown, |kept| kept.judged)
        };
        let mut claims: HashMap<String, usize> = HashMap::new();
        for family in families {
            for name in judged(family).reserved(family) {
                *claims.entry(name).or_default() += 1;
            }
        }
        let clashes = |form: Form, family: &Family| {
            form.reserved(family).iter().any(|name| claims.get(name).is_some_and(|&n| n > 1))
        };
        families
            .iter()
            .map(|family| {
                let form = judged(family);
                if form.is_simple() || !clashes(form, family) { form } else { Form::Unknown }
            })
            .collect()
    }
}

fn render_family(family: &Family, form: Form, scratch: &mut Scratch) -> Vec<Piece> {
    let mut pieces = match form {
        Form::Histogram => canonical_pages(family, b"le", scratch),
        Form::Summary => canonical_pages(family, b"quantile", scratch),
        Form::Unknown if family.description.arrangement().is_grouped() => {
            return apart(family, scratch);
        }
        _ => family
            .pages
            .iter()
            .map(|page| Piece {
                header: None,
                text: (scratch.next_id(), page.text.clone()),
                border: false,
            })
            .collect(),
    };
    let head = header(family, form.family_name(family.name()), form);
    if let Some(first) = pieces.first_mut() {
        first.header = Some((scratch.next_id(), head));
    }
    if let Some(last) = pieces.last_mut() {
        last.border = is_border(family.name());
    }
    pieces
}

/// Renders each sample name of a family as a family of type unknown.
fn apart(family: &Family, scratch: &mut Scratch) -> Vec<Piece> {
    let mut by_name: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for (line, _) in family.lines() {
        let name = LineParts::of(line).name;
        let at = by_name.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
            by_name.push((name, Vec::new()));
            by_name.len() - 1
        });
        by_name[at].1.extend_from_slice(line);
        by_name[at].1.push(b'\n');
    }
    let border = is_border(family.name());
    by_name
        .into_iter()
        .map(|(name, text)| {
            let head = header(family, &String::from_utf8_lossy(name), Form::Unknown);
            Piece {
                header: Some((scratch.next_id(), head)),
                text: (scratch.next_id(), text.into()),
                border,
            }
        })
        .collect()
}

fn header(family: &Family, name: &str, form: Form) -> Bytes {
    let mut out = String::new();
    let description = &family.description;
    if !description.help.trim().is_empty() {
        let help = description.help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        out += &format!("# HELP {name} {help}\n");
    }
    out += &format!("# TYPE {name} {}\n", form.type_word());
    let unit = &*description.unit;
    let named_so = name.strip_suffix(unit).is_some_and(|n| n.len() > 1 && n.ends_with('_'));
    if !unit.is_empty() && named_so && form.may_have_unit() {
        out += &format!("# UNIT {name} {unit}\n");
    }
    Bytes::from(out)
}

/// Copies the lines with every bound in its canonical form.
fn canonical_pages(family: &Family, label: &[u8], scratch: &mut Scratch) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = Vec::with_capacity(PAGE_TARGET_BYTES + 1024);
    let mut end = |text: &mut Vec<u8>| {
        if !text.is_empty() {
            let bytes = Bytes::copy_from_slice(text);
            pieces.push(Piece { header: None, text: (scratch.next_id(), bytes), border: false });
            text.clear();
        }
    };
    for (line, _) in family.lines() {
        let parts = LineParts::of(line);
        match LabelCut::of(parts.labels, label) {
            Some(cut) => {
                let bound = canonical_bound(parse_number(cut.value));
                let (head, tail) = parts.labels.split_at(cut.at);
                let labels = [head, bound.as_bytes(), &tail[cut.value.len()..]].concat();
                write_key(parts.name, &labels, &mut text);
            }
            None => write_key(parts.name, parts.labels, &mut text),
        }
        text.push(b' ');
        text.extend_from_slice(parts.value);
        text.push(b'\n');
        if text.len() >= PAGE_TARGET_BYTES {
            end(&mut text);
        }
    }
    end(&mut text);
    pieces
}

#[cfg(test)]
mod tests;
