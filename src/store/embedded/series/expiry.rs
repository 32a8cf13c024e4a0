//! Which series expire when.
//!
//! A wheel of one-second buckets. A series that is updated moves nothing here: its entry comes
//! up at the old time, is seen to live on, and is put where it belongs by then. So an update costs
//! nothing, and each series is looked at about once per retention.
//!
//! An entry is valid only where its series' [`BucketRef`] points back at it; others are void, and
//! are dropped when they come up, or by a sweep when they have become many.
//! Invariant: every live series that can expire has a valid entry at or before its expiry; and a step looks at one
//! entry, however many come up at one moment.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const NANOS_PER_BUCKET: i64 = 1_000_000_000;

/// Fewer void entries than this are left alone.
const SWEEP_FROM: usize = 4096;

/// Where the valid entry of a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BucketRef(u32);

impl BucketRef {
    /// There is no entry.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// The entry is among those of the seconds that have begun.
    const CURRENT: Self = Self(u32::MAX - 1);
    const LAST: u32 = u32::MAX - 2;

    fn of(due_nanos: i64) -> Self {
        let bucket = due_nanos.div_euclid(NANOS_PER_BUCKET).max(0);
        Self(u32::try_from(bucket).map_or(Self::LAST, |b| b.min(Self::LAST)))
    }

    /// Returns whether an entry here comes up no later than one in `bucket`.
    fn is_in_time_for(self, bucket: Self) -> bool {
        self == Self::CURRENT || (self != Self::NONE && self.0 <= bucket.0)
    }
}

/// The wheel.
#[derive(Debug, Default)]
pub(super) struct ExpiryWheel {
    buckets: BTreeMap<u32, Vec<u32>>,
    /// How many entries the buckets hold, void ones included.
    entries: usize,
    /// At how many entries the void ones are swept out.
    sweep_at: usize,
    /// The entries of buckets that have begun, as (due, slot), earliest first.
    current: BinaryHeap<Reverse<(i64, u32)>>,
}

/// What a step of the wheel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Took out a series that is due.
    Due(u32),
    /// Moved or dropped an entry.
    Moved,
    /// Nothing: no series is due.
    Idle,
}

/// What the wheel needs to know about each series.
pub(super) trait Expiring {
    /// Returns when the series is due, in nanoseconds since 1970; `None` when it isn't live.
    fn due_nanos(&self, slot: u32) -> Option<i64>;
    /// Returns where the series' valid entry is.
    fn bucket(&self, slot: u32) -> BucketRef;
    /// Notes where the series' valid entry is.
    fn set_bucket(&mut self, slot: u32, bucket: BucketRef);
}

impl ExpiryWheel {
    /// Adds the entry of a series that has just become live, unless it has one that serves: it
    /// may have been deleted and made again.
    pub(super) fn insert(&mut self, slot: u32, series: &mut impl Expiring) {
        let Some(due) = series.due_nanos(slot) else { return };
        let bucket = BucketRef::of(due);
        if series.bucket(slot).is_in_time_for(bucket) {
            return;
        }
        if self.entries >= self.sweep_at.max(SWEEP_FROM) {
            self.sweep(series);
        }
        self.buckets.entry(bucket.0).or_default().push(slot);
        self.entries += 1;
        series.set_bucket(slot, bucket);
    }

    /// Returns whether [`Self::step`] has nothing to do, not even to move entries.
    pub(super) fn is_idle(&self, now_nanos: i64) -> bool {
        let now = BucketRef::of(now_nanos).0;
        self.buckets.first_key_value().is_none_or(|(bucket, _)| *bucket > now)
            && self.current.peek().is_none_or(|Reverse((due, _))| *due > now_nanos)
    }

    /// Looks at one entry: first at those of the buckets that have begun, then at what is due. Series that are due
    /// come up in the order of their ends, as far as [`Step::Idle`] was returned in between.
    pub(super) fn step(&mut self, now_nanos: i64, series: &mut impl Expiring) -> Step {
        if self.begin_entry(now_nanos, series) {
            return Step::Moved;
        }
        let Some(&Reverse((due, slot))) = self.current.peek() else {
            self.current = BinaryHeap::new();
            return Step::Idle;
        };
        if due > now_nanos {
            return Step::Idle;
        }
        self.current.pop();
        if series.bucket(slot) != BucketRef::CURRENT {
            return Step::Moved;
        }
        series.set_bucket(slot, BucketRef::NONE);
        match series.due_nanos(slot) {
            Some(due) if due <= now_nanos => return Step::Due(slot),
            Some(_) => self.insert(slot, series),
            None => {}
        }
        Step::Moved
    }

