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

pub(super) struct RedisCache;

impl RedisCache {
    pub(super) fn new(shards: Arc<Shards>, settings: crate::store::CacheSettings) -> Self {
        let _ = shards;
        let _ = settings;
        Self
    }
}

#[async_trait]
impl CacheStore for RedisCache {
    async fn get(&self, addresses: &[CacheAddress]) -> StoreResult<Vec<CacheRead>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn put(&self, put: CachePut) -> StoreResult<PutOutcome> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn delete(&self, key: &CacheKey) -> StoreResult<bool> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn claim_fill(&self, key: &CacheKey, ttl: Duration) -> StoreResult<FillOutcome> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn end_fill(&self, key: &CacheKey, token: FillToken) -> StoreResult<bool> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
