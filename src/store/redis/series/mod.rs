//! The series on Redis: each lies in the shard of its id, with its sequence number in that shard.
//!
//! What changes a shard is one script, so that record, sequence number and index never part. A cursor has
//! a sequence number for each shard, and the epoch of all of them. Invariant: every script turns what is due
//! into deletions before it does its own work, so that no reader ever sees what has expired.

mod codec;
mod delete;
mod local_copy;
mod others;
mod piece_size;
mod reader;
mod room;
mod scans;
pub(super) mod scripts;
mod signal;
mod split;
mod state;
mod upsert;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tokio::sync::{Mutex, watch};

use self::codec::{Interner, Records};
use self::local_copy::LocalCopy;
use self::piece_size::PieceSize;
use self::reader::{Chunk, Position, Reader, changes_of};
use self::room::Rooms;
use self::scripts::{GET, Limits, Reply};
use self::signal::Signal;
use self::split::shard_of;
use self::state::ShardState;
use super::core::client::Traffic;
use super::core::fences::{Pass, add_pass, pass, run_fenced};
use super::core::replies::malformed;
use super::core::script::Script;
use super::core::shards::Shards;
use super::core::upkeep::{Report, StatusPart, Upkeep};
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::scan::ScanTurns;
use crate::store::{
    Change, DeleteOutcome, Delta, ErrorKind, Fenced, ResourceStatus, SeriesSettings, SeriesStore,
    SeriesWriter, Snapshot, StoreError, StoreResult, UpsertOutcome,
};

/// Work on at most this many points is done on the async thread that needs it.
const INLINE_POINTS: usize = 2_000;

/// The series.
pub(super) struct RedisSeries {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    shards: Arc<Shards>,
    limits: Limits,
    signal: Signal,
    piece_size: PieceSize,
    rooms: Rooms,
    local_copy: Arc<Mutex<LocalCopy>>,
    turns: ScanTurns,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Returns how many deletions one shard remembers: twice its part, since shards are unequally full. So
/// about as many are remembered as the setting says at least, and twice as many at most.
fn tombstones_of_a_shard(max_tombstones: usize, shards: usize) -> usize {
    let twice = max_tombstones.saturating_mul(2);
    twice.div_ceil(shards.max(1)).min(max_tombstones)
}

impl RedisSeries {
    pub(super) fn new(shards: Arc<Shards>, settings: &SeriesSettings) -> Self {
        let retention = settings.retention.as_nanos().div_ceil(1_000_000);
        let max_future_skew = settings.max_future_skew.as_nanos().div_ceil(1_000_000);
        let limits = Limits {
            retention_ms: i64::try_from(retention).unwrap_or(0),
            max_future_skew_ms: i64::try_from(max_future_skew).unwrap_or(i64::MAX),
            max_tombstones: tombstones_of_a_shard(settings.max_tombstones, shards.count()),
            max_series: settings.max_series,
            max_bytes: settings.max_bytes,
            shards: shards.count(),
        };
        let signal = Signal::new(shards.count());
        let rooms = Rooms::new(shards.count(), shards.own_clock());
        Self {
            inner: Arc::new(Inner {
                shards,
                limits,
                signal,
                piece_size: PieceSize::default(),
                rooms,
                local_copy: Arc::default(),
                turns: ScanTurns::new(),
            }),
        }
    }

