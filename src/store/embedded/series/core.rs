//! The records of all series, and the ways to find them: by key, by id, by the series before.
//!
//! Knows neither the order of changes nor what is dirty. Invariant: a series is in the hash table
//! from its reservation until it is forgotten.

use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashTable;

use super::deletion::Deletion;
use super::expiry::{BucketRef, Expiring};
use super::labels::SharedLabels;
use super::metadata::MetadataTable;
use super::names::Names;
use super::record::{NO_SLOT, Record, Slab, State};
use super::roles::RoleTable;
use crate::model::batch::BatchPoint;
use crate::model::series::{Point, Sample, SeriesId, SeriesKey};
use crate::model::time::Timestamp;
use crate::store::{OthersSeries, series_bytes};

/// The records and the ways to find them.
#[derive(Debug, Default)]
pub(super) struct Core {
    pub(super) slab: Slab,
    pub(super) names: Names,
    pub(super) metadata: MetadataTable,
    pub(super) labels: SharedLabels,
    /// The deletion by selector that is prepared or purged.
    pub(super) deletion: Deletion,
    /// The time by which series have expired, in nanoseconds.
    pub(super) expired_by: i64,
    by_key: HashTable<u32>,
    retention_nanos: Option<i64>,
}

impl Core {
    /// Makes an empty one, in which series expire after the retention.
    pub(super) fn new(retention_nanos: Option<i64>) -> Self {
        Self { retention_nanos, ..Self::default() }
    }

    /// Returns how long a series lives from its last sample; `None` for ever.
    pub(super) fn retention_nanos(&self) -> Option<i64> {
        self.retention_nanos
    }
}

impl Expiring for Core {
    fn due_nanos(&self, slot: u32) -> Option<i64> {
        let record = self.slab.get(slot);
        let retention = self.retention_nanos?;
        (record.state == State::Live).then(|| record.updated_at_nanos.saturating_add(retention))
    }

    fn bucket(&self, slot: u32) -> BucketRef {
        self.slab.get(slot).bucket
    }

    fn set_bucket(&mut self, slot: u32, bucket: BucketRef) {
        self.slab.get_mut(slot).bucket = bucket;
    }
}

impl Core {
    /// Returns whether a series is live. One that has ended, and is not purged yet, is not: it expired, or a deletion
    /// by selector has it.
    pub(super) fn is_live(&self, slot: u32) -> bool {
        let record = self.slab.get(slot);
        record.state == State::Live
            && !(record.selected && self.deletion.is_made())
            && self.due_nanos(slot).is_none_or(|due| due > self.expired_by)
    }

    /// Returns whether a series is live and has this key.
    pub(super) fn is_live_as(&self, slot: u32, key: &SeriesKey) -> bool {
        let record = self.slab.get(slot);
        self.is_live(slot)
            && *record.labels == *key.labels
            && *self.names.get(record.name).name == *key.name
    }

    /// Selects those of the series that are live, for a deletion.
    pub(super) fn select(&mut self, found: &[(SeriesKey, u32)]) {
        for (key, slot) in found {
            if self.is_live_as(*slot, key)
                && !std::mem::replace(&mut self.slab.get_mut(*slot).selected, true)
            {
                self.deletion.add(*slot, self.slab.get(*slot).role);
            }
        }
    }

    /// Takes a series out of the selection; returns whether it was in there.
    pub(super) fn unselect(&mut self, slot: u32) -> bool {
        let record = self.slab.get_mut(slot);
        let was = std::mem::replace(&mut record.selected, false);
        if was {
            self.deletion.remove(record.role);
        }
        was
    }

    /// Sets the role of a series, also while it is selected.
    pub(super) fn set_role(&mut self, slot: u32, role: u8) {
        let record = self.slab.get_mut(slot);
        let old = std::mem::replace(&mut record.role, role);
        if record.selected && old != role {
            self.deletion.remove(old);
            self.deletion.add(slot, role);
        }
    }

    /// Returns the selected series that the deletion's writer may not change, by their ids.
    pub(super) fn selected_of_others(&self, roles: &RoleTable) -> OthersSeries<SeriesId> {
        let mut others = OthersSeries::default();
        let mut seen = HashSet::new();
        for slot in self.deletion.slots_of_others() {
            let record = self.slab.get(slot);
            if record.selected
                && !self.deletion.may_change(record.role)
                && seen.insert(slot)
                && let Some(role) = roles.get(record.role)
            {
                others.add(self.key(slot).id(), role);
            }
            if others.total == OthersSeries::REPORTED {
                break;
            }
        }
        OthersSeries { total: self.deletion.count_of_others(), ..others }
    }

    /// Returns whether a series was deleted with the change number `seq`.
    pub(super) fn is_tombstone(&self, seq: u64, slot: u32) -> bool {
        let record = self.slab.get(slot);
        record.seq == seq && record.state == State::Tombstone
    }

