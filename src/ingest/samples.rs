//! Reads the lines of the text formats, one sample or one fact about a family each.
//!
//! What differs between the formats, they pass in: the naming of families, and what follows
//! a sample's labels.
//! Invariant: a name equal to that of the line before is neither checked nor looked up again.

use super::families::{Families, Naming};
use super::lexer::{self, LabelScratch, Labels};
use super::lines::Lines;
use super::sink::Sink;
use super::{InputLimits, ParseError, ParsedBatch};
use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, Position};
use crate::model::series::{MetricType, canonicalize, check_metric_name};
use crate::model::time::Timestamp;

/// What follows a sample's labels.
pub(super) type ReadTail = fn(&str) -> Result<(f64, Option<Timestamp>), Invalid>;

/// A text body that is being read.
pub(super) struct SampleReader<'a> {
    sink: Sink,
    families: Families<'a>,
    scratch: LabelScratch<'a>,
    read_tail: ReadTail,
    /// The name of the sample before, valid, and what was found for it; empty at first.
    name: &'a str,
    metadata: Option<MetadataIndex>,
}

impl<'a> SampleReader<'a> {
    /// Makes a reader of `body` without reading it.
    pub(super) fn new(
        body: &[u8],
        limits: &InputLimits,
        naming: Naming,
        read_tail: ReadTail,
    ) -> Self {
        Self {
            // Names and labels are a part of the body: it is never more.
            sink: Sink::new(limits, body.len()),
            families: Families::new(naming),
            scratch: LabelScratch::default(),
            read_tail,
            name: "",
            metadata: None,
        }
    }

    /// Returns every line of `body` to `read_line`, and notes what it refuses.
    pub(super) fn read(
        mut self,
        body: &'a [u8],
        mut read_line: impl FnMut(&mut Self, usize, &'a str) -> Result<(), LineError>,
    ) -> Result<Self, ParseError> {
        for (number, line) in Lines::new(body) {
            let read = match line {
                Some(line) => read_line(&mut self, number, line),
                None => Err(Invalid::new("not UTF-8").into()),
            };
            match read {
                Ok(()) => {}
                Err(LineError::Invalid(why)) => self.refuse(number, why),
                Err(LineError::TooMany(error)) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Notes why a line is refused.
    pub(super) fn refuse(&mut self, line: usize, why: Invalid) {
        self.sink.refuse(Position::Line(line), why);
    }

    /// Returns the batch, or all that was refused.
    pub(super) fn finish(self) -> Result<ParsedBatch, ParseError> {
        self.sink.finish()
    }

    /// Reads a line that holds a sample, from the first byte of its name.
    pub(super) fn sample(&mut self, number: usize, line: &'a str) -> Result<(), LineError> {
        self.sink.admit()?;
        let (name, rest) = lexer::metric_name(line, self.name);
        if name != self.name || name.is_empty() {
            self.enter_family(name, line)?;
        }
        let (labels, rest) = match rest.as_bytes().first() {
            Some(b' ' | b'\t') => match lexer::skip_blanks(rest).strip_prefix('{') {
                Some(labels) => self.labels(labels)?,
                None => (Labels::Canonical(""), rest),
            },
            Some(b'{') => self.labels(&rest[1..])?,
            _ => return Err(lexer::unexpected("`{` or a blank after the name", rest).into()),
        };
        let (value, at) = (self.read_tail)(lexer::skip_blanks(rest))?;
        let parsed = &mut self.sink.parsed;
        let index = parsed.batch.len();
        match labels {
            Labels::Canonical(labels) => {
                parsed.batch.push(name, labels, value, at, self.metadata);
            }
            Labels::Loose => {
                let limits = &self.sink.limits.point;
                let pairs = &mut self.scratch.pairs;
                let write = |out: &mut String| canonicalize(pairs, limits, out);
                parsed.batch.push_with(name, value, at, self.metadata, write)?;
            }
        }
        parsed.positions.add_line(index, number);
        Ok(())
    }

    fn labels(&mut self, text: &'a str) -> Result<(Labels<'a>, &'a str), Invalid> {
        lexer::labels(text, &self.sink.limits.point, &mut self.scratch)
    }

    /// Checks the name and finds its family.
    fn enter_family(&mut self, name: &'a str, line: &str) -> Result<(), Invalid> {
        if name.is_empty() {
            return Err(lexer::unexpected("a metric name", line));
        }
        check_metric_name(name, &self.sink.limits.point)?;
        self.metadata = self.families.metadata_of(name, &mut self.sink.parsed.batch);
        self.name = name;
        Ok(())
    }

    /// Reads what follows `TYPE` on its line.
    pub(super) fn type_line(&mut self, name: &'a str, word: &str) -> Result<(), Invalid> {
        self.family_line(name)?;
        let metric_type = MetricType::parse(word).ok_or_else(|| {
            let word: String = word.chars().take(64).collect();
            Invalid::new(format!("{word:?} is not a metric type"))
        })?;
        self.families.set_type(name, metric_type)
    }

    /// Takes the unescaped text of a `HELP` line.
    pub(super) fn help_line(&mut self, name: &'a str, help: &str) -> Result<(), Invalid> {
        self.family_line(name)?;
        let limit = self.sink.limits.point.help_bytes;
        if help.len() > limit {
            return Err(Invalid::new(format!("a help text of more than {limit} bytes")));
        }
        self.families.set_help(name, help, &mut self.sink.parsed.batch)
    }

    /// Reads what follows `UNIT` on its line.
    pub(super) fn unit_line(&mut self, name: &'a str, unit: &str) -> Result<(), Invalid> {
        self.family_line(name)?;
        if !unit.is_empty() && name.strip_suffix(unit).is_none_or(|base| !base.ends_with('_')) {
            return Err(Invalid::new("a unit that its family's name does not end with"));
        }
        self.families.set_unit(name, unit)
    }

    /// Begins a line about a family. What was found for the sample before may change by it.
    fn family_line(&mut self, name: &str) -> Result<(), Invalid> {
        self.name = "";
        check_metric_name(name, &self.sink.limits.point)
    }
}

/// Why a line was not taken.
pub(super) enum LineError {
    /// It is refused; the next lines are still read.
    Invalid(Invalid),
    /// It is one too many; nothing more is read.
    TooMany(ParseError),
}

impl From<Invalid> for LineError {
    fn from(why: Invalid) -> Self {
        Self::Invalid(why)
    }
}

impl From<ParseError> for LineError {
    fn from(error: ParseError) -> Self {
        Self::TooMany(error)
    }
}
