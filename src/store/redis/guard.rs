//! Notices that shards lost their past: the server was started again, perhaps with an older file,
//! or a replica took over that had not everything yet.
//!
//! The step itself is `guard.lua`: it compares the run id of the server with the one that the shard
//! remembers, in the script, so that of racing replicas one begins the new epoch. Scripts of
//! series, and those that give or check generations, carry it themselves; this is for all shards that
//! nobody asks just now. Invariant: two lives of a shard never share an epoch.

use std::sync::Arc;

use parking_lot::Mutex;

use super::link::Weight;
use super::replies::read;
use super::script::Script;
use super::shards::Shards;
use crate::store::StoreResult;

/// The guard.
pub(super) struct Guard {
    shards: Arc<Shards>,
    check: Script,
    policy: Script,
    /// The epochs at the last look; none before the first.
    known: Mutex<Vec<String>>,
}

impl Guard {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        let check = Script::new(concat!(
            include_str!("lua/guard.lua"),
            include_str!("lua/check_guard.lua"),
        ));
        let policy = Script::new(include_str!("lua/policy.lua"));
        Self { shards, check, policy, known: Mutex::default() }
    }

    /// Warns where a server drops keys when its memory is full: those would be locks, leases and
    /// series that nobody deleted.
    ///
    /// # Errors
    /// When a shard can't be reached.
    pub(super) async fn check_policy(&self) -> StoreResult<()> {
        for answer in self.shards.run_on_all(Weight::Light, &self.policy, &[], |_, _| {}).await? {
            let policy: String = read(answer)?;
            if !matches!(policy.as_str(), "noeviction" | "") {
                tracing::warn!(
                    policy,
                    "redis drops keys when its memory is full: set maxmemory-policy to noeviction"
                );
                break;
            }
        }
        Ok(())
    }

    /// Looks at every shard, and begins a new epoch where another server process serves it than
    /// before; gives how many have begun one since the last look, whoever noticed it.
    ///
    /// # Errors
    /// When a shard can't be reached. Those that can are looked at all the same.
    pub(super) async fn check(&self) -> StoreResult<usize> {
        let looks = (0..self.shards.count()).map(|shard| async move {
            let run = self.shards.run(shard, Weight::Light, &self.check, &[], |_| {});
            read::<String>(run.await?)
        });
        let epochs = futures_util::future::join_all(looks).await;
        let epochs = epochs.into_iter().collect::<StoreResult<Vec<String>>>()?;
        let mut known = self.known.lock();
        let begun = known.iter().zip(&epochs).filter(|(known, epoch)| known != epoch).count();
        *known = epochs;
        if begun > 0 {
            tracing::warn!(
                shards = begun,
                "another redis process serves, or it lost data: cursors and fences begin anew"
            );
        }
        Ok(begun)
    }
}
