//! Which series expire when.
//!
//! A wheel of one-second buckets. A series that is updated moves nothing here: its entry comes
//! up at the old time, is seen to live on, and is put where it belongs by then. So an update costs
//! nothing, and each series is looked at about once per retention.
//! Invariant: every live series that can expire has an entry at or before its expiry.

use std::collections::BTreeMap;

const NANOS_PER_BUCKET: i64 = 1_000_000_000;

/// Where the valid entry of a series is. Other entries of the same series are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BucketRef(u32);

impl BucketRef {
    /// There is no entry.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// The entry is among those of the second that is running.
    const CURRENT: Self = Self(u32::MAX - 1);
    const LAST: u32 = u32::MAX - 2;

    fn of(due_nanos: i64) -> Self {
        let bucket = due_nanos.div_euclid(NANOS_PER_BUCKET).max(0);
        Self(u32::try_from(bucket).map_or(Self::LAST, |b| b.min(Self::LAST)))
    }
}

/// The wheel.
#[derive(Debug, Default)]
pub(super) struct ExpiryWheel {
    buckets: BTreeMap<u32, Vec<u32>>,
    /// The buckets that have begun, as (due, slot), latest first.
    current: Vec<(i64, u32)>,
}

/// What the owner of the series tells the wheel about one of them.
pub(super) trait Expiring {
    /// Gives when the series is due, in nanoseconds since 1970; `None` when it isn't live.
    fn due_nanos(&self, slot: u32) -> Option<i64>;
    /// Gives where the series' valid entry is.
    fn bucket(&self, slot: u32) -> BucketRef;
    /// Notes where the series' valid entry is.
    fn set_bucket(&mut self, slot: u32, bucket: BucketRef);
}

impl ExpiryWheel {
    /// Adds the entry of a series that has just become live.
    pub(super) fn insert(&mut self, slot: u32, series: &mut impl Expiring) {
        let Some(due) = series.due_nanos(slot) else { return };
        let bucket = BucketRef::of(due);
        self.buckets.entry(bucket.0).or_default().push(slot);
        series.set_bucket(slot, bucket);
    }

    /// Takes out one series that is due; `None` when there is none.
    pub(super) fn pop_due(&mut self, now_nanos: i64, series: &mut impl Expiring) -> Option<u32> {
        loop {
            self.begin_buckets(now_nanos, series);
            let &(due, slot) = self.current.last()?;
            if due > now_nanos {
                return None;
            }
            self.current.pop();
            if series.bucket(slot) != BucketRef::CURRENT {
                continue;
            }
            series.set_bucket(slot, BucketRef::NONE);
            match series.due_nanos(slot) {
                Some(due) if due <= now_nanos => return Some(slot),
                Some(_) => self.insert(slot, series),
                None => {}
            }
        }
    }

    fn begin_buckets(&mut self, now_nanos: i64, series: &mut impl Expiring) {
        let now = BucketRef::of(now_nanos).0;
        let mut grown = false;
        while let Some(first) = self.buckets.first_entry().filter(|b| *b.key() <= now) {
            let bucket = BucketRef(*first.key());
            for slot in first.remove() {
                if series.bucket(slot) != bucket {
                    continue;
                }
                match series.due_nanos(slot) {
                    // It was updated: straight to where it belongs, without a sort.
                    Some(due) if BucketRef::of(due).0 > now => self.insert(slot, series),
                    Some(due) => {
                        series.set_bucket(slot, BucketRef::CURRENT);
                        self.current.push((due, slot));
                        grown = true;
                    }
                    None => series.set_bucket(slot, BucketRef::NONE),
                }
            }
        }
        if grown {
            self.current.sort_unstable_by(|a, b| b.cmp(a));
        }
        if self.current.is_empty() {
            self.current = Vec::new();
        }
    }
}
