//! The series on Redis: each lies in the shard of its id, with its place in that shard's order of changes.
//!
//! What changes a shard is one script, so that record, number and index never part. A cursor has a
//! number for each shard, and the epoch of all of them. Invariant: every script turns what is due into
//! deletions before it does its own work, so that nobody ever sees what has expired.

mod budget;
mod codec;
mod mirror;
mod parts;
mod read;
mod scripts;
mod signal;
mod upsert;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tokio::sync::{Mutex, watch};

use self::codec::{Records, Sharing};
use self::mirror::Mirror;
use self::parts::shard_of;
use self::read::{Piece, Place, Reader};
use self::scripts::{Answer, Limits, Scripts, Words, strange};
use self::signal::Signal;
use super::leases::{self, Passed};
use super::link::Weight;
use super::script::Script;
use super::shards::Shards;
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::leases::Fence;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::{
    Change, Delta, ErrorKind, Fenced, SeriesSettings, SeriesStore, Snapshot, StoreError,
    StoreResult, UpsertOutcome,
};

/// Work on at most this many points is done on the async thread that brings it.
const INLINE_POINTS: usize = 2_000;

/// The most series that one script deletes.
const DELETE_PIECE: usize = 5_000;

/// How many series a store holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SeriesCounts {
    pub(super) live: u64,
    /// Deletions that are still remembered.
    pub(super) tombstones: u64,
}

/// The series.
pub(super) struct RedisSeries {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    shards: Arc<Shards>,
    scripts: Scripts,
    limits: Limits,
    signal: Signal,
    mirror: Arc<Mutex<Mirror>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Returns how many deletions one shard remembers: twice its part, since shards are not alike. So at
/// least about as many are remembered as the setting says, and at most twice as many.
fn tombstones_of_a_shard(max_tombstones: usize, shards: usize) -> usize {
    let twice = max_tombstones.saturating_mul(2);
    twice.div_ceil(shards.max(1)).min(max_tombstones)
}

impl RedisSeries {
    pub(super) fn new(shards: Arc<Shards>, settings: &SeriesSettings) -> Self {
        let retention = settings.retention.as_nanos().div_ceil(1_000_000);
        let limits = Limits {
            retention_ms: i64::try_from(retention).unwrap_or(0),
            max_tombstones: tombstones_of_a_shard(settings.max_tombstones, shards.count()),
            max_series: settings.max_series,
        };
        let signal = Signal::new(shards.count());
        let scripts = Scripts::new();
        Self { inner: Arc::new(Inner { shards, scripts, limits, signal, mirror: Arc::default() }) }
    }

    /// Counts series.
    ///
    /// # Errors
    /// When Redis can't be read.
    pub(super) async fn counts(&self) -> StoreResult<SeriesCounts> {
        let states = self.inner.states(Weight::Light).await?;
        let sum = |of: fn(&budget::ShardState) -> usize| states.iter().map(of).sum::<usize>();
        let (live, tombstones) = (sum(|state| state.live), sum(|state| state.tombstones));
        Ok(SeriesCounts { live: live as u64, tombstones: tombstones as u64 })
    }

    /// Runs `work` to its end, also when the one who asked for it goes away.
    async fn whole<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: Future<Output = StoreResult<T>> + Send + 'static,
    {
        tokio::spawn(work(Arc::clone(&self.inner))).await.map_err(|error| ended(&error))?
    }
}

fn ended(error: &tokio::task::JoinError) -> StoreError {
    let kind = if error.is_panic() { ErrorKind::Internal } else { ErrorKind::Unavailable };
    StoreError::new(kind, error.to_string())
}

/// Does `work` here when it concerns few points, on a thread that may be kept busy otherwise.
async fn off_thread<T: Send + 'static>(
    points: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> StoreResult<T> {
    if points <= INLINE_POINTS {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| ended(&error))
}

impl Inner {
    async fn run(
        &self,
        shard: usize,
        weight: Weight,
        script: &Script,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Answer> {
        scripts::run(&self.shards, self.limits, shard, weight, script, arguments).await
    }

    fn random(&self) -> StoreResult<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| StoreError::new(ErrorKind::Internal, error.to_string()))?;
        Ok(bytes)
    }

