//! The budget: how many series there may be, exact over all shards and replicas.
//!
//! Each shard has a quota, and holds no more series than that. What was granted to whom is kept
//! beside shard 0, under a version for each shard that grows with each grant. More is granted there
//! first and told to the shard afterwards; less is taken from the shard first and told there
//! afterwards. Invariant: whatever gets lost on the way, a shard's quota is never more than what was
//! granted to it, and what was granted to all is never more than the budget.

use super::super::link::Weight;
use super::Inner;
use super::scripts::{Words, strange};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// So often a race for the last room is run again.
const ATTEMPTS: usize = 8;

/// What the pool answered.
struct Pool {
    epoch: String,
    granted: bool,
    /// For each shard what it was granted, and the version of that; empty where not all are known.
    quotas: Vec<(i64, i64)>,
}

/// How a shard stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardState {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) live: usize,
    pub(super) tombstones: usize,
    /// Room that is reserved.
    pub(super) held: usize,
    /// What expired while it was asked.
    pub(super) expired: usize,
}

impl Inner {
    /// Reads how every shard stands.
    pub(super) async fn states(&self, weight: Weight) -> StoreResult<Vec<ShardState>> {
        let reads = (0..self.shards.count()).map(|shard| async move {
            let answer = self.run(shard, weight, &self.scripts.state, |_| ()).await?;
            let mut words = Words::of(answer.value)?;
            Ok::<_, StoreError>(ShardState {
                epoch: words.epoch()?,
                seq: words.number()?,
                live: words.number()?,
                tombstones: words.number()?,
                held: words.number()?,
                expired: words.number::<usize>()? + answer.expired,
            })
        });
        futures_util::future::try_join_all(reads).await
    }

    /// Returns a shard room for so many more series; `false` when so much is not left, but then the shard
    /// has at least all that was ever granted to it.
    pub(super) async fn find_room(&self, shard: usize, missing: usize) -> StoreResult<bool> {
        let mut taken_back = false;
        for _ in 0..ATTEMPTS {
            let pool = self.pool("grant", |command| {
                command.arg(shard).arg(missing);
            });
            let pool = pool.await?;
            if pool.quotas.is_empty() {
                self.adopt(&pool.epoch).await?;
                continue;
            }
            if pool.granted {
                let (quota, version) = pool.quotas[shard];
                self.tell(shard, "raise", &pool.epoch, quota, version).await?;
                return Ok(true);
            }
            if taken_back {
                return Ok(false);
            }
            self.take_back(shard, &pool).await?;
            taken_back = true;
        }
        Err(StoreError::new(ErrorKind::Throttled, "too many ask for room at the same time"))
    }

    /// Changes a shard's quota, also where the shard was wiped since it had its last one.
    async fn tell(
        &self,
        shard: usize,
        what: &str,
        epoch: &str,
        quota: i64,
        version: i64,
    ) -> StoreResult<Option<(i64, i64)>> {
        let told = self.quota(shard, what, epoch, quota, version).await?;
        if told.is_some() {
            return Ok(told);
        }
        self.quota(shard, "adopt", epoch, 0, 0).await?;
        self.quota(shard, what, epoch, quota, version).await
    }

    /// Takes what the other shards don't use.
    async fn take_back(&self, keeps: usize, pool: &Pool) -> StoreResult<()> {
        let shrinks = pool.quotas.iter().enumerate().map(|(shard, &(quota, version))| async move {
            // A grant may have been lost on its way to the shard that asks.
            let what = if shard == keeps { "raise" } else { "shrink" };
            Ok::<_, StoreError>(
                self.tell(shard, what, &pool.epoch, quota, version).await?.unwrap_or((quota, -1)),
            )
        });
        let shrunk = futures_util::future::try_join_all(shrinks).await?;
        let returned = self.pool("returned", |command| {
            command.arg(&pool.epoch);
            for (quota, version) in &shrunk {
                command.arg(quota).arg(version);
            }
        });
        returned.await.map(|_| ())
    }

    /// Makes the grants known again after they were lost: they are what the shards have.
    async fn adopt(&self, epoch: &str) -> StoreResult<()> {
        let quotas = (0..self.shards.count()).map(|shard| self.quota(shard, "adopt", epoch, 0, 0));
        let quotas = futures_util::future::try_join_all(quotas).await?;
        let adopted = self.pool("adopt", |command| {
            command.arg(epoch);
            for quota in &quotas {
                command.arg(quota.map_or(0, |(quota, _)| quota));
            }
        });
        adopted.await.map(|_| ())
    }

    async fn pool(&self, what: &str, arguments: impl Fn(&mut redis::Cmd)) -> StoreResult<Pool> {
        let arguments = |command: &mut redis::Cmd| {
            command.arg(what).arg(self.limits.max_series).arg(self.shards.count());
            arguments(command);
        };
        let script = &self.scripts.pool;
        let answer = self.shards.run(0, Weight::Light, script, &["budget"], arguments).await?;
        let mut words = Words::of(answer)?;
        let (epoch, outcome) = (words.text()?, words.text()?);
        let mut quotas = Vec::new();
        if outcome != "adopt" {
            words.number::<i64>()?;
            for _ in 0..self.shards.count() {
                quotas.push((words.number()?, words.number()?));
            }
        }
        Ok(Pool { epoch, granted: outcome == "granted", quotas })
    }

    /// Changes a shard's quota; `None` when its quota is of another life of the budget.
    async fn quota(
        &self,
        shard: usize,
        what: &str,
        epoch: &str,
        quota: i64,
        version: i64,
    ) -> StoreResult<Option<(i64, i64)>> {
        let arguments = |command: &mut redis::Cmd| {
            command.arg(what).arg(epoch).arg(quota).arg(version);
        };
        let answer = self.run(shard, Weight::Light, &self.scripts.quota, arguments).await?;
        let mut words = Words::of(answer.value)?;
        match words.text()?.as_str() {
            "adopt" => Ok(None),
            "is" => Ok(Some((words.number()?, words.number()?))),
            other => Err(strange(&other)),
        }
    }
}
