//! The shards: what changes in one atomic step lies in one of them.
//!
//! A shard's keys share a hash tag, so they lie in one slot of a cluster: `{holdall:3}:locks`. The shard of
//! an entry follows from its key alone. Invariant: the number of shards never changes while data
//! exists; it is stored in the first shard, and nothing runs before it was compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, Value};

use super::client::{CallError, Client, Traffic};
use super::random::random;
use super::replies::read;
use super::script::Script;
use super::seen::Seen;
use crate::clock::{SharedClock, SystemClock};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How often a call is sent after its shard was initialized or its script was loaded.
const ATTEMPTS: usize = 4;

/// The shards.
pub(crate) struct Shards {
    client: Arc<Client>,
    namespace: String,
    count: usize,
    initialize: Script,
    /// A test's clock, instead of that of Redis.
    clock: Option<SharedClock>,
    closed: AtomicBool,
    /// Whether the number of shards was found to be that of the data.
    compared: AtomicBool,
    /// What this replica has seen of each shard.
    seen: Vec<Seen>,
}

impl Shards {
    /// Makes the shards of a namespace.
    pub(crate) fn new(
        client: Arc<Client>,
        namespace: String,
        count: usize,
        clock: Option<SharedClock>,
    ) -> Self {
        let text = include_str!("lua/initialize.lua").to_owned();
        Self {
            client,
            namespace,
            count,
            initialize: Script::without_prelude("initialize", &[], text),
            clock,
            closed: AtomicBool::new(false),
            compared: AtomicBool::new(false),
            seen: (0..count).map(|_| Seen::default()).collect(),
        }
    }