    async fn place(&self) -> StoreResult<Place> {
        let states = self.states(Weight::Light).await?;
        let (epochs, seqs) = states.iter().map(|state| (state.epoch, state.seq)).unzip();
        Ok(Place { epochs, seqs })
    }

    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        if after.seqs.len() != self.shards.count() {
            return Ok(Delta::Gone);
        }
        let mut reader = Reader::after(self, after.seqs.clone());
        let mut read: Vec<Piece> = Vec::new();
        let mut left = limit;
        loop {
            let Some(piece) = reader.step(left).await? else { return Ok(Delta::Gone) };
            if reader.place().cursor().epoch != after.epoch {
                return Ok(Delta::Gone);
            }
            left = left.saturating_sub(piece.records);
            read.push(piece);
            if left == 0 || !reader.more() {
                break;
            }
        }
        let changes = off_thread(limit - left, move || changes_of(&read)).await??;
        Ok(Delta::Changes { changes, next: reader.place().cursor(), more: reader.more() })
    }

    /// Deletes series, each in its shard; gives how many were there.
    async fn delete_all(
        &self,
        ids: &[SeriesId],
        passed: Option<&Passed>,
    ) -> StoreResult<Fenced<usize>> {
        let mut by_shard: Vec<Vec<u8>> = vec![Vec::new(); self.shards.count()];
        for id in ids {
            by_shard[shard_of(*id, self.shards.count())].extend(id.to_bytes());
        }
        let deletes = by_shard.iter().enumerate().filter(|(_, ids)| !ids.is_empty());
        let deletes = deletes.map(|(shard, ids)| async move {
            let mut sum = 0;
            for piece in ids.chunks(16 * DELETE_PIECE) {
                match self.delete_piece(shard, piece, passed).await? {
                    Fenced::Refused => return Ok(Fenced::Refused),
                    Fenced::Done(deleted) => sum += deleted,
                }
            }
            Ok::<_, StoreError>(Fenced::Done(sum))
        });
        let mut sum = 0;
        for deleted in futures_util::future::join_all(deletes).await {
            match deleted? {
                Fenced::Refused => return Ok(Fenced::Refused),
                Fenced::Done(deleted) => sum += deleted,
            }
        }
        Ok(Fenced::Done(sum))
    }

    async fn delete_piece(
        &self,
        shard: usize,
        ids: &[u8],
        passed: Option<&Passed>,
    ) -> StoreResult<Fenced<usize>> {
        let arguments = |command: &mut Cmd| {
            leases::add_pass(command, passed);
            command.arg(ids);
        };
        let weight = if ids.len() <= 16 { Weight::Light } else { Weight::Heavy };
        let answer = self.run(shard, weight, &self.scripts.delete, arguments).await?;
        let mut words = Words::of(answer.value)?;
        match words.text()?.as_str() {
            "refused" => Ok(Fenced::Refused),
            "deleted" => {
                let deleted = words.number()?;
                self.signal.changed(shard, words.number()?);
                Ok(Fenced::Done(deleted))
            }
            other => Err(strange(&other)),
        }
    }
}

/// Returns the changes of pieces.
fn changes_of(pieces: &[Piece]) -> StoreResult<Vec<Change>> {
    let mut sharing = Sharing::default();
    let mut changes = Vec::with_capacity(pieces.iter().map(|piece| piece.records).sum());
    for buffer in pieces.iter().flat_map(|piece| &piece.buffers) {
        for record in Records(buffer) {
            changes.push(sharing.change(&record?)?);
        }
    }
    Ok(changes)
}

#[async_trait]
impl SeriesStore for RedisSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        self.whole(|inner| async move { inner.upsert(batch, fence).await }).await
    }

    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        let (selectors, after) = (selectors.to_vec(), after.cloned());
        self.whole(|inner| async move {
            let mut mirror = Arc::clone(&inner.mirror).lock_owned().await;
            let place = mirror.sync(&inner).await?;
            let work = limit.max(if selectors.is_empty() { 0 } else { usize::MAX });
            let read = move || mirror.snapshot(&selectors, after.as_ref(), limit);
            let (points, more) = off_thread(work, read).await?;
            Ok(Snapshot { points, cursor: place.cursor(), more })
        })
        .await
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        Ok(self.inner.place().await?.cursor())
    }

    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        self.inner.delta(after, limit).await
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
        let answer = inner.run(shard, Weight::Light, &inner.scripts.get, arguments).await?;
        let record = match answer.value {
            Value::Nil => return Ok(None),
            Value::BulkString(record) => record,
            other => return Err(strange(&other)),
        };
        let record = Records(&record).next().ok_or_else(|| strange(&"no record"))??;
        match Sharing::default().change(&record)? {
            Change::Upserted(point) => Ok(Some(point)),
            Change::Deleted(key) => Err(strange(&key)),
        }
    }

    async fn delete(&self, id: SeriesId, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        let Fenced::Done(passed) = leases::pass(&self.inner.shards, fence.as_ref()).await? else {
            return Ok(Fenced::Refused);
        };
        match self.inner.delete_all(&[id], passed.as_ref()).await? {
            Fenced::Refused => Ok(Fenced::Refused),
            Fenced::Done(deleted) => Ok(Fenced::Done(deleted > 0)),
        }
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        let selectors = selectors.to_vec();
        self.whole(|inner| async move {
            let Fenced::Done(passed) = leases::pass(&inner.shards, fence.as_ref()).await? else {
                return Ok(Fenced::Refused);
            };
            let mut mirror = Arc::clone(&inner.mirror).lock_owned().await;
            mirror.sync(&inner).await?;
            let ids = off_thread(usize::MAX, move || mirror.matching(&selectors)).await?;
            if dry_run {
                return Ok(Fenced::Done(ids.len()));
            }
            inner.delete_all(&ids, passed.as_ref()).await
        })
        .await
    }

    async fn expire(&self) -> StoreResult<usize> {
        let states = self.inner.states(Weight::Light).await?;
        for (shard, state) in states.iter().enumerate() {
            self.inner.signal.changed(shard, state.seq);
        }
        Ok(states.iter().map(|state| state.expired).sum())
    }
}
