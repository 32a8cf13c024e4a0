//! A store for tests of the refresher: it fails, hangs and changes when the test says so.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::exposition::mirror::tests::upsert;
use crate::model::batch::PointBatch;
use crate::model::cursor::Cursor;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::{
    Capabilities, Change, DeleteOutcome, Delta, ErrorKind, Fenced, Operation, ResourceStatus,
    SeriesStore, SeriesWriter, Snapshot, StoreError, StoreResult, StoreStatus, UpsertOutcome,
};

/// A store whose writes come from the test. Only its reads are implemented.
#[derive(Default)]
pub(super) struct ScriptedStore {
    pub(super) state: Mutex<Script>,
}

/// The content of the store, and how it behaves.
#[derive(Default)]
pub(super) struct Script {
    pub(super) points: BTreeMap<SeriesKey, Point>,
    pub(super) changed: BTreeMap<SeriesKey, u64>,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) fails: bool,
    pub(super) hangs: bool,
    /// How many deltas were read.
    pub(super) deltas: usize,
    /// Only the status fails.
    pub(super) has_no_status: bool,
    /// Changes that are written one by one, each after a read of the snapshot.
    pub(super) during_reads: Vec<Change>,
}

impl Script {
    fn write(&mut self, change: Change) {
        self.seq += 1;
        let key = match change {
            Change::Upserted(point) => {
                self.points.insert(point.key.clone(), point.clone());
                point.key
            }
            Change::Deleted(key) => {
                self.points.remove(&key);
                key
            }
        };
        self.changed.insert(key, self.seq);
    }

    fn cursor(&self) -> Cursor {
        Cursor::single(self.epoch, self.seq)
    }
}

impl ScriptedStore {
    pub(super) fn write(&self, change: Change) {
        self.state.lock().write(change);
    }

    pub(super) fn set(&self, name: &str, value: f64) {
        self.write(upsert(name, "", value, None));
    }

    pub(super) fn delete(&self, name: &str) {
        self.write(Change::Deleted(SeriesKey { name: name.into(), labels: "".into() }));
    }

    async fn respond(&self) -> StoreResult<()> {
        if self.state.lock().hangs {
            std::future::pending::<()>().await;
        }
        if self.state.lock().fails {
            return Err(StoreError::new(ErrorKind::Unavailable, "scripted to fail"));
        }
        Ok(())
    }
}

#[async_trait]
impl SeriesStore for ScriptedStore {
    async fn upsert(&self, _: PointBatch, _: SeriesWriter) -> StoreResult<Fenced<UpsertOutcome>> {
        Ok(Fenced::Refused)
    }

    async fn snapshot(
        &self,
        _: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        self.respond().await?;
        let mut state = self.state.lock();
        let mut points: Vec<Point> = state
            .points
            .values()
            .filter(|p| after.is_none_or(|after| p.key > *after))
            .take(limit + 1)
            .cloned()
            .collect();
        let more = points.len() > limit;
        points.truncate(limit);
        let cursor = state.cursor();
        if let Some(change) = state.during_reads.pop() {
            state.write(change);
        }
        Ok(Snapshot { points, cursor, more })
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        Ok(self.state.lock().cursor())
    }

    async fn delta(
        &self,
        after: &Cursor,
        _up_to: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Delta> {
        self.respond().await?;
        let mut state = self.state.lock();
        state.deltas += 1;
        if after.epoch != state.epoch {
            return Ok(Delta::Gone);
        }
        let mut newer: Vec<_> = state
            .changed
            .iter()
            .filter(|(_, seq)| **seq > after.as_single().expect("of this store"))
            .collect();
        newer.sort_by_key(|(_, seq)| **seq);
        let more = newer.len() > limit;
        newer.truncate(limit);
        let seq = newer.last().map_or(after.as_single().expect("of this store"), |(_, seq)| **seq);
        let changes = newer
            .into_iter()
            .map(|(key, _)| match state.points.get(key) {
                Some(point) => Change::Upserted(point.clone()),
                None => Change::Deleted(key.clone()),
            })
            .collect();
        let next = Cursor::single(after.epoch, seq);
        Ok(Delta::Changes { changes, next, head: state.cursor(), more })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn get(&self, _: SeriesId) -> StoreResult<Option<Point>> {
        Ok(None)
    }

    async fn delete(&self, _: SeriesId, _: SeriesWriter) -> StoreResult<Fenced<DeleteOutcome>> {
        Ok(Fenced::Refused)
    }

    async fn delete_matching(
        &self,
        _: &[Selector],
        _: bool,
        _: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        Ok(Fenced::Refused)
    }

    async fn expire(&self) -> StoreResult<usize> {
        Ok(0)
    }
}

#[async_trait]
impl Operation for ScriptedStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_batches: true,
            exact_budget: true,
            shards: 1,
            backend: "scripted",
            survives_restart: false,
            survives_power_cut: false,
            survives_failover: true,
            shared: false,
            atomic_fencing: true,
        }
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn flush_wanted(&self) {
        std::future::pending().await
    }

    async fn flush(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        Ok(0)
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        self.respond().await?;
        if self.state.lock().has_no_status {
            return Err(StoreError::new(ErrorKind::Timeout, "scripted to have no status"));
        }
        let series = self.state.lock().points.len() as u64;
        let resources = vec![ResourceStatus::counted("series", series).limited(100)];
        let newest = Some(self.state.lock().cursor());
        Ok(StoreStatus { resources, newest, commits: series, ..StoreStatus::default() })
    }

    async fn close(&self) -> StoreResult<()> {
        Ok(())
    }
}
