//! The list of a deletion by selector: first its series are selected, piece by piece; then all of them end in one step;
//! then they are purged, piece by piece. One at a time, as [`super::delete`] sees to.
//!
//! A selected series can change, expire or be deleted before that step, and its slot can be freed. So the record of a
//! series says whether it is selected. Invariant: as many records say so as are counted here, and the list has the slot
//! of each. The same holds for those of others: the series of roles whose series the deletion's writer may not change.

use std::collections::VecDeque;

use super::roles::Changeable;
use crate::model::time::SteadyTime;

/// The deletion that is prepared or purged.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    /// Where the selected series are, oldest first; also of series that are not selected any more.
    slots: VecDeque<u32>,
    /// How many series are selected.
    count: usize,
    /// When the selected series ended.
    made_at: Option<SteadyTime>,
    changeable: Changeable,
    /// As `slots`, of others' series.
    others: Vec<u32>,
    /// As `count`, of others' series.
    count_of_others: usize,
}

impl Deletion {
    /// Returns how many series are selected.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Begins a deletion of a writer who may change the series of these roles.
    pub(super) fn begin(&mut self, changeable: Changeable) {
        *self = Self { changeable, ..Self::default() };
    }

    /// Notes that a series is selected that has this role.
    pub(super) fn add(&mut self, slot: u32, role: u8) {
        self.slots.push_back(slot);
        self.count += 1;
        if !self.changeable.holds(role) {
            self.others.push(slot);
            self.count_of_others += 1;
        }
    }

    /// Notes that a series of this role is not selected any more.
    pub(super) fn remove(&mut self, role: u8) {
        self.count -= 1;
        self.count_of_others -= usize::from(!self.changeable.holds(role));
    }

    /// Returns whether the writer may change the series of a role.
    pub(super) fn may_change(&self, role: u8) -> bool {
        self.changeable.holds(role)
    }

    /// Returns how many of the selected series are others'.
    pub(super) fn count_of_others(&self) -> usize {
        self.count_of_others
    }

    /// Returns the slots of others' series; also of some that are not any more, and some twice.
    pub(super) fn slots_of_others(&self) -> impl Iterator<Item = u32> {
        self.others.iter().copied()
    }

    /// Returns when the selected series ended; `None` while they live.
    pub(super) fn made_at(&self) -> Option<SteadyTime> {
        self.made_at
    }

    /// Returns whether the selected series have ended, and are to be purged.
    pub(super) fn is_made(&self) -> bool {
        self.made_at.is_some()
    }

    /// Ends all selected series, which costs the same for any number.
    pub(super) fn make(&mut self, at: SteadyTime) {
        self.made_at = Some(at);
    }

    /// Takes the next slot from the list. The deletion is over when there is none.
    pub(super) fn next(&mut self) -> Option<u32> {
        let next = self.slots.pop_front();
        if next.is_none() {
            *self = Self::default();
        }
        next
    }
}
