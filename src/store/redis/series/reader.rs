//! Reading changes from all shards at the same time, in chunks.
//!
//! Invariant: a reader that continues from a position sees every later change; where a deletion after it
//! may have been forgotten, the reader learns that its position is gone.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::core::client::Traffic;
use super::super::core::replies::{ReplyReader, malformed};
use super::Inner;
use super::codec::{Interner, Records};
use super::scripts::DELTA;
use crate::model::cursor::Cursor;
use crate::store::{Change, StoreError, StoreResult};

/// The most series that one script reads: it keeps Redis busy for some milliseconds.
pub(super) const CHUNK_SERIES: usize = 2_048;

/// The most scripts of one reader that run at the same time: their replies share the connection, and each has to arrive
/// in time.
const MAX_IN_FLIGHT: usize = 4;

/// A position in the order of changes of every shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epochs: Vec<u64>,
    pub(super) seqs: Vec<u64>,
}

impl Position {
    /// Returns the position as a cursor.
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

/// Some changes: concatenated records, in buffers.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) records: usize,
    pub(super) buffers: Vec<Vec<u8>>,
}

/// Reads what changed, step by step, up to the newest change at the first step.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    inner: &'a Inner,
    /// The reader knows no series yet, so it needs no deletions.
    fresh: bool,
    /// The sequence number that each shard was read to.
    next: Vec<u64>,
    /// The sequence number that each shard is read to; empty before the first step, unless the caller set it.
    heads: Vec<u64>,
    /// Empty before the first step.
    epochs: Vec<u64>,
    more: Vec<bool>,
}

impl<'a> Reader<'a> {
    /// Starts to read all live series.
    pub(super) fn fresh(inner: &'a Inner) -> Self {
        Self::start(inner, true, vec![0; inner.shards.count()])
    }

    /// Starts to read what changed after a position, which has a sequence number for each shard.
    pub(super) fn after(inner: &'a Inner, seqs: Vec<u64>) -> Self {
        Self::start(inner, false, seqs)
    }

    fn start(inner: &'a Inner, fresh: bool, next: Vec<u64>) -> Self {
        let more = vec![true; next.len()];
        Self { inner, fresh, next, heads: Vec::new(), epochs: Vec::new(), more }
    }

    /// Ends the reading at these sequence numbers, instead of those of the first step.
    pub(super) fn read_up_to(&mut self, heads: Vec<u64>) {
        self.heads = heads;
    }

    /// Returns whether there is more to read.
    pub(super) fn more(&self) -> bool {
        self.more.contains(&true)
    }

    /// Returns the position that it was read to.
    pub(super) fn position(&self) -> Position {
        Position { epochs: self.epochs.clone(), seqs: self.next.clone() }
    }

    /// Returns the position that it is read to.
    pub(super) fn head(&self) -> Position {
        Position { epochs: self.epochs.clone(), seqs: self.heads.clone() }
    }

    /// Reads at most `limit` series more; `None` when the position is gone.
    ///
    /// # Errors
    /// When a shard can't be read; nothing was read then.
    pub(super) async fn step(&mut self, limit: usize) -> StoreResult<Option<Chunk>> {
        let first = self.epochs.is_empty();
        // The first step asks all shards, since it learns their epochs.
        let wanted: Vec<usize> = (0..self.next.len()).filter(|shard| self.more[*shard]).collect();
        let share = |index: usize| {
            let part = limit / wanted.len().max(1);
            (part + usize::from(index < limit % wanted.len().max(1))).min(CHUNK_SERIES)
        };
        let asked = wanted.iter().enumerate().map(|(index, shard)| (*shard, share(index)));
        let asked = asked.filter(|(_, share)| first || *share > 0);
        let this = &*self;
        let asked: Vec<(usize, usize)> = asked.collect();
        let reads: Vec<_> =
            asked.into_iter().map(|(shard, share)| this.read(shard, share)).collect();
        let replies: Vec<_> = stream::iter(reads).buffered(MAX_IN_FLIGHT).try_collect().await?;
        let Some(replies) = replies.into_iter().collect::<Option<Vec<ShardReply>>>() else {
            return Ok(None);
        };
        let mut chunk = Chunk::default();
        if first {
            if self.heads.is_empty() {
                self.heads = replies.iter().map(|reply| reply.head).collect();
            }
            self.epochs = replies.iter().map(|reply| reply.epoch).collect();
        }
        for reply in replies {
            if self.epochs[reply.shard] != reply.epoch {
                return Ok(None);
            }
            self.next[reply.shard] = reply.next;
            self.more[reply.shard] = reply.more;
            chunk.records += reply.records;
            chunk.buffers.extend(reply.buffers);
        }
        Ok(Some(chunk))
    }

    async fn read(&self, shard: usize, limit: usize) -> StoreResult<Option<ShardReply>> {
        let head = self.heads.get(shard).map_or(String::new(), u64::to_string);
        let mode = match (self.fresh, self.heads.is_empty()) {
            (false, _) => "log",
            (true, true) => "fresh",
            (true, false) => "fresh more",
        };
        let piece_bytes = self.inner.piece_size.bytes();
        let arguments = |command: &mut redis::Cmd| {
            command.arg(self.next[shard]).arg(&head).arg(limit).arg(mode).arg(piece_bytes);
        };
        // Small reads don't wait behind large ones.
        let traffic = if limit <= 1000 { Traffic::Small } else { Traffic::Bulk };
        let reply = self.inner.run(shard, traffic, &DELTA, arguments).await;
        self.inner.piece_size.note(piece_bytes, &reply);
        ShardReply::read(shard, reply?.value)
    }
}

/// The reply of one shard.
#[derive(Debug)]
struct ShardReply {
    shard: usize,
    epoch: u64,
    head: u64,
    next: u64,
    more: bool,
    records: usize,
    buffers: Vec<Vec<u8>>,
}

impl ShardReply {
    /// Reads a reply; `None` when the position is gone.
    fn read(shard: usize, value: redis::Value) -> StoreResult<Option<Self>> {
        let mut reply = ReplyReader::new(value)?;
        let epoch = reply.epoch()?;
        let head = reply.text()?;
        if head == "gone" {
            return Ok(None);
        }
        let head = head.parse().map_err(|error| malformed(&error))?;
        let (next, more): (u64, u8) = (reply.number()?, reply.number()?);
        let records = reply.number()?;
        let buffers: Result<Vec<Vec<u8>>, StoreError> = reply.buffers().collect();
        Ok(Some(Self { shard, epoch, head, next, more: more == 1, records, buffers: buffers? }))
    }
}

/// Reads the changes out of chunks.
pub(super) fn changes_of(chunks: &[Chunk]) -> StoreResult<Vec<Change>> {
    let mut interner = Interner::default();
    let mut changes = Vec::with_capacity(chunks.iter().map(|chunk| chunk.records).sum());
    for buffer in chunks.iter().flat_map(|chunk| &chunk.buffers) {
        for record in Records(buffer) {
            changes.push(interner.change(&record?)?);
        }
    }
    Ok(changes)
}
