//! Generations of the embedded store: the commands on their rows.
//!
//! All bumps have one order: each has a number from a counter that is committed with it. A
//! fence is such a number, and holds for a key as long as the key was not bumped after it.
//! Forgetting keys raises the minimum fence, below which no fence holds for any key; so does each
//! start, since a store that was restored does not know what happened after its backup.

mod rows;

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;

pub(super) use self::rows::Generations;
use self::rows::{GenerationRow, LAST_BUMP, MINIMUM_FENCE};
use super::blocking::off_thread;
use super::durable::{DurableStore, Tables, TablesReader, Txn};
use crate::model::generations::{Generation, GenerationFence, GenerationKey};
use crate::model::time::SteadyTime;
use crate::store::{GenerationStore, StoreResult};

/// How many keys one step of a cleanup forgets.
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

/// Returns some keys from `from` on that were not bumped since `cutoff`; none when none is left.
fn old_keys(
    reader: &TablesReader,
    from: Bound<GenerationKey>,
    cutoff: SteadyTime,
) -> StoreResult<Vec<GenerationKey>> {
    let mut old = Vec::new();
    reader.for_each::<Generations>(from, |key, row| {
        if row.bumped_at <= cutoff {
            old.push(key.clone());
        }
        old.len() < CLEANUP_KEYS
    })?;
    Ok(old)
}

#[async_trait]
impl GenerationStore for DurableStore {
    async fn snapshot(&self, keys: &[GenerationKey]) -> StoreResult<Vec<Generation>> {
        let (tables, now) = self.read()?;
        Ok(keys.iter().map(|key| generation(&tables, key, now.steady)).collect())
    }

    async fn bump(&self, keys: Vec<GenerationKey>) -> StoreResult<Vec<Generation>> {
        self.try_write(move |txn| {
            let new: HashSet<_> =
                keys.iter().filter(|key| txn.get::<Generations>(key).is_none()).collect();
            txn.make_room::<Generations>(new.len())?;
            let mut bumped: HashMap<GenerationKey, Generation> = HashMap::new();
            // The map is for keys that are listed twice; a single key goes without it.
            let one = keys.len() == 1;
            let bumps = keys.into_iter().map(|key| {
                if one {
                    return bump(txn, key);
                }
                *bumped.entry(key).or_insert_with_key(|key| bump(txn, key.clone()))
            });
            Ok(bumps.collect())
        })
        .await
    }

    async fn cleanup(&self, retention: Duration) -> StoreResult<u64> {
        let mut forgotten = 0;
        let mut from = Bound::Unbounded;
        let cutoff = self.read()?.1.steady.saturating_sub(retention);
        loop {
            let reader = self.reader();
            let old = off_thread(move || old_keys(&reader, from, cutoff)).await?;
            let Some(last) = old.last().cloned() else { return Ok(forgotten) };
            from = Bound::Excluded(last);
            // In small steps: readers and other commands wait for each of them. A key that is bumped
            // in between stays, since the command looks at it again.
            forgotten += self.write(move |txn| forget(txn, old, cutoff)).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::model::time::Timestamp;
    use crate::store::embedded::fences::FenceLatches;
    use crate::store::embedded::sqlite::SyncMode;

    #[tokio::test]
    async fn a_key_that_is_bumped_after_a_cleanup_has_found_it_stays() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_000_000_000)));
        let tables = Tables::new().with(Generations { max: 10 });
        let loaded = DurableStore::load(None, SyncMode::Normal, tables).expect("opens");
        let latches = Arc::new(FenceLatches::default());
        let whole = loaded.make_whole().expect("commits");
        let store = whole.serve(Arc::clone(&clock) as _, latches).expect("a thread");
        let key = GenerationKey::parse("a").expect("valid");
        let cutoff = clock.steady();
        store.bump(vec![key.clone()]).await.expect("responds");
        // What a cleanup has found is forgotten later, in a command of its own.
        let found = vec![key.clone()];
        clock.advance(Duration::from_secs(1));
        store.bump(vec![key.clone()]).await.expect("responds");
        let forgotten = store.write(move |txn| forget(txn, found, cutoff)).await;
        assert_eq!(forgotten.expect("responds"), 0);
        let found = vec![key];
        let cutoff = clock.steady();
        let forgotten = store.write(move |txn| forget(txn, found, cutoff)).await;
        assert_eq!(forgotten.expect("responds"), 1);
    }
}
