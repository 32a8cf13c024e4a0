//! Gathers the updates of a body, and what is wrong with them.
//!
//! Invariant: what the updates take in memory is covered by the share of their body, but for the last few.

use super::wire::WireUpdate;
use super::{Numbered, ParsedUpdates, UpdateFormat, UpdateSource};
use crate::engine::aggregates::{UpdateError, UpdateReader};
use crate::http::body::Share;
use crate::http::problem::{Code, Problem, ProblemPart};
use crate::model::aggregates::{ProducerSequence, Update};

/// The most invalid updates that a problem points at.
const MAX_REPORTED: usize = 100;

/// After so many more bytes of updates, what they take is covered.
const COVERED_BYTES: usize = 1 << 20;

/// Gathers updates and errors.
pub(super) struct Builder<'r> {
    reader: &'r UpdateReader,
    max_updates: usize,
    share: Share,
    body_bytes: usize,
    /// What the updates take, and how much of that is covered.
    held_bytes: usize,
    covered_bytes: usize,
    /// All updates, also the invalid ones.
    count: usize,
    updates: Vec<Update>,
    lines: Vec<u32>,
    errors: Vec<ProblemPart>,
    total_errors: usize,
    /// Why reading was stopped.
    pub(super) stopped: Option<Problem>,
}

impl<'r> Builder<'r> {
    /// Begins without updates. `share` covers the body.
    pub(super) fn new(
        reader: &'r UpdateReader,
        max_updates: usize,
        share: Share,
        body_bytes: usize,
    ) -> Self {
        Self {
            reader,
            max_updates,
            share,
            body_bytes,
            held_bytes: 0,
            covered_bytes: 0,
            count: 0,
            updates: Vec::new(),
            lines: Vec::new(),
            errors: Vec::new(),
            total_errors: 0,
            stopped: None,
        }
    }

    /// Adds an update, or notes why it is not valid.
    ///
    /// # Errors
    /// When nothing more may be read.
    pub(super) fn add(&mut self, wire: WireUpdate<'_>, line: Option<u32>) -> Result<(), Problem> {
        let index = self.count;
        self.count_one()?;
        let pointer = |field: &str| match line {
            Some(line) => format!("line {line}"),
            None => format!("/updates/{index}/{field}"),
        };
        let read = wire.parse().and_then(|new| self.reader.read(new));
        match read {
            Ok(update) => {
                self.hold(&update)?;
                self.updates.push(update);
                self.lines.extend(line);
            }
            Err(UpdateError::Invalid { field, why }) => {
                let detail = if line.is_some() { format!("{field}: {why}") } else { why.0 };
                self.fail(pointer(field), detail);
            }
            Err(UpdateError::NoDeduplication) => return Err(no_deduplication(pointer("event_id"))),
        }
        Ok(())
    }

    pub(super) fn count_one(&mut self) -> Result<(), Problem> {
        self.count += 1;
        if self.count <= self.max_updates {
            return Ok(());
        }
        let limit = self.max_updates;
        Err(Problem::new(Code::TooManyUpdates)
            .detail(format!("a merge has at most {limit} updates")))
    }

    /// Covers what an update takes in memory.
    fn hold(&mut self, update: &Update) -> Result<(), Problem> {
        let state = self.reader.state_bytes(update);
        self.held_bytes += size_of::<Update>() + update.entity.as_str().len() + state;
        if self.held_bytes >= self.covered_bytes {
            self.covered_bytes = self.held_bytes + COVERED_BYTES;
            self.share.cover_reading(self.body_bytes, self.covered_bytes)?;
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, pointer: String, detail: String) {
        self.total_errors += 1;
        if self.errors.len() < MAX_REPORTED {
            self.errors.push(ProblemPart { pointer, detail });
        }
    }

    pub(super) fn finish(
        mut self,
        format: UpdateFormat,
        bytes: bytes::Bytes,
        numbered: Numbered,
    ) -> Result<ParsedUpdates, Problem> {
        let sequence = self.sequence(numbered)?;
        if self.total_errors > 0 {
            let total = self.total_errors;
            return Err(Problem::new(Code::InvalidUpdates)
                .detail(format!("{total} updates are invalid; nothing was changed"))
                .parts(self.errors, total));
        }
        let source = UpdateSource { format, bytes, lines: self.lines };
        Ok(ParsedUpdates { updates: self.updates, sequence, source, share: self.share })
    }

    fn sequence(&mut self, numbered: Numbered) -> Result<Option<ProducerSequence>, Problem> {
        let (producer, seq) = match (numbered.producer, numbered.seq) {
            (None, None) => return Ok(None),
            (Some(producer), Some(seq)) => (producer, seq),
            _ => return Err(Problem::invalid("producer and seq need each other")),
        };
        self.reader.sequence(&producer, seq).map(Some).map_err(|error| match error {
            UpdateError::Invalid { field, why } => Problem::invalid_at(&format!("/{field}"), &why),
            UpdateError::NoDeduplication => no_deduplication("/producer".to_owned()),
        })
    }
}

fn no_deduplication(pointer: String) -> Problem {
    let meaning = Code::NoDeduplication.meaning();
    Problem::new(Code::NoDeduplication).detail(meaning).at(pointer, meaning)
}
