//! Notices that shards lost data: the server was restarted, perhaps with an older file, or a replica
//! took over that had not received everything yet.
//!
//! The check itself is `epoch_check.lua`: it compares the run id of the server with the one that the
//! shard remembers, and the shard's numbers with those that this replica has seen, in the script, so that of racing
//! replicas one starts the new epoch. Scripts on series, generations and cached values include it; this is for
//! shards that no such script runs on just now.
//! Invariant: no two continuous histories of a shard have the same epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::watch;

use super::client::Traffic;
use super::replies::{number, read};
use super::script::scripts;
use super::seen::SeenEpoch;
use super::shards::Shards;
use crate::store::StoreResult;

scripts! {
    READ_EPOCH(&[]) = "lua/epoch_check.lua", "lua/read_epoch.lua";
    MEMORY_POLICY(&[]) = "lua/memory_policy.lua";
}

/// What the script returns: the server's time in microseconds, the epoch, when it started, the newest sequence number,
/// the last token, the last bump.
type Numbers = (String, String, String, String, String, String);

/// How old a check may be before another one is wanted: a bit more than a second, so that who
/// reads the status each second is always first.
const MAX_AGE: Duration = Duration::from_millis(1_100);

/// The check of all shards.
pub(crate) struct EpochCheck {
    shards: Arc<Shards>,
    /// The epochs that the last check found; none before the first one.
    known: Mutex<Vec<String>>,
    /// When the last check of all shards started.
    checked: watch::Sender<Option<Instant>>,
}

impl EpochCheck {
    /// Makes a check that has seen nothing yet.
    pub(crate) fn new(shards: Arc<Shards>) -> Self {
        Self { shards, known: Mutex::default(), checked: watch::Sender::default() }
    }

    /// Warns where a server evicts keys when its memory is full: those would be locks, leases and
    /// series that no client deleted.
    ///
    /// # Errors
    /// When a shard can't be reached.
    pub(crate) async fn check_memory_policy(&self) -> StoreResult<()> {
        for reply in self.shards.run_on_all(&MEMORY_POLICY, |_| {}).await? {
            let policy: String = read(reply)?;
            if !matches!(policy.as_str(), "noeviction" | "") {
                tracing::warn!(
                    policy,
                    "redis evicts keys when its memory is full: set maxmemory-policy to noeviction"
                );
                break;
            }
        }
        Ok(())
    }

    /// Waits until the last check of all shards is older than about a second. Whoever reads the status of the store
    /// checks as well.
    pub(crate) async fn wanted(&self) {
        let mut checked = self.checked.subscribe();
        loop {
            let last = *checked.borrow_and_update();
            let changed = checked.changed();
            match last {
                Some(last) => match tokio::time::timeout_at((last + MAX_AGE).into(), changed).await
                {
                    Ok(_) => {}
                    Err(_) => return,
                },
                // The first one is not for this to start.
                None => drop(changed.await),
            }
        }
    }

    /// As [`Self::check`], unless that was done within about the last second.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) async fn check_if_old(&self) -> StoreResult<()> {
        if self.checked.borrow().is_some_and(|last| last.elapsed() < MAX_AGE) {
            return Ok(());
        }
        self.check().await
    }

    /// Checks every shard, and starts a new epoch where another server process serves it than before.
    ///
    /// # Errors
    /// When a shard can't be reached. The others are checked all the same.
    pub(crate) async fn check(&self) -> StoreResult<()> {
        let started = Instant::now();
        let checks = (0..self.shards.count()).map(|shard| async move {
            let sent = Instant::now();
            let reply = self.shards.run(shard, Traffic::Small, &READ_EPOCH, |_| {}).await?;
            self.note(shard, sent, reply)
        });
        let epochs = futures_util::future::join_all(checks).await;
        self.compare(started, epochs.into_iter().collect::<StoreResult<_>>()?);
        Ok(())
    }

    /// Notes the reply of `read_epoch.lua` on a shard, to a command that was sent at `sent`; returns the epoch.
    ///
    /// # Errors
    /// When the reply has another shape.
    pub(crate) fn note(&self, shard: usize, sent: Instant, reply: Value) -> StoreResult<String> {
        let (time, epoch, started, seq, token, bump): Numbers = read(reply)?;
        self.shards.client().note_time(shard, sent, number(&time)?);
        let seen = self.shards.seen(shard);
        let (started, seq) = (number(&started)?, number(&seq)?);
        seen.note_epoch(SeenEpoch { epoch: epoch.clone(), started, seq });
        seen.note_token(number(&token)?);
        seen.note_bump(number(&bump)?);
        Ok(epoch)
    }

    /// Compares the epochs of all shards, which were read from `started` on, with those of the last check, and logs
    /// that there are new ones, whoever started them.
    pub(crate) fn compare(&self, started: Instant, epochs: Vec<String>) {
        let mut known = self.known.lock();
        let new = known.iter().zip(&epochs).filter(|(known, epoch)| known != epoch).count();
        *known = epochs;
        drop(known);
        if new > 0 {
            tracing::warn!(
                shards = new,
                "another redis process serves, or it lost data: earlier cursors and fences are invalid"
            );
        }
        self.checked.send_replace(Some(started));
    }
}
