//! Claims in memory: 28 bytes each, in tables that are at least 7/10 full.
//!
//! Knows neither the disk nor threads. Claims are spread over many small tables by a hash, and collisions within one
//! move on to the next slot. A table grows by a fifth, so none has much room that is not used, and growing one takes
//! no long time. Nothing is deleted from a table: what has expired goes when the table is made anew.
//!
//! Invariant: of two claims of an id, the one with the later end is found.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::end::ClaimEnd;
use super::table::Id;

/// How many tables there are.
const TABLES: usize = 1024;
/// A table with more than 7/8 of its slots in use grows by a fifth.
const FULL: (usize, usize) = (7, 8);
/// A table that is made anew has so much room: 4/5 of its slots are in use.
const ROOMY: (usize, usize) = (5, 4);

/// A claim, or nothing where the end is zero. Bytes, so that nothing is lost to alignment.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    id: Id,
    content: [u8; 8],
    end: [u8; 4],
}

impl Slot {
    fn end(&self) -> ClaimEnd {
        ClaimEnd(u32::from_le_bytes(self.end))
    }

    fn is_free(&self) -> bool {
        self.end == [0; 4]
    }
}

/// Claims by their ids.
#[derive(Debug)]
pub(super) struct PackedClaims {
    tables: Vec<Table>,
    hasher: RandomState,
    /// How many claims have each end.
    ends: BTreeMap<ClaimEnd, u64>,
    /// The next table to be cleaned.
    next_cleaned: usize,
}

impl Default for PackedClaims {
    fn default() -> Self {
        Self {
            tables: vec![Table::default(); TABLES],
            hasher: RandomState::default(),
            ends: BTreeMap::new(),
            next_cleaned: 0,
        }
    }
}

impl PackedClaims {
    /// Returns the content of a claim that has not ended when `passed` is the latest end that has come.
    pub(super) fn get(&self, id: &Id, passed: ClaimEnd) -> Option<u64> {
        let hash = self.hasher.hash_one(id);
        let slot = self.tables[table_of(hash)].find(hash, id)?;
        (slot.end() > passed).then(|| u64::from_le_bytes(slot.content))
    }

    /// Adds a claim, unless there is one of the same id with a later end.
    pub(super) fn insert(&mut self, id: Id, content: u64, end: ClaimEnd) {
        let hash = self.hasher.hash_one(id);
        let slot = Slot { id, content: content.to_le_bytes(), end: end.0.to_le_bytes() };
        let table = &mut self.tables[table_of(hash)];
        if table.must_grow() {
            let larger = table.slots.len() * 6 / 5 + 8;
            table.rebuild(&self.hasher, larger, |_| true);
        }
        match table.put(hash, slot) {
            Put::Added => {}
            Put::Replaced(before) => forget(&mut self.ends, before, 1),
            Put::Outlasted => return,
        }
        *self.ends.entry(end).or_default() += 1;
    }

    /// Counts the claims that have not ended.
    pub(super) fn live(&self, passed: ClaimEnd) -> u64 {
        self.ends.iter().rev().take_while(|(end, _)| **end > passed).map(|(_, count)| count).sum()
    }

    /// Counts the claims that have ended and are held nevertheless.
    pub(super) fn ended(&self, passed: ClaimEnd) -> u64 {
        self.ends.range(..=passed).map(|(_, count)| count).sum()
    }

    /// Removes the ended claims from the next `tables` tables; returns how many.
    pub(super) fn clean(&mut self, passed: ClaimEnd, tables: usize) -> usize {
        let mut removed = 0;
        for _ in 0..tables.min(TABLES) {
            if self.ended(passed) == 0 {
                break;
            }
            let table = &mut self.tables[self.next_cleaned];
            self.next_cleaned = (self.next_cleaned + 1) % TABLES;
            let ended = |slot: &&Slot| !slot.is_free() && slot.end() <= passed;
            let mut of_table = 0;
            for slot in table.slots.iter().filter(ended) {
                forget(&mut self.ends, slot.end(), 1);
                of_table += 1;
            }
            if of_table > 0 {
                let room = (table.used - of_table) * ROOMY.0 / ROOMY.1 + 1;
                table.rebuild(&self.hasher, room, |slot| slot.end() > passed);
            }
            removed += of_table;
        }
        removed
    }
}

fn forget(ends: &mut BTreeMap<ClaimEnd, u64>, end: ClaimEnd, count: u64) {
    if let Some(left) = ends.get_mut(&end) {
        *left = left.saturating_sub(count);
        if *left == 0 {
            ends.remove(&end);
        }
    }
}

fn table_of(hash: u64) -> usize {
    usize::try_from(hash % TABLES as u64).expect("there are few tables")
}

/// How a claim was put into its table.
enum Put {
    Added,
    Replaced(ClaimEnd),
    Outlasted,
}

#[derive(Debug, Clone, Default)]
struct Table {
    slots: Vec<Slot>,
    used: usize,
}

impl Table {
    fn must_grow(&self) -> bool {
        (self.used + 1) * FULL.1 > self.slots.len() * FULL.0
    }

    /// Returns where the search for an id begins. The upper bits of the hash, since the lower ones are the same in a
    /// whole table.
    fn first(&self, hash: u64) -> usize {
        let scaled = u128::from(hash) * self.slots.len() as u128;
        usize::try_from(scaled >> 64).expect("below the number of slots")
    }