    /// Moves one entry out of the first bucket that has begun; returns whether there was one.
    fn begin_entry(&mut self, now_nanos: i64, series: &mut impl Expiring) -> bool {
        let now = BucketRef::of(now_nanos).0;
        let Some(mut first) = self.buckets.first_entry().filter(|b| *b.key() <= now) else {
            return false;
        };
        let bucket = BucketRef(*first.key());
        let Some(slot) = first.get_mut().pop() else {
            first.remove();
            return true;
        };
        self.entries -= 1;
        if series.bucket(slot) != bucket {
            return true;
        }
        series.set_bucket(slot, BucketRef::NONE);
        match series.due_nanos(slot) {
            // It was updated: straight to where it belongs.
            Some(due) if BucketRef::of(due).0 > now => self.insert(slot, series),
            Some(due) => {
                series.set_bucket(slot, BucketRef::CURRENT);
                self.current.push(Reverse((due, slot)));
            }
            None => {}
        }
        true
    }

    /// Drops the void entries, so that series which come and go do not pile them up.
    fn sweep(&mut self, series: &impl Expiring) {
        self.entries = 0;
        self.buckets.retain(|bucket, slots| {
            slots.retain(|&slot| series.bucket(slot) == BucketRef(*bucket));
            slots.sort_unstable();
            slots.dedup();
            slots.shrink_to(slots.len() * 2);
            self.entries += slots.len();
            !slots.is_empty()
        });
        self.sweep_at = 2 * self.entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series as the wheel sees them: due when, entry where.
    #[derive(Default)]
    struct Series(Vec<(Option<i64>, Option<BucketRef>)>);

    impl Expiring for Series {
        fn due_nanos(&self, slot: u32) -> Option<i64> {
            self.0[slot as usize].0
        }

        fn bucket(&self, slot: u32) -> BucketRef {
            self.0[slot as usize].1.unwrap_or(BucketRef::NONE)
        }

        fn set_bucket(&mut self, slot: u32, bucket: BucketRef) {
            self.0[slot as usize].1 = Some(bucket);
        }
    }

    const SECOND: i64 = NANOS_PER_BUCKET;

    impl ExpiryWheel {
        /// Takes steps until a series is due; `None` when there is none.
        fn pop_due(&mut self, now_nanos: i64, series: &mut Series) -> Option<u32> {
            loop {
                match self.step(now_nanos, series) {
                    Step::Due(slot) => return Some(slot),
                    Step::Moved => {}
                    Step::Idle => {
                        assert!(self.is_idle(now_nanos));
                        return None;
                    }
                }
            }
        }
    }

    #[test]
    fn series_come_up_exactly_when_they_are_due() {
        let mut wheel = ExpiryWheel::default();
        let dues = [5 * SECOND + 7, 5 * SECOND + 6, 9 * SECOND, 5 * SECOND + 8];
        let mut series = Series(dues.iter().map(|due| (Some(*due), None)).collect());
        (0..4).for_each(|slot| wheel.insert(slot, &mut series));
        series.0[3].0 = Some(20 * SECOND);
        assert_eq!(wheel.pop_due(5 * SECOND + 5, &mut series), None);
        assert_eq!(wheel.pop_due(5 * SECOND + 6, &mut series), Some(1));
        assert_eq!(wheel.pop_due(5 * SECOND + 6, &mut series), None);
        assert_eq!(wheel.pop_due(10 * SECOND, &mut series), Some(0));
        assert_eq!(wheel.pop_due(10 * SECOND, &mut series), Some(2));
        assert_eq!(wheel.pop_due(20 * SECOND - 1, &mut series), None);
        assert_eq!(wheel.pop_due(20 * SECOND, &mut series), Some(3));
    }

    #[test]
    fn series_that_come_and_go_do_not_pile_up() {
        let mut wheel = ExpiryWheel::default();
        let mut series = Series(vec![(None, None); 10]);
        for round in 0..100_000 {
            let slot = u32::try_from(round % 10).expect("small");
            // Freed and used again: the entry that it had is void.
            series.0[slot as usize] = (Some((1000 + round) * SECOND), None);
            wheel.insert(slot, &mut series);
        }
        assert!(wheel.entries <= SWEEP_FROM + 1, "{}", wheel.entries);
        let mut seen = 0;
        while wheel.pop_due(i64::MAX, &mut series).is_some() {
            seen += 1;
        }
        assert_eq!(seen, 10);
    }
}
