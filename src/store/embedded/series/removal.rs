//! Deletions of single series, and the end of their tombstones.
//!
//! Not those by selector, see [`super::delete`]. Invariant: a deletion has a sequence number, and its tombstone is in the
//! table until it is trimmed.

use super::record::{NO_METADATA, State};
use super::roles::NO_ROLE;
use super::table::{Now, SeriesTable};
use crate::model::series::SeriesId;
use crate::model::time::SteadyTime;
use crate::store::{DeleteOutcome, OthersSeries, SeriesWriter, StoreResult};

impl SeriesTable {
    /// Deletes a series that is live or has ended, and remembers that.
    pub(super) fn delete_slot(&mut self, slot: u32, at: SteadyTime) {
        self.core.unselect(slot);
        let record = self.core.slab.get_mut(slot);
        record.state = State::Tombstone;
        record.role = NO_ROLE;
        let metadata = std::mem::replace(&mut record.metadata, NO_METADATA);
        let key_bytes = self.core.key_bytes(slot);
        self.bytes -= key_bytes + self.core.metadata.bytes(metadata);
        self.core.metadata.release(metadata);
        self.held -= 1;
        self.changed(slot, at);
        self.tombstones.push(self.core.slab.get(slot).seq, slot, key_bytes);
    }

    /// Deletes a series if it is live. The fence is the caller's.
    ///
    /// # Errors
    /// As [`Self::upsert`].
    pub(super) fn delete(
        &mut self,
        id: SeriesId,
        writer: &SeriesWriter,
        now: Now,
    ) -> StoreResult<DeleteOutcome> {
        let changeable = self.roles.changeable_by(writer)?;
        self.purge_some(now);
        let Some(slot) = self.find_live(id) else { return Ok(DeleteOutcome::Deleted(0)) };
        let role = self.core.slab.get(slot).role;
        if !changeable.holds(role)
            && let Some(role) = self.roles.get(role)
        {
            let mut others = OthersSeries::default();
            others.add(id, role);
            return Ok(DeleteOutcome::OthersSeries(others));
        }
        self.delete_slot(slot, now.steady);
        self.trim();
        Ok(DeleteOutcome::Deleted(1))
    }

    /// Forgets the oldest deletions beyond the limit.
    pub(super) fn trim(&mut self) {
        self.tombstones.sweep(|seq, slot| self.core.is_tombstone(seq, slot));
        let most_bytes = self.settings.max_tombstone_bytes();
        while self.tombstones.len() > self.settings.max_tombstones
            || self.tombstones.bytes() > most_bytes
        {
            let core = &self.core;
            let current = |seq, slot| core.is_tombstone(seq, slot);
            let Some(slot) = self.tombstones.pop_oldest(current) else { return };
            self.tombstones.forget(self.core.key_bytes(slot));
            self.core.forget(slot);
        }
    }
}