    /// Returns the client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Closes the store: every later call fails.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Fails when the store was closed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] after [`Self::close`].
    pub(crate) fn check_open(&self) -> StoreResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
    }

    /// Returns a shard's part of a limit. The parts of all shards add up to it.
    pub(crate) fn part_of(&self, limit: usize, shard: usize) -> usize {
        limit / self.count() + usize::from(shard < limit % self.count())
    }

    /// Returns how many shards there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the shard of a key that is made of parts.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> usize {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut head = [0; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        usize::try_from(u64::from_le_bytes(head) % self.count as u64).unwrap_or(0)
    }

    /// Returns the clock of this replica, for the age of what it remembers; a test's, where there is one.
    pub(crate) fn own_clock(&self) -> SharedClock {
        self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::resume(None)))
    }

    /// Returns what this replica has seen of a shard.
    pub(crate) fn seen(&self, shard: usize) -> &Seen {
        &self.seen[shard]
    }

    fn key(&self, shard: usize, name: &str) -> String {
        format!("{{{}:{shard}}}:{name}", self.namespace)
    }

    /// Runs a script on a shard. `KEYS` are the shard's `info` and then the script's own; `ARGV` is what the prelude
    /// reads and then what `arguments` adds.
    ///
    /// # Errors
    /// When Redis can't be reached, does not reply in time, or refuses. The script does not run any more after
    /// this returned [`ErrorKind::Timeout`], though it may have run before.
    pub(crate) async fn run(
        &self,
        shard: usize,
        traffic: Traffic,
        script: &Script,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Value> {
        self.check_open()?;
        if !self.compared.load(Ordering::Acquire) {
            self.compare().await?;
        }
        let keys = ["info"].iter().chain(&script.keys).map(|name| self.key(shard, name));
        let keys: Vec<String> = keys.collect();
        // A test's clock is read once for each step, however often the step is sent.
        let now = self.test_now();
        let deadline = self.client.deadline();
        let mut by_text = false;
        for _ in 0..ATTEMPTS {
            let head = self.head(shard, deadline, &now);
            let mut command =
                if by_text { script.by_text(&keys, &head) } else { script.by_sha1(&keys, &head) };
            arguments(&mut command);
            let sent = Instant::now();
            match self.client.call(traffic, &command, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::NoScript) => {
                    tracing::debug!(script = script.name, "redis does not know a script yet");
                    by_text = true;
                }
                Err(CallError::Uninitialized) => {
                    tracing::info!(shard, "a shard of the store is initialized");
                    self.initialize(shard).await?;
                    // All shards may have been wiped, and initialized with another number of them.
                    self.compare().await?;
                }
                // Nothing was known of the server's clock, or it was set, or the command was held up.
                Err(CallError::Late(server_us)) => self.client.note_time(shard, sent, server_us),
                Err(CallError::Store(error)) => return Err(error),
            }
        }
        let why = "redis keeps losing its scripts or its data, or its clock keeps changing";
        Err(StoreError::new(ErrorKind::Unavailable, why))
    }

    /// Returns what each script begins to read: the deadline, a test's time, and what was seen of the shard.
    fn head(&self, shard: usize, deadline: Instant, now: &str) -> String {
        let mut head = self.client.deadline_us(shard, deadline).to_string();
        head.push(',');
        head.push_str(now);
        self.seen(shard).append_to(&mut head);
        head
    }

    /// Runs a script on each of some shards at the same time; returns the replies in the order of the
    /// shards.
    ///
    /// # Errors
    /// As [`Self::run`], if it fails for any of them.
    pub(crate) async fn run_on(
        &self,
        shards: impl Iterator<Item = usize>,
        traffic: Traffic,
        script: &Script,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Vec<Value>> {
        let arguments = &arguments;
        // All are waited for: one that was given up for another's failure could change the store later.
        join_all(shards.map(|shard| self.run(shard, traffic, script, arguments)))
            .await
            .into_iter()
            .collect()
    }

    /// Runs a script on all shards, as [`Self::run_on`].
    ///
    /// # Errors
    /// As [`Self::run`], if it fails for any of them.
    pub(crate) async fn run_on_all(
        &self,
        script: &Script,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<Vec<Value>> {
        self.run_on(0..self.count, Traffic::Small, script, arguments).await
    }

    /// Runs a script that removes at most `step` entries, on all shards, until nothing is left to
    /// remove; returns how many it removed. The script returns how many it removed, as a list of numbers
    /// where it removes several kinds of entries.
    ///
    /// # Errors
    /// As [`Self::run`]; other shards were done to their end then.
    pub(crate) async fn run_until_done(
        &self,
        script: &Script,
        step: u64,
        arguments: impl Fn(&mut Cmd),
    ) -> StoreResult<u64> {
        let arguments = &arguments;
        let runs = (0..self.count).map(|shard| async move {
            let mut removed = 0;
            loop {
                let reply = self.run(shard, Traffic::Small, script, arguments).await?;
                let counts: Vec<u64> = match reply {
                    Value::Int(_) => vec![read(reply)?],
                    reply => read(reply)?,
                };
                removed += counts.iter().sum::<u64>();
                // Fewer than a step of every kind: there were no more.
                if counts.iter().all(|count| *count < step) {
                    return Ok(removed);
                }
            }
        });
        join_all(runs).await.into_iter().sum()
    }

    /// Runs a script on each shard that any of `keys` lies in, for at most `step` keys at a time.
    /// `arguments` gets the shard and the keys. The script returns one item for each key, in order; this returns
    /// them in the order of `keys`.
    ///
    /// # Errors
    /// As [`Self::run`], if it fails for any shard. [`ErrorKind::PartlyApplied`] where the script changes something and
    /// ran on others.
    pub(crate) async fn scatter<K, T>(
        &self,
        scatter: Scatter<'_, impl Fn(&K) -> usize>,
        keys: &[K],
        arguments: impl Fn(&mut Cmd, usize, &mut dyn Iterator<Item = &K>),
    ) -> StoreResult<Vec<T>>
    where
        T: FromRedisValue,
    {
        let Scatter { script, traffic, shard_of, step, changes } = scatter;
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); self.count];
        for (index, key) in keys.iter().enumerate() {
            by_shard[shard_of(key)].push(index);
        }
        let steps = by_shard
            .iter()
            .enumerate()
            .flat_map(|(shard, indexes)| indexes.chunks(step).map(move |step| (shard, step)));
        let arguments = &arguments;
        let runs = steps.map(|(shard, indexes)| async move {
            let add = |command: &mut Cmd| {
                arguments(command, shard, &mut indexes.iter().map(|index| &keys[*index]));
            };
            let items: Vec<T> = read(self.run(shard, traffic, script, add).await?)?;
            if items.len() != indexes.len() {
                return Err(StoreError::new(ErrorKind::Corrupt, "a reply has a wrong length"));
            }
            Ok::<_, StoreError>(indexes.iter().copied().zip(items))
        });
        // All are waited for: one that was given up for another's failure could change the store later.
        let mut found: Vec<(usize, T)> = Vec::with_capacity(keys.len());
        let mut failed = None;
        for run in join_all(runs).await {
            match run {
                Ok(items) => found.extend(items),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            let applied = if changes { found.len() } else { 0 };
            return Err(in_part(applied, error));
        }
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    /// Compares the number of shards with that of the data: with another number, each key would be
    /// looked up in another shard.
    async fn compare(&self) -> StoreResult<()> {
        let stored = self.initialize(0).await?;
        if stored != self.count {
            let why = format!(
                "the data under {:?} lies in {stored} shards, not in {}: set store.redis.index_shards \
                 to {stored}, or use another store.redis.namespace",
                self.namespace, self.count
            );
            return Err(StoreError::new(ErrorKind::Unavailable, why));
        }
        self.compared.store(true, Ordering::Release);
        Ok(())
    }

    /// Starts the first epoch of a shard, unless it has one; returns how many shards the data has.
    async fn initialize(&self, shard: usize) -> StoreResult<usize> {
        let epoch = format!("{:016x}", random()?);
        let keys = [self.key(shard, "info")];
        let deadline = self.client.deadline();
        let mut command =
            self.initialize.by_text(&keys, &self.head(shard, deadline, &self.test_now()));
        command.arg(epoch).arg(self.count);
        match self.client.call(Traffic::Small, &command, deadline).await {
            Ok(shards) => read(shards),
            Err(CallError::Store(error)) => Err(error),
            Err(CallError::NoScript | CallError::Uninitialized | CallError::Late(_)) => {
                Err(StoreError::new(ErrorKind::Internal, "a shard could not be initialized"))
            }
        }
    }

    /// Returns the time of a test's clock in microseconds, rounded down, with a plus sign where that
    /// cut something off; nothing where the time of Redis counts.
    fn test_now(&self) -> String {
        self.clock.as_ref().map_or(String::new(), |clock| {
            let nanos = clock.now().as_nanos();
            let more = if nanos % 1_000 == 0 { "" } else { "+" };
            format!("{}{more}", nanos / 1_000)
        })
    }
}

/// How [`Shards::scatter`] divides its keys.
pub(crate) struct Scatter<'a, F> {
    /// The script.
    pub(crate) script: &'a Script,
    /// What it transfers.
    pub(crate) traffic: Traffic,
    /// Returns the shard of a key.
    pub(crate) shard_of: F,
    /// The most keys of one run of the script, above 0.
    pub(crate) step: usize,
    /// Whether it changes anything.
    pub(crate) changes: bool,
}

/// Returns the error of a batch that failed with `error` after `applied` of its items were applied.
pub(crate) fn in_part(applied: usize, error: StoreError) -> StoreError {
    if applied == 0 {
        return error;
    }
    let kind = ErrorKind::PartlyApplied { applied: applied as u64 };
    StoreError::caused_by(kind, "a part of a batch was applied, and then it failed", error)
}
