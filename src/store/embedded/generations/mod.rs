//! Generations of the embedded store. The rules of their table; what commits it is in `state`.
//!
//! Every bump has a place in one order of all bumps: a counter that is committed with it. A
//! fence is such a place, and holds for a key as long as the key's last bump is not behind it.
//! What is forgotten raises the floor, below which no fence holds for any key; so does each
//! start, since a store that was restored does not know what happened after its backup.

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::generations::{Generation, GenerationFence, GenerationKey};
use crate::model::time::Timestamp;
use crate::store::embedded::durable::DurableStore;
use crate::store::embedded::durable::counters::Counter;
use crate::store::embedded::durable::table::Resource;
use crate::store::embedded::durable::transaction::{Tables, Txn};
use crate::store::{GenerationStore, StoreResult};

/// How many keys one step of a cleanup looks at: what readers and other commands wait for.
const CLEANUP_KEYS: usize = 2_000;

/// The table of the generations.
#[derive(Debug)]
pub(in crate::store::embedded) struct Generations;

/// A key that was bumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct GenerationRow {
    number: i64,
    /// The place of its last bump.
    bump: i64,
    bumped_at: Timestamp,
}

impl Resource for Generations {
    type Key = GenerationKey;
    type Row = GenerationRow;
    const NAME: &'static str = "generations";
    const TAG: u8 = 5;

    /// Only a cleanup ends a generation.
    fn expires_at(&self, _: &GenerationRow) -> Option<Timestamp> {
        None
    }
}

fn generation(row: Option<&GenerationRow>, floor: i64) -> Generation {
    let (number, bump) = row.map_or((0, 0), |row| (row.number, row.bump));
    Generation { number, fence: GenerationFence(bump.max(floor)) }
}

impl Tables {
    /// Returns the generation of a key.
    pub(in crate::store::embedded) fn generation(
        &self,
        key: &GenerationKey,
        now: Timestamp,
    ) -> Generation {
        let floor = self.counters.get(&Counter::BumpFloor, now).copied().unwrap_or(0);
        generation(self.generations.get(key, now), floor)
    }

    /// Returns the place of the last bump of all.
    pub(in crate::store::embedded) fn last_bump(&self, now: Timestamp) -> GenerationFence {
        GenerationFence(self.counters.get(&Counter::LastBump, now).copied().unwrap_or(0))
    }
}

fn bump(txn: &mut Txn<'_>, key: GenerationKey) -> Generation {
    let number = txn.generations.get(&key).map_or(0, |row| row.number).saturating_add(1);
    let bump = txn.next(Counter::LastBump);
    txn.generations.put(key, GenerationRow { number, bump, bumped_at: txn.now });
    Generation { number, fence: GenerationFence(bump) }
}

/// Forgets those of `keys` that were not bumped since `cutoff`; gives how many.
fn forget(txn: &mut Txn<'_>, keys: Vec<GenerationKey>, cutoff: Timestamp) -> u64 {
    let mut forgotten = 0;
    let before = txn.counters.get(&Counter::BumpFloor).copied().unwrap_or(0);
    let mut floor = before;
    for key in keys {
        if let Some(row) = txn.generations.get(&key)
            && row.bumped_at <= cutoff
        {
            floor = floor.max(row.bump);
            txn.generations.delete(key);
            forgotten += 1;
        }
    }
    if floor != before {
        txn.counters.put(Counter::BumpFloor, floor);
    }
    forgotten
}

#[async_trait]
impl GenerationStore for DurableStore {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        let (tables, now) = self.read()?;
        Ok(keys.iter().map(|key| tables.generation(key, now)).collect())
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        self.write(move |txn| {
            let mut done: HashMap<GenerationKey, Generation> = HashMap::new();
            let one = keys.len() == 1;
            keys.into_iter()
                .map(|key| {
                    if one {
                        return bump(txn, key);
                    }
                    *done.entry(key).or_insert_with_key(|key| bump(txn, key.clone()))
                })
                .collect()
        })
        .await
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        let mut forgotten = 0;
        let mut after: Option<GenerationKey> = None;
        let cutoff = self.read()?.1.saturating_sub(retention);
        loop {
            let (over, last) = {
                let (tables, now) = self.read()?;
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let seen = tables.generations.range(from, now).take(CLEANUP_KEYS);
                let mut last = None;
                let mut over = Vec::new();
                for (key, row) in seen {
                    last = Some(key);
                    if row.bumped_at <= cutoff {
                        over.push(key.clone());
                    }
                }
                (over, last.cloned())
            };
            if last.is_none() {
                return Ok(forgotten);
            }
            after = last;
            if !over.is_empty() {
                forgotten += self.write(move |txn| forget(txn, over, cutoff)).await?;
            }
        }
    }
}
