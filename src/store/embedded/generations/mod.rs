//! Generations of the embedded store: the commands on their rows.
//!
//! All bumps have one order: each has a number from a counter that is committed with it. A
//! fence is such a number, and holds for a key as long as the key was not bumped after it.
//! Forgetting keys raises the minimum fence, below which no fence holds for any key; so does each
//! start, since a store that was restored does not know what happened after its backup.

mod rows;

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

pub(super) use self::rows::Generations;
use self::rows::{GenerationRow, LAST_BUMP, MINIMUM_FENCE};
use super::durable::{DurableStore, Tables, Txn};
use crate::model::generations::{Generation, GenerationFence, GenerationKey};
use crate::model::time::SteadyTime;
use crate::store::{GenerationStore, StoreResult};

/// How many keys one step of a cleanup looks at.
const CLEANUP_KEYS: usize = 2_000;

/// Returns the generation of a key.
pub(super) fn generation(tables: &Tables, key: &GenerationKey, now: SteadyTime) -> Generation {
    let row = tables.rows::<Generations>().get(key, now);
    let (number, bump) = row.map_or((0, 0), |row| (row.number, row.bump));
    Generation { number, fence: GenerationFence(bump.max(tables.counter(&MINIMUM_FENCE))) }
}

/// Returns the fence of the last bump of all keys.
pub(super) fn last_bump(tables: &Tables) -> GenerationFence {
    GenerationFence(tables.counter(&LAST_BUMP))
}

fn bump(txn: &mut Txn<'_>, key: GenerationKey) -> Generation {
    let number = txn.get::<Generations>(&key).map_or(0, |row| row.number).saturating_add(1);
    let bump = txn.next(LAST_BUMP);
    txn.put::<Generations>(key, GenerationRow { number, bump, bumped_at: txn.now.steady });
    Generation { number, fence: GenerationFence(bump) }
}

/// Forgets those of `keys` that were not bumped since `cutoff`; returns how many.
fn forget(txn: &mut Txn<'_>, keys: Vec<GenerationKey>, cutoff: SteadyTime) -> u64 {
    let mut forgotten = 0;
    let before = txn.counter(&MINIMUM_FENCE);
    let mut minimum = before;
    for key in keys {
        if let Some(row) = txn.get::<Generations>(&key)
            && row.bumped_at <= cutoff
        {
            minimum = minimum.max(row.bump);
            txn.delete::<Generations>(key);
            forgotten += 1;
        }
    }
    if minimum != before {
        txn.set_counter(MINIMUM_FENCE, minimum);
    }
    forgotten
}

#[async_trait]
impl GenerationStore for DurableStore {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        let (tables, now) = self.read()?;
        Ok(keys.iter().map(|key| generation(&tables, key, now.steady)).collect())
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        self.write(move |txn| {
            let mut bumped: HashMap<GenerationKey, Generation> = HashMap::new();
            // The map is for keys that are listed twice; a single key goes without it.
            let one = keys.len() == 1;
            keys.into_iter()
                .map(|key| {
                    if one {
                        return bump(txn, key);
                    }
                    *bumped.entry(key).or_insert_with_key(|key| bump(txn, key.clone()))
                })
                .collect()
        })
        .await
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        let mut forgotten = 0;
        let mut after: Option<GenerationKey> = None;
        let cutoff = self.read()?.1.steady.saturating_sub(retention);
        loop {
            // In small steps: readers and other commands wait for each of them. A key that is bumped
            // in between stays, since the command looks at it again.
            let (old, last) = {
                let (tables, now) = self.read()?;
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let seen = tables.rows::<Generations>().range(from, now.steady).take(CLEANUP_KEYS);
                let mut last = None;
                let mut old = Vec::new();
                for (key, row) in seen {
                    last = Some(key);
                    if row.bumped_at <= cutoff {
                        old.push(key.clone());
                    }
                }
                (old, last.cloned())
            };
            if last.is_none() {
                return Ok(forgotten);
            }
            after = last;
            if !old.is_empty() {
                forgotten += self.write(move |txn| forget(txn, old, cutoff)).await?;
            }
        }
    }
}
