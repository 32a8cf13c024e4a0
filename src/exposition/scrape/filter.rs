//! A scrape of the series that selectors match, read from the rendered text.
//!
//! Not a rendering of its own: every line, and the type of its family, is as the whole page shows it. In OpenMetrics a
//! histogram, summary or counter of which the selectors match only a part is shown as families of type `unknown`, one
//! for each name, since its type needs the other lines.
//! Invariant: the work and the memory of a step are bounded, however many series there are; all steps read the text of
//! one refresh.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::text::{Position, Text};
use super::{Format, RenderFailed};
use crate::exposition::chunks::gzip::{Checksum, Compressor, HEADER};
use crate::exposition::family::line::{LabelSplit, LineParts};
use crate::model::selector::Selector;

/// How much text a step makes, in bytes; its last line may exceed that.
pub(super) const STEP_BYTES: usize = 64 << 10;

/// How much text a step reads at most, in bytes.
const STEP_READ_BYTES: usize = 4 << 20;

/// What a response takes in memory while it is sent: the text of a step, and the same compressed, one of them twice.
pub const FILTERING_BYTES: usize = 4 * STEP_BYTES;

/// The rest of a filtered response.
pub struct FilteredScrape {
    turns: Arc<Semaphore>,
    selectors: Vec<Selector>,
    text: Text,
    format: Format,
    gzip: Option<Gzip>,
    at: Position,
    section: Section,
    /// The name of the last line that was looked at, and whether a selector can match it.
    last_name: (Vec<u8>, bool),
    ended: bool,
}

/// The state of a compressed response.
#[derive(Default)]
struct Gzip {
    checksum: Checksum,
    plain_bytes: u64,
    begun: bool,
}

/// The family that is read.
#[derive(Default)]
struct Section {
    /// Its header lines.
    header: Vec<u8>,
    /// Its first line behind them.
    start: Position,
    kind: Kind,
    pass: Pass,
    /// Whether the header was written in this pass.
    shown: bool,
    /// The names of the lines that match. Of a family that is checked only: there are at most five.
    names: Vec<Vec<u8>>,
    group: Group,
    /// Whether a group matches in part.
    is_cut: bool,
}

/// What the lines of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    /// Lines of one name, each by itself.
    Single,
    /// Lines of several names, each by itself.
    #[default]
    Several,
    /// Groups of lines that belong together; their labels are the same except for this one.
    Groups(&'static [u8]),
}

/// What is done with the lines of a family. A family of groups is read several times.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Pass {
    /// Looks whether its groups match as a whole.
    Check,
    /// Shows the lines that match.
    #[default]
    Show,
    /// Shows those with the name at this index as a family of its own.
    ShowName(usize),
}

/// Neighbouring lines of one group.
#[derive(Default)]
struct Group {
    labels: Vec<u8>,
    has_match: bool,
    has_other: bool,
}

impl FilteredScrape {
    pub(super) fn new(
        turns: Arc<Semaphore>,
        selectors: Vec<Selector>,
        text: Text,
        format: Format,
        gzip: bool,
    ) -> Self {
        Self {
            turns,
            selectors,
            text,
            format,
            gzip: gzip.then(Gzip::default),
            at: Position::default(),
            section: Section::default(),
            last_name: (Vec::new(), false),
            ended: false,
        }
    }

    /// Makes the next part of the response, off the async threads, and returns it with what is left; `None` at the end.
    ///
    /// # Errors
    /// When that panics: a defect of ours.
    pub async fn next(mut self) -> Result<Option<(Bytes, Self)>, RenderFailed> {
        while !self.ended {
            // Steps of all filtered scrapes take turns. The semaphore is never closed.
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let step = move || {
                let part = self.step();
                drop(turn);
                (part, self)
            };
            let (part, rest) = tokio::task::spawn_blocking(step).await.map_err(RenderFailed)?;
            if !part.is_empty() {
                return Ok(Some((part, rest)));
            }
            self = rest;
        }
        Ok(None)
    }

    /// Makes a part, which may be empty.
    fn step(&mut self) -> Bytes {
        let mut out = Vec::new();
        let mut read = 0;
        while !self.ended && out.len() < STEP_BYTES && read < STEP_READ_BYTES {
            read += self.read_line(&mut out);
        }
        if self.ended {
            out.extend_from_slice(self.format.last_line());
        }
        match &mut self.gzip {
            Some(gzip) => gzip.compress(&out, self.ended),
            None => out.into(),
        }
    }

    /// Reads one line, or skips the rest of a family. Returns how many bytes were read.
    fn read_line(&mut self, out: &mut Vec<u8>) -> usize {
        let Some((line, next)) = self.text.line(self.at) else {
            if !self.begin_next_pass() {
                self.ended = true;
            }
            return 0;
        };
        if line.starts_with(b"#") {
            if self.begin_next_pass() {
                return 0;
            }
            return self.read_header();
        }
        self.at = next;
        let parts = LineParts::parse(line);
        if self.last_name.0 != parts.name {
            let name = str::from_utf8(parts.name).unwrap_or_default();
            let can_match = self.selectors.iter().any(|selector| selector.matches_name(name));
            self.last_name = (parts.name.to_vec(), can_match);
        }
        if !self.last_name.1 && self.section.kind == Kind::Single {
            let (found, skipped) = self.text.next_header(next);
            self.at = found;
            return line.len() + skipped;
        }
        let matches = self.last_name.1 && is_selected(&self.selectors, &parts);
        self.section.take(line, &parts, matches, out);
        line.len() + 1
    }

