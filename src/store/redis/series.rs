//! Not built yet.
#![allow(unused, reason = "not built yet")]
use super::shards::Shards;
use crate::model::{
    batch::*, cache::*, checkpoints::*, cursor::*, generations::*, leases::*, selector::*,
    series::*, time::*,
};
use crate::store::*;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(super) struct RedisSeries;

impl RedisSeries {
    pub(super) fn new(shards: Arc<Shards>, settings: &super::RedisSettings) -> Self {
        let _ = shards;
        let _ = settings;
        Self
    }
}

/// How many series a store holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SeriesCounts {
    pub(super) live: u64,
    pub(super) tombstones: u64,
}

impl RedisSeries {
    pub(super) async fn counts(&self) -> StoreResult<SeriesCounts> {
        Ok(SeriesCounts::default())
    }
}

#[async_trait]
impl SeriesStore for RedisSeries {
    async fn upsert(
        &self,
        batch: PointBatch,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<UpsertOutcome>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> StoreResult<Snapshot> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn cursor(&self) -> StoreResult<Cursor> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn delta(&self, after: &Cursor, limit: usize) -> StoreResult<Delta> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        tokio::sync::watch::Sender::new(0).subscribe()
    }

    async fn get(&self, id: SeriesId) -> StoreResult<Option<Point>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn delete(&self, id: SeriesId, fence: Option<Fence>) -> StoreResult<Fenced<bool>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        fence: Option<Fence>,
    ) -> StoreResult<Fenced<usize>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn expire(&self) -> StoreResult<usize> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