    /// Runs `work` to its end, also when the caller is cancelled.
    async fn to_the_end<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: Future<Output = StoreResult<T>> + Send + 'static,
    {
        tokio::spawn(work(Arc::clone(&self.inner))).await.map_err(|error| ended_early(&error))?
    }
}

fn ended_early(error: &tokio::task::JoinError) -> StoreError {
    let kind = if error.is_panic() { ErrorKind::Internal } else { ErrorKind::Unavailable };
    StoreError::new(kind, format!("a task of the store ended early: {error}"))
}

/// Does `work` here when it concerns few points, else on a thread that may block.
async fn off_thread<T: Send + 'static>(
    points: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> StoreResult<T> {
    if points <= INLINE_POINTS {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| ended_early(&error))
}

impl Inner {
    async fn run(
        &self,
        shard: usize,
        traffic: Traffic,
        script: &Script,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Reply> {
        scripts::run(&self.shards, self.limits, shard, traffic, script, arguments).await
    }

    /// Runs a script that writes, or checks a write, under a pass.
    async fn write(
        &self,
        shard: usize,
        traffic: Traffic,
        script: &Script,
        pass: Option<&Arc<Pass>>,
        arguments: impl Fn(&mut Cmd) + Copy,
    ) -> StoreResult<Fenced<Value>> {
        let run = |pass: Option<Arc<Pass>>| async move {
            let all = |command: &mut Cmd| {
                add_pass(command, shard, pass.as_deref());
                arguments(command);
            };
            Ok(self.run(shard, traffic, script, all).await?.value)
        };
        run_fenced(&self.shards, shard, pass.cloned(), run).await
    }

    async fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        let is_ours = |cursor: &Cursor| cursor.seqs.len() == self.shards.count();
        if !is_ours(after) || up_to.is_some_and(|up_to| !is_ours(up_to)) {
            return Ok(Delta::Gone);
        }
        let mut reader = Reader::after(self, after.seqs.clone());
        if let Some(up_to) = up_to {
            reader.read_up_to(up_to.seqs.clone());
        }
        let mut read: Vec<Chunk> = Vec::new();
        let mut left = limit;
        loop {
            let Some(chunk) = reader.step(left).await? else { return Ok(Delta::Gone) };
            if reader.position().cursor().epoch != after.epoch {
                return Ok(Delta::Gone);
            }
            left = left.saturating_sub(chunk.records);
            read.push(chunk);
            if left == 0 || !reader.more() {
                break;
            }
        }
        let changes = off_thread(limit - left, move || changes_of(&read)).await??;
        let (next, head) = (reader.position().cursor(), reader.head().cursor());
        Ok(Delta::Changes { changes, next, head, more: reader.more() })
    }
}

#[async_trait]
impl SeriesStore for RedisSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        self.to_the_end(|inner| async move { inner.upsert(batch, writer).await }).await
    }

    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        if !selectors.is_empty() {
            return self.scan_snapshot(selectors, after, limit).await;
        }
        let after = after.cloned();
        self.to_the_end(|inner| async move {
            let mut copy = Arc::clone(&inner.local_copy).lock_owned().await;
            let position = copy.sync(&inner).await?;
            let read = move || copy.page(after.as_ref(), limit);
            let (points, more) = off_thread(limit, read).await?;
            Ok(Snapshot { points, cursor: position.cursor(), more })
        })
        .await
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        Ok(self.inner.position().await?.cursor())
    }

    async fn delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        self.inner.delta(after, up_to, limit).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        signal::subscribe(&self.inner)
    }

    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>> {
        let inner = &self.inner;
        let arguments = |command: &mut Cmd| {
            command.arg(&id.to_bytes());
        };
        let shard = shard_of(id, inner.shards.count());
        let reply = inner.run(shard, Traffic::Small, &GET, arguments).await?;
        let record = match reply.value {
            Value::Nil => return Ok(None),
            Value::BulkString(record) => record,
            other => return Err(malformed(&other)),
        };
        let record = Records(&record).next().ok_or_else(|| malformed(&"no record"))??;
        match Interner::default().change(&record)? {
            Change::Upserted(point) => Ok(Some(point)),
            Change::Deleted(key) => Err(malformed(&key)),
        }
    }

    async fn delete(
        &self,
        id: SeriesId,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        let Fenced::Done(pass) = pass(&self.inner.shards, writer.fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        // One script, which checks the role itself.
        self.inner.delete_all(&[id], &writer, pass.as_ref()).await
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        let found = self.scan_keys(selectors).await?;
        self.to_the_end(|inner| async move {
            // A pass is valid for a short time: not while the scan runs.
            let Fenced::Done(pass) = pass(&inner.shards, writer.fence.as_ref()).await? else {
                return Ok(Fenced::Refused);
            };
            if dry_run && writer.may_change.is_none() {
                return Ok(Fenced::Done(DeleteOutcome::Deleted(found.count())));
            }
            let ids = move || found.found().map(|(key, ())| key.id()).collect::<Vec<_>>();
            let ids = off_thread(usize::MAX, ids).await?;
            let others = inner.others_of(&ids, &writer).await?;
            if !others.is_empty() {
                return Ok(Fenced::Done(DeleteOutcome::OthersSeries(others)));
            }
            if dry_run {
                return Ok(Fenced::Done(DeleteOutcome::Deleted(ids.len())));
            }
            inner.delete_all(&ids, &writer, pass.as_ref()).await
        })
        .await
    }

    async fn expire(&self) -> StoreResult<usize> {
        let states = self.inner.states().await?;
        for (shard, state) in states.iter().enumerate() {
            self.inner.signal.changed(shard, state.seq);
        }
        Ok(states.iter().map(|state| state.expired).sum())
    }
}

#[async_trait]
impl Upkeep for RedisSeries {
    async fn purge(&self) -> StoreResult<u64> {
        Ok(self.expire().await? as u64)
    }

    fn status_part(&self) -> StatusPart {
        scripts::status_part(self.inner.limits)
    }

    fn report(&self, replies: Vec<Value>) -> StoreResult<Report> {
        let states = replies.into_iter().map(ShardState::read);
        let states = states.collect::<StoreResult<Vec<_>>>()?;
        let sum = |of: fn(&ShardState) -> u64| states.iter().map(of).sum();
        let limits = &self.inner.limits;
        let series =
            ResourceStatus::sized("series", sum(|state| state.live), sum(|state| state.bytes));
        let tombstones = ResourceStatus::sized(
            "series_tombstones",
            sum(|state| state.tombstones),
            sum(|state| state.tombstone_bytes),
        );
        let resources = vec![
            series.limited(limits.max_series as u64).limited_in_bytes(limits.max_bytes as u64),
            // Each shard has a limit of its own.
            tombstones
                .limited((limits.max_tombstones * limits.shards) as u64)
                .limited_in_bytes(limits.max_bytes as u64 / 4),
        ];
        Ok(Report { resources, newest: Some(Position::of(&states).cursor()) })
    }
}
