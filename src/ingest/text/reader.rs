//! Reads the lines of the text formats: samples, and declarations of families.
//!
//! The formats pass in what differs between them: the naming of families, and the parser of what
//! follows the labels.
//! Invariant: a name equal to that of the line before is neither checked nor looked up again.

use super::families::{DeclaredFamilies, Naming};
use super::lexer::{self, LabelScratch, Labels};
use crate::ingest::batch_builder::{BatchBuilder, InputLimits, ParseError, ParsedBatch};
use crate::ingest::lines::Lines;
use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, Position};
use crate::model::series::{MetricType, canonicalize, check_metric_name};
use crate::model::time::Timestamp;

/// Parses what follows the labels of a sample: the value, and the timestamp if there is one.
pub(super) type ReadValue = fn(&str) -> Result<(f64, Option<Timestamp>), Invalid>;

/// A text body that is being parsed.
pub(super) struct TextReader<'a> {
    builder: BatchBuilder,
    families: DeclaredFamilies<'a>,
    scratch: LabelScratch<'a>,
    read_value: ReadValue,
    /// The name of the previous sample, which is valid, and its metadata; empty before the first sample and
    /// after each declaration.
    name: &'a str,
    metadata: Option<MetadataIndex>,
}

impl<'a> TextReader<'a> {
    /// Makes a reader with room for `body`.
    pub(super) fn new(
        body: &[u8],
        limits: &InputLimits,
        naming: Naming,
        read_value: ReadValue,
    ) -> Self {
        Self {
            // Names and labels are a part of the body, so this is always enough.
            builder: BatchBuilder::new(limits, body.len()),
            families: DeclaredFamilies::new(naming),
            scratch: LabelScratch::default(),
            read_value,
            name: "",
            metadata: None,
        }
    }

    /// Passes every line of `body` to `read_line`, and records its errors.
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
                Err(LineError::Invalid(why)) => self.add_error(number, why),
                Err(LineError::Fatal(error)) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Records the error of a line.
    pub(super) fn add_error(&mut self, line: usize, why: Invalid) {
        self.builder.add_error(Position::Line(line), why);
    }

    /// Returns the batch, or all errors.
    pub(super) fn finish(self) -> Result<ParsedBatch, ParseError> {
        self.builder.finish()
    }

    /// Reads a line with a sample; the line begins with its name.
    pub(super) fn sample(&mut self, number: usize, line: &'a str) -> Result<(), LineError> {
        self.builder.count_point()?;
        let (name, rest) = lexer::metric_name(line, self.name);
        if name != self.name || name.is_empty() {
            self.enter_name(name, line)?;
        }
        // Blanks may stand before the labels, and must stand before a value without labels.
        let (labels, rest) = match rest.as_bytes().first() {
            Some(b' ' | b'\t') => match lexer::skip_blanks(rest).strip_prefix('{') {
                Some(labels) => self.labels(labels)?,
                None => (Labels::Canonical(""), rest),
            },
            Some(b'{') => self.labels(&rest[1..])?,
            _ => return Err(lexer::unexpected("`{` or a blank after the name", rest).into()),
        };
        let (value, updated_at) = (self.read_value)(lexer::skip_blanks(rest))?;
        let parsed = &mut self.builder.parsed;
        let index = parsed.batch.len();
        match labels {
            Labels::Canonical(labels) => {
                parsed.batch.push(name, labels, value, updated_at, self.metadata);
            }
            Labels::Pairs => {
                let limits = &self.builder.limits.point;
                let pairs = &mut self.scratch.pairs;
                let write = |out: &mut String| canonicalize(pairs, limits, out);
                parsed.batch.push_with(name, value, updated_at, self.metadata, write)?;
            }
        }
        parsed.positions.add_line(index, number);
        Ok(())
    }

    fn labels(&mut self, text: &'a str) -> Result<(Labels<'a>, &'a str), Invalid> {
        lexer::labels(text, &self.builder.limits.point, &mut self.scratch)
    }

    /// Checks a new name and looks up the metadata of its family.
    fn enter_name(&mut self, name: &'a str, line: &str) -> Result<(), Invalid> {
        if name.is_empty() {
            return Err(lexer::unexpected("a metric name", line));
        }
        check_metric_name(name, &self.builder.limits.point)?;
        self.metadata = self.families.metadata_of(name, &mut self.builder.parsed.batch);
        self.name = name;
        Ok(())
    }

    /// Reads the name and the type of a `TYPE` line.
    pub(super) fn type_line(&mut self, name: &'a str, word: &str) -> Result<(), Invalid> {
        self.declaration(name)?;
        let metric_type = MetricType::parse(word)?;
        self.families.set_type(name, metric_type, &mut self.builder.parsed.batch)
    }

    /// Reads the name and the unescaped text of a `HELP` line.
    pub(super) fn help_line(&mut self, name: &'a str, help: &str) -> Result<(), Invalid> {
        self.declaration(name)?;
        let limit = self.builder.limits.point.help_bytes;
        if help.len() > limit {
            return Err(Invalid::new(format!("a help text of more than {limit} bytes")));
        }
        self.families.set_help(name, help, &mut self.builder.parsed.batch)
    }

    /// Reads the name and the unit of a `UNIT` line.
    pub(super) fn unit_line(&mut self, name: &'a str, unit: &str) -> Result<(), Invalid> {
        self.declaration(name)?;
        if !unit.is_empty() && name.strip_suffix(unit).is_none_or(|base| !base.ends_with('_')) {
            return Err(Invalid::new("the name of a family must end with `_` and its unit"));
        }
        self.families.set_unit(name, unit)
    }

    /// Begins a declaration. It may change the family of the previous sample's name, which is therefore
    /// forgotten.
    fn declaration(&mut self, name: &str) -> Result<(), Invalid> {
        self.name = "";
        check_metric_name(name, &self.builder.limits.point)
    }
}

/// Why a line was refused.
pub(super) enum LineError {
    /// The line is invalid; the next lines are still read.
    Invalid(Invalid),
    /// The whole body is refused; nothing more is read.
    Fatal(ParseError),
}

impl From<Invalid> for LineError {
    fn from(why: Invalid) -> Self {
        Self::Invalid(why)
    }
}

impl From<ParseError> for LineError {
    fn from(error: ParseError) -> Self {
        Self::Fatal(error)
    }
}
