//! The shards: everything that changes in one step lies in one of them.
//!
//! A shard's keys share a hash tag, so in a cluster they lie in one slot: `{holdall:3}:locks`. What
//! belongs to which shard follows from its key alone. Invariant: the number of shards never
//! changes while data exists; it stands in the first shard, and nothing is done before it was compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, Value};

use super::link::{CallError, Link, Weight};
use super::replies::read;
use super::script::Script;
use crate::clock::SharedClock;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How often a call is tried again after its shard was born or its script was loaded.
const ATTEMPTS: usize = 4;

/// The shards.
pub(super) struct Shards {
    link: Arc<Link>,
    namespace: String,
    count: usize,
    birth: Script,
    /// A test's clock, instead of that of Redis.
    clock: Option<SharedClock>,
    closed: AtomicBool,
    /// The number of shards is that of the data.
    compared: AtomicBool,
}

impl Shards {
    pub(super) fn new(
        link: Arc<Link>,
        namespace: String,
        count: usize,
        clock: Option<SharedClock>,
    ) -> Self {
        let birth = Script::bare(include_str!("lua/birth.lua"));
        Self {
            link,
            namespace,
            count,
            birth,
            clock,
            closed: AtomicBool::new(false),
            compared: AtomicBool::new(false),
        }
    }

    /// Returns the line.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Ends the store: every call from now on fails.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Returns how many shards there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the shard of a key that is made of parts.
    pub(super) fn of(&self, parts: &[&[u8]]) -> usize {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut head = [0; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        usize::try_from(u64::from_le_bytes(head) % self.count as u64).unwrap_or(0)
    }

    /// Returns the Redis key of a thing in a shard.
    pub(super) fn key(&self, shard: usize, name: &str) -> String {
        format!("{{{}:{shard}}}:{name}", self.namespace)
    }

    /// Runs a script on a shard. `KEYS` are the shard's `info` and then `names`; `ARGV` is the
    /// time and then what `arguments` adds.
    ///
    /// # Errors
    /// When Redis can't be reached, does not answer in time, or refuses.
    pub(super) async fn run(
        &self,
        shard: usize,
        weight: Weight,
        script: &Script,
        names: &[&str],
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Value> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        if !self.compared.load(Ordering::Acquire) {
            self.compare().await?;
        }
        let keys = ["info"].iter().chain(names).map(|name| self.key(shard, name));
        let keys: Vec<String> = keys.collect();
        let mut by_text = false;
        for _ in 0..ATTEMPTS {
            let now = self.test_now();
            let mut command =
                if by_text { script.by_text(&keys, &now) } else { script.by_name(&keys, &now) };
            arguments(&mut command);
            match self.link.call(weight, &command).await {
                Ok(value) => return Ok(value),
                Err(CallError::NoScript) => by_text = true,
                Err(CallError::Unborn) => {
                    tracing::info!(shard, "a shard of the store begins a new life");
                    self.give_birth(shard).await?;
                    // It may have been wiped with all the others, by somebody who divides otherwise.
                    self.compare().await?;
                }
                Err(CallError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::new(ErrorKind::Unavailable, "redis forgets its scripts or its data"))
    }

    /// Runs a script on every shard at the same time; the answers in the order of the shards.
    ///
    /// # Errors
    /// As [`Self::run`], if it fails for any of them.
    pub(super) async fn run_on_all(
        &self,
        weight: Weight,
        script: &Script,
        names: &[&str],
        arguments: impl Fn(usize, &mut Cmd),
    ) -> StoreResult<Vec<Value>> {
        let arguments = &arguments;
        let runs = (0..self.count).map(|shard| {
            self.run(shard, weight, script, names, move |command| arguments(shard, command))
        });
        futures_util::future::try_join_all(runs).await
    }

    /// Compares the number of shards with that of the data: a key of another number of them would
    /// be sought in another shard.
    async fn compare(&self) -> StoreResult<()> {
        let theirs = self.give_birth(0).await?;
        if theirs != self.count {
            let why = format!(
                "the data under {:?} lies in {theirs} shards, not in {}: set store.redis.index_shards \
                 to {theirs}, or use another store.redis.namespace",
                self.namespace, self.count
            );
            return Err(StoreError::new(ErrorKind::Unavailable, why));
        }
        self.compared.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns a shard its first epoch, unless it has one; gives how many shards there were then.
    async fn give_birth(&self, shard: usize) -> StoreResult<usize> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::new(ErrorKind::Internal, error.to_string()))?;
        let epoch = format!("{:016x}", u64::from_ne_bytes(random));
        let keys = [self.key(shard, "info")];
        let mut command = self.birth.by_text(&keys, &self.test_now());
        command.arg(epoch).arg(self.count);
        match self.link.call(Weight::Light, &command).await {
            Ok(shards) => read(shards),
            Err(CallError::Store(error)) => Err(error),
            Err(CallError::NoScript | CallError::Unborn) => {
                Err(StoreError::new(ErrorKind::Internal, "a shard could not be born"))
            }
        }
    }

    fn test_now(&self) -> String {
        self.clock.as_ref().map_or(String::new(), |clock| {
            let nanos = clock.now().as_nanos();
            let more = if nanos % 1_000 == 0 { "" } else { "+" };
            format!("{}{more}", nanos / 1_000)
        })
    }
}
