//! Reading changes: from all shards at the same time, in pieces.
//!
//! Invariant: a reader that goes on where it was told to sees every change; where a deletion may have
//! been forgotten behind its back it is told that its place is gone.

use futures_util::future::try_join_all;

use super::super::link::Weight;
use super::Inner;
use super::scripts::Words;
use crate::model::cursor::Cursor;
use crate::store::{StoreError, StoreResult};

/// The most series that one script reads: it keeps Redis busy for some tens of milliseconds.
pub(super) const PIECE_SERIES: usize = 65_536;

/// A place in the order of changes of every shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epochs: Vec<u64>,
    pub(super) seqs: Vec<u64>,
}

impl Place {
    /// Returns the place as a cursor.
    pub(super) fn cursor(&self) -> Cursor {
        let mut hasher = blake3::Hasher::new();
        for epoch in &self.epochs {
            hasher.update(&epoch.to_le_bytes());
        }
        let mut head = [0; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Cursor { epoch: u64::from_le_bytes(head), seqs: self.seqs.clone() }
    }
}

/// A part of the changes: records that lie one behind the other, in buffers.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) records: usize,
    pub(super) buffers: Vec<Vec<u8>>,
}

/// Reads what changed, step by step, up to the newest change at the first step.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    inner: &'a Inner,
    /// Knows no series yet, and needs no deletions.
    fresh: bool,
    /// Where each shard was read to.
    next: Vec<u64>,
    /// Up to where each shard is read; empty before the first step.
    heads: Vec<u64>,
    epochs: Vec<u64>,
    more: Vec<bool>,
}

impl<'a> Reader<'a> {
    /// Starts to read all live series.
    pub(super) fn fresh(inner: &'a Inner) -> Self {
        Self::start(inner, true, vec![0; inner.shards.count()])
    }

    /// Starts to read what changed behind a place, which has a number for each shard.
    pub(super) fn after(inner: &'a Inner, seqs: Vec<u64>) -> Self {
        Self::start(inner, false, seqs)
    }

    fn start(inner: &'a Inner, fresh: bool, next: Vec<u64>) -> Self {
        let more = vec![true; next.len()];
        Self { inner, fresh, next, heads: Vec::new(), epochs: Vec::new(), more }
    }

    /// Returns whether there is more to read.
    pub(super) fn more(&self) -> bool {
        self.more.contains(&true)
    }

    /// Returns where it was read to.
    pub(super) fn place(&self) -> Place {
        Place { epochs: self.epochs.clone(), seqs: self.next.clone() }
    }

    /// Reads at most `limit` series more; `None` when the place is gone.
    ///
    /// # Errors
    /// When a shard can't be read; nothing was read then.
    pub(super) async fn step(&mut self, limit: usize) -> StoreResult<Option<Piece>> {
        let first = self.heads.is_empty();
        // The first step asks all shards, since it learns their epochs.
        let wanted: Vec<usize> = (0..self.next.len()).filter(|shard| self.more[*shard]).collect();
        let share = |index: usize| {
            let part = limit / wanted.len().max(1);
            (part + usize::from(index < limit % wanted.len().max(1))).min(PIECE_SERIES)
        };
        let asked = wanted.iter().enumerate().map(|(index, shard)| (*shard, share(index)));
        let asked = asked.filter(|(_, share)| first || *share > 0);
        let this = &*self;
        let answers = try_join_all(asked.map(|(shard, share)| this.read(shard, share))).await?;
        let Some(answers) = answers.into_iter().collect::<Option<Vec<Answer>>>() else {
            return Ok(None);
        };
        let mut piece = Piece::default();
        if first {
            self.heads = answers.iter().map(|answer| answer.head).collect();
            self.epochs = answers.iter().map(|answer| answer.epoch).collect();
        }
        for answer in answers {
            if self.epochs[answer.shard] != answer.epoch {
                return Ok(None);
            }
            self.next[answer.shard] = answer.next;
            self.more[answer.shard] = answer.more;
            piece.records += answer.records;
            piece.buffers.extend(answer.buffers);
        }
        Ok(Some(piece))
    }

    async fn read(&self, shard: usize, limit: usize) -> StoreResult<Option<Answer>> {
        let head = self.heads.get(shard).map_or(String::new(), u64::to_string);
        let mode = match (self.fresh, self.heads.is_empty()) {
            (false, _) => "log",
            (true, true) => "fresh",
            (true, false) => "fresh more",
        };
        let arguments = |command: &mut redis::Cmd| {
            command.arg(self.next[shard]).arg(&head).arg(limit).arg(mode);
        };
        let script = &self.inner.scripts.delta;
        // Small reads don't wait behind large ones.
        let weight = if limit <= 1000 { Weight::Light } else { Weight::Heavy };
        let answer = self.inner.run(shard, weight, script, arguments).await?;
        Answer::read(shard, answer.value)
    }
}

/// What one shard answered.
#[derive(Debug)]
struct Answer {
    shard: usize,
    epoch: u64,
    head: u64,
    next: u64,
    more: bool,
    records: usize,
    buffers: Vec<Vec<u8>>,
}

impl Answer {
    /// Takes an answer apart; `None` when the place is gone.
    fn read(shard: usize, value: redis::Value) -> StoreResult<Option<Self>> {
        let mut words = Words::of(value)?;
        let epoch = words.epoch()?;
        let head = words.text()?;
        if head == "gone" {
            return Ok(None);
        }
        let head = head.parse().map_err(|error| super::scripts::strange(&error))?;
        let (next, more): (u64, u8) = (words.number()?, words.number()?);
        let records = words.number()?;
        let buffers: Result<Vec<Vec<u8>>, StoreError> = words.buffers().collect();
        Ok(Some(Self { shard, epoch, head, next, more: more == 1, records, buffers: buffers? }))
    }
}
