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

pub(super) struct RedisLeases;

impl RedisLeases {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let _ = shards;
        Self
    }
}

#[async_trait]
impl LeaseStore for RedisLeases {
    async fn acquire(
        &self,
        name: &LeaseName,
        holder: &Holder,
        ttl: Duration,
    ) -> StoreResult<AcquireOutcome> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn renew(
        &self,
        name: &LeaseName,
        token: FencingToken,
        ttl: Option<Duration>,
    ) -> StoreResult<Option<Lease>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn release(&self, name: &LeaseName, token: FencingToken) -> StoreResult<bool> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn get(&self, name: &LeaseName) -> StoreResult<Option<Lease>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }

    async fn list(
        &self,
        after: Option<&LeaseName>,
        limit: usize,
    ) -> StoreResult<Vec<(LeaseName, Lease)>> {
        Err(StoreError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