    /// Returns the slot of a point's series, or the hash to reserve one with. `before` is the series
    /// of the point before.
    pub(super) fn find_after(&self, before: u32, point: &BatchPoint<'_>) -> Result<u32, u32> {
        // A writer that keeps the order of its last batch is guessed right at nearly every point, and the
        // hash, which costs most here, is not needed. The guess may name any series, also a freed
        // slot that was given to another one: so it is compared, never trusted.
        if before != NO_SLOT {
            let guess = self.slab.get(before).follower;
            if guess != NO_SLOT && self.is(guess, point.name, point.labels) {
                return Ok(guess);
            }
        }
        let hash = SeriesId::of(point.name, point.labels).prefix();
        self.by_key
            .find(spread(hash), |&slot| {
                self.slab.get(slot).hash == hash && self.is(slot, point.name, point.labels)
            })
            .copied()
            .ok_or(hash)
    }

    fn is(&self, slot: u32, name: &str, labels: &str) -> bool {
        let record = self.slab.get(slot);
        *record.labels == *labels
            && !matches!(record.state, State::Free | State::Forgotten)
            && *self.names.get(record.name).name == *name
    }

    /// Returns the slot of a series, live or tombstone.
    pub(super) fn find_id(&self, id: SeriesId) -> Option<u32> {
        let hash = id.prefix();
        self.by_key
            .find(spread(hash), |&slot| {
                let record = self.slab.get(slot);
                record.hash == hash
                    && SeriesId::of(&self.names.get(record.name).name, &record.labels) == id
            })
            .copied()
    }

    /// Makes a series that is not visible yet.
    pub(super) fn reserve(
        &mut self,
        point: &BatchPoint<'_>,
        hash: u32,
        before: u32,
    ) -> Option<u32> {
        // Most points have the name of the one before.
        let name_id = Some(before)
            .filter(|before| *before != NO_SLOT)
            .map(|before| self.slab.get(before).name)
            .filter(|id| *self.names.get(*id).name == *point.name)
            .unwrap_or_else(|| self.names.intern(point.name));
        let shared = self.labels.find(point.labels, &self.slab);
        let first = shared.is_none();
        let labels = shared.unwrap_or_else(|| point.labels.into());
        let slot = self.slab.insert(Record::reserved(name_id, labels, hash))?;
        self.names.get_mut(name_id).reserve();
        self.index(slot, hash, first);
        Some(slot)
    }

    /// Undoes [`Self::reserve`].
    pub(super) fn unreserve(&mut self, slot: u32) {
        let name = self.slab.get(slot).name;
        self.unindex(slot);
        self.slab.remove(slot);
        self.names.get_mut(name).unreserve();
        self.names.remove_unused(name);
    }

    /// Forgets a tombstone.
    pub(super) fn forget(&mut self, slot: u32) {
        self.unindex(slot);
        let record = self.slab.get_mut(slot);
        record.state = State::Forgotten;
        let (name, bytes) = (record.name, record.labels.len());
        if self.names.get_mut(name).forget(bytes) {
            self.names.purge(name, &mut self.slab);
        }
    }

    /// Makes a slot findable by its key, and when it is the `first` with its labels by these.
    pub(super) fn index(&mut self, slot: u32, hash: u32, first: bool) {
        let slab = &self.slab;
        if first {
            self.labels.add(slot, slab);
        }
        self.by_key.insert_unique(spread(hash), slot, |&slot| spread(slab.get(slot).hash));
    }

    fn unindex(&mut self, slot: u32) {
        self.labels.remove(slot, &self.slab);
        let hash = self.slab.get(slot).hash;
        if let Ok(entry) = self.by_key.find_entry(spread(hash), |&other| other == slot) {
            entry.remove();
        }
    }

    /// Returns how many bytes the key of a slot has.
    pub(super) fn key_bytes(&self, slot: u32) -> usize {
        let record = self.slab.get(slot);
        series_bytes(&self.names.get(record.name).name, &record.labels, None)
    }

    /// Returns the key of a slot.
    pub(super) fn key(&self, slot: u32) -> SeriesKey {
        let record = self.slab.get(slot);
        let name = Arc::clone(&self.names.get(record.name).name);
        SeriesKey { name, labels: Arc::clone(&record.labels) }
    }

    /// Returns a live series.
    pub(super) fn point(&self, slot: u32) -> Point {
        let record = self.slab.get(slot);
        Point {
            key: self.key(slot),
            sample: Sample {
                value: record.value,
                updated_at: Timestamp::from_nanos(record.updated_at_nanos),
            },
            metadata: self.metadata.get(record.metadata).cloned(),
        }
    }
}

/// Spreads the 32 bits of a record's hash over the 64 that the hash table wants.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