    /// Reads the header of a family, from its first line on. Returns how many bytes were read.
    fn read_header(&mut self) -> usize {
        let mut section = Section::default();
        while let Some((line, next)) = self.text.line(self.at).filter(|(l, _)| l.starts_with(b"#"))
        {
            if let Some(kind) = kind_of(line, self.format) {
                section.kind = kind;
            }
            section.header.extend_from_slice(line);
            section.header.push(b'\n');
            self.at = next;
        }
        let read = section.header.len();
        section.start = self.at;
        if matches!(section.kind, Kind::Groups(_)) {
            section.pass = Pass::Check;
        }
        self.section = section;
        read
    }

    /// Goes back to the start of the family if it has to be read again; returns whether it has.
    fn begin_next_pass(&mut self) -> bool {
        let section = &mut self.section;
        section.end_group();
        let next = match section.pass {
            Pass::Check if section.names.is_empty() => None,
            Pass::Check if section.is_cut => Some(Pass::ShowName(0)),
            Pass::Check => Some(Pass::Show),
            Pass::Show => None,
            Pass::ShowName(i) => (i + 1 < section.names.len()).then_some(Pass::ShowName(i + 1)),
        };
        let Some(next) = next else {
            section.pass = Pass::Show;
            return false;
        };
        (section.pass, section.shown) = (next, false);
        self.at = section.start;
        true
    }
}

impl Section {
    /// Takes a line of the family, which matches or not.
    fn take(&mut self, line: &[u8], parts: &LineParts<'_>, matches: bool, out: &mut Vec<u8>) {
        match self.pass {
            Pass::Check => self.check(parts, matches),
            Pass::Show if matches => {
                if !std::mem::replace(&mut self.shown, true) {
                    out.extend_from_slice(&self.header);
                }
                write_line(line, out);
            }
            Pass::ShowName(i) if matches && self.names[i] == parts.name => {
                if !std::mem::replace(&mut self.shown, true) {
                    write_header_of_unknown(&self.header, parts.name, out);
                }
                write_line(line, out);
            }
            Pass::Show | Pass::ShowName(_) => {}
        }
    }

    fn check(&mut self, parts: &LineParts<'_>, matches: bool) {
        let Kind::Groups(label) = self.kind else { return };
        let split = LabelSplit::at(parts.labels, label);
        let (before, after) = split.map_or((parts.labels, &b""[..]), |s| (s.before, s.after));
        let (head, tail) = self.group.labels.split_at(before.len().min(self.group.labels.len()));
        if (head, tail) != (before, after) {
            self.end_group();
            self.group.labels = [before, after].concat();
        }
        if matches && !self.names.iter().any(|name| name == parts.name) {
            self.names.push(parts.name.to_vec());
        }
        self.group.has_match |= matches;
        // A group may do without its created sample.
        self.group.has_other |= !matches && !parts.name.ends_with(b"_created");
    }

    fn end_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.is_cut |= group.has_match && group.has_other;
    }
}

impl Gzip {
    /// Compresses a part of the response. A part without text is empty, unless it is the last.
    fn compress(&mut self, plain: &[u8], is_last: bool) -> Bytes {
        let mut out = Vec::new();
        if !plain.is_empty() {
            let fragment = Compressor::default().compress(plain);
            self.checksum.add(&fragment);
            self.plain_bytes += fragment.plain_bytes;
            self.begin(&mut out);
            out.extend_from_slice(&fragment.bytes);
        }
        if is_last {
            self.begin(&mut out);
            out.extend_from_slice(&self.checksum.trailer(self.plain_bytes));
        }
        out.into()
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&HEADER);
        }
    }
}

pub(super) fn is_selected(selectors: &[Selector], parts: &LineParts<'_>) -> bool {
    let (Ok(name), Ok(labels)) = (str::from_utf8(parts.name), str::from_utf8(parts.labels)) else {
        return false;
    };
    selectors.iter().any(|selector| selector.matches(name, labels))
}

/// Returns what the lines behind a `# TYPE` line are; `None` for another line.
fn kind_of(line: &[u8], format: Format) -> Option<Kind> {
    let metric_type = line.strip_prefix(b"# TYPE ")?.rsplit(|&byte| byte == b' ').next()?;
    Some(match (format, metric_type) {
        (Format::OpenMetrics, b"histogram" | b"gaugehistogram") => Kind::Groups(b"le"),
        (Format::OpenMetrics, b"summary") => Kind::Groups(b"quantile"),
        // No label has an empty name: the lines of a group have the same labels.
        (Format::OpenMetrics, b"counter") => Kind::Groups(b""),
        (Format::Text, b"histogram" | b"summary") => Kind::Several,
        _ => Kind::Single,
    })
}

fn write_line(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Writes the header of the lines with one name of a family, which has `header`.
fn write_header_of_unknown(header: &[u8], name: &[u8], out: &mut Vec<u8>) {
    let help = header.strip_prefix(b"# HELP ").and_then(|rest| {
        rest.split(|&byte| byte == b'\n').next()?.splitn(2, |&byte| byte == b' ').nth(1)
    });
    if let Some(help) = help {
        write_line(&[b"# HELP ", name, b" ", help].concat(), out);
    }
    write_line(&[b"# TYPE ", name, b" unknown"].concat(), out);
}