    /// Returns the position of the id, or the free one where it belongs. There always is one, or the table is empty.
    fn position(&self, hash: u64, id: &Id) -> Option<usize> {
        let from = self.first(hash);
        let is_it = |slot: &Slot| slot.is_free() || slot.id == *id;
        let behind = self.slots[from..].iter().position(is_it).map(|at| from + at);
        behind.or_else(|| self.slots[..from].iter().position(is_it))
    }

    fn find(&self, hash: u64, id: &Id) -> Option<&Slot> {
        if self.slots.is_empty() {
            return None;
        }
        self.position(hash, id).map(|at| &self.slots[at]).filter(|slot| !slot.is_free())
    }

    /// Puts a claim where it belongs. The table has room.
    fn put(&mut self, hash: u64, slot: Slot) -> Put {
        let at = self.position(hash, &slot.id).expect("a table that need not grow has free slots");
        let held = &mut self.slots[at];
        if held.is_free() {
            *held = slot;
            self.used += 1;
            return Put::Added;
        }
        let before = held.end();
        if before > slot.end() {
            return Put::Outlasted;
        }
        *held = slot;
        Put::Replaced(before)
    }

    /// Makes the table anew with room for `slots`, of those claims that are to `stay`.
    fn rebuild(&mut self, hasher: &RandomState, slots: usize, stay: impl Fn(&Slot) -> bool) {
        let before = std::mem::take(self);
        self.slots = vec![Slot::default(); slots];
        for slot in before.slots.into_iter().filter(|slot| !slot.is_free() && stay(slot)) {
            self.put(hasher.hash_one(slot.id), slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    /// Numbers that look like hashes.
    fn id(number: u64) -> Id {
        let hash = blake3::hash(&number.to_le_bytes());
        hash.as_bytes()[..16].try_into().expect("16 bytes")
    }

    #[test]
    fn a_claim_takes_at_most_40_bytes_of_memory() {
        const CLAIMS: u64 = 1_000_000;
        let mut most = 0;
        let info = allocation_counter::measure(|| {
            let mut claims = PackedClaims::default();
            for number in 0..CLAIMS {
                claims.insert(
                    id(number),
                    number,
                    ClaimEnd(u32::try_from(number / 50_000).expect("small") + 1),
                );
            }
            assert_eq!(claims.live(ClaimEnd(0)), CLAIMS);
            most =
                claims.tables.iter().map(|table| table.slots.capacity() * size_of::<Slot>()).sum();
            std::mem::forget(claims);
        });
        assert!(info.bytes_max <= 40 * CLAIMS, "{} bytes at most", info.bytes_max);
        assert!(most as u64 <= 40 * CLAIMS, "{most} bytes of slots");
    }

    #[test]
    fn at_no_size_is_much_room_left() {
        let mut claims = PackedClaims::default();
        for number in 0..300_000 {
            claims.insert(id(number), 0, ClaimEnd(1));
            if number >= 100_000 && number % 10_000 == 0 {
                let bytes: usize =
                    claims.tables.iter().map(|table| table.slots.capacity() * 28).sum();
                assert!(bytes as u64 <= 40 * number, "{bytes} bytes for {number}");
            }
        }
    }

    proptest! {
        #[test]
        fn claims_are_found_until_they_end(
            steps in prop::collection::vec((0..60_u64, any::<u64>(), 1..20_u32, any::<bool>()), 1..400),
        ) {
            let mut claims = PackedClaims::default();
            let mut model: HashMap<u64, (u64, u32)> = HashMap::new();
            for (at, (number, content, lasts, cleans)) in steps.into_iter().enumerate() {
                let passed = u32::try_from(at / 8).expect("small");
                let end = passed + lasts;
                let held = model.get(&number).filter(|(_, end)| *end > passed).map(|(content, _)| *content);
                prop_assert_eq!(claims.get(&id(number), ClaimEnd(passed)), held);
                if held.is_none() {
                    claims.insert(id(number), content, ClaimEnd(end));
                    model.insert(number, (content, end));
                }
                let live = model.values().filter(|(_, end)| *end > passed).count();
                prop_assert_eq!(claims.live(ClaimEnd(passed)), live as u64);
                if cleans {
                    let ended = claims.ended(ClaimEnd(passed));
                    prop_assert_eq!(claims.clean(ClaimEnd(passed), TABLES) as u64, ended);
                    prop_assert_eq!(claims.ended(ClaimEnd(passed)), 0);
                }
            }
        }
    }

    #[test]
    fn an_older_claim_does_not_replace_a_newer_one() {
        let mut claims = PackedClaims::default();
        claims.insert(id(1), 2, ClaimEnd(9));
        claims.insert(id(1), 1, ClaimEnd(5));
        assert_eq!(claims.get(&id(1), ClaimEnd(7)), Some(2));
        assert_eq!((claims.live(ClaimEnd(4)), claims.live(ClaimEnd(9))), (1, 0));
    }

    #[test]
    fn ends_that_no_claim_has_any_more_take_no_memory() {
        let mut claims = PackedClaims::default();
        for end in 1..=1000 {
            claims.insert(id(1), 0, ClaimEnd(end));
            claims.insert(id(1000 + u64::from(end)), 0, ClaimEnd(end));
        }
        claims.clean(ClaimEnd(999), TABLES);
        assert_eq!(claims.ends, BTreeMap::from([(ClaimEnd(1000), 2)]));
    }
}
