//! Claims as commands use them: registering a table, looking, claiming.
//!
//! Invariant: a command sees what the commands before it in the group have claimed.

use std::time::Duration;

use super::end::ClaimEnd;
use super::pending::ClaimPending;
use super::rows::ClaimRows;
use super::table::{ClaimTable, Id};
use crate::store::embedded::durable::tables::Tables;
use crate::store::embedded::durable::transaction::Txn;
use crate::store::{StoreError, StoreResult};

/// How many tables in memory are cleaned at a time for new claims.
const CLEANED_AT_ONCE: usize = 16;

impl Tables {
    /// Registers a table of claims; `max` bounds how many may be live.
    ///
    /// # Panics
    /// When its tag or its name is another table's.
    #[must_use]
    pub(in crate::store::embedded) fn with_claims<T: ClaimTable>(self, max: u64) -> Self {
        self.with_rows(Box::new(ClaimRows::<T>::new(max)))
    }
}

impl Txn<'_> {
    /// Returns what each id is claimed for; `None` where it is not.
    pub(in crate::store::embedded) fn claimed<T: ClaimTable>(
        &self,
        ids: impl Iterator<Item = Id>,
    ) -> Vec<Option<u64>> {
        let passed = ClaimEnd::passed(self.now.steady);
        let pending = self.changes.pending_of_tag::<ClaimPending<T>>(T::TAG);
        let packed = self.tables.of_tag::<ClaimRows<T>>(T::TAG).packed.lock();
        let claimed = |id: Id| {
            let in_group = pending.and_then(|pending| pending.claims.get(&id));
            in_group.map(|(content, _)| *content).or_else(|| packed.get(&id, passed))
        };
        ids.map(claimed).collect()
    }

    /// Makes sure that there may be `new` more claims. Those that have ended make room for that.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::LimitReached`] when there are as many live ones as there may be.
    pub(in crate::store::embedded) fn make_room_for_claims<T: ClaimTable>(
        &self,
        new: usize,
    ) -> StoreResult<()> {
        let rows = self.tables.of_tag::<ClaimRows<T>>(T::TAG);
        let pending = self.changes.pending_of_tag::<ClaimPending<T>>(T::TAG);
        let more = (pending.map_or(0, |pending| pending.claims.len()) + new) as u64;
        let passed = ClaimEnd::passed(self.now.steady);
        let mut packed = rows.packed.lock();
        if packed.live(passed) + more > rows.max {
            return Err(StoreError::limit_reached(T::LIMITED));
        }
        // The limit is on memory: what has ended does not count, and does not stay either.
        while packed.live(passed) + packed.ended(passed) + more > rows.max {
            packed.clean(passed, CLEANED_AT_ONCE);
        }
        Ok(())
    }

    /// Claims ids that nobody has claimed, each with its content, for `period`.
    pub(in crate::store::embedded) fn claim<T: ClaimTable>(
        &mut self,
        ids: impl Iterator<Item = (Id, u64)>,
        period: Duration,
    ) {
        let end = ClaimEnd::after(self.now.steady, period);
        let pending = self.changes.of_tag::<ClaimPending<T>>(T::TAG);
        for (id, content) in ids {
            pending.claims.insert(id, (content, end));
            self.changed = true;
        }
    }
}
