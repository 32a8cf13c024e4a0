//! Purging: what has ended becomes a deletion in the order of changes, piece by piece.
//!
//! A million series may expire at one moment, or be deleted by one selector. The table is never locked for all of
//! them. What has ended is not live from that moment on, purged or not, so no reader finds it and a write creates it
//! anew. Its deletion gets a sequence number when it is purged. So a delta is read only when nothing is left to be
//! purged, and so is a budget that would refuse a batch. Invariant: a piece is bounded.

use super::expiry::Step;
use super::table::{Now, SeriesTable};

/// The most series that are purged while the table is locked once.
pub(super) const PURGED_AT_ONCE: usize = 1024;

impl SeriesTable {
    /// Purges some of what has ended by `now`; returns how many series of it had expired. To be called first in each
    /// access; [`SeriesTable::is_purged`] tells whether anything is left.
    pub(super) fn purge_some(&mut self, now: Now) -> usize {
        let by = now.expiry.as_nanos();
        // A series that was taken for expired does not come back when the clock is set back.
        self.core.expired_by = if self.is_purged { by } else { by.max(self.core.expired_by) };
        let mut looked_at = 0;
        if self.core.deletion.is_made() {
            looked_at = self.purge_selected(PURGED_AT_ONCE);
        }
        let mut expired = 0;
        self.is_purged = false;
        while looked_at < PURGED_AT_ONCE && !self.is_purged {
            looked_at += 1;
            match self.wheel.step(self.core.expired_by, &mut self.core) {
                Step::Due(slot) => {
                    self.delete_slot(slot, now.steady);
                    expired += 1;
                }
                Step::Moved => {}
                Step::Idle => self.is_purged = true,
            }
        }
        if looked_at > 1 {
            self.trim();
        }
        expired
    }

    /// Deletes some of the selected series when they have ended, or lets some of them go; at most `limit`. Returns how
    /// many it looked at: fewer than `limit` when none is left.
    pub(super) fn purge_selected(&mut self, limit: usize) -> usize {
        for count in 0..limit {
            let made_at = self.core.deletion.made_at();
            let Some(slot) = self.core.deletion.next() else { return count };
            if self.core.unselect(slot)
                && let Some(made_at) = made_at
            {
                self.delete_slot(slot, made_at);
            }
        }
        limit
    }

    /// Returns whether [`Self::purge_some`] has nothing to do at `now`.
    pub(super) fn has_nothing_to_purge(&self, now: Now) -> bool {
        !self.core.deletion.is_made() && self.wheel.is_idle(now.expiry.as_nanos())
    }
}
