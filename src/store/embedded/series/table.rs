//! The series in memory: what is live, what changed in which order, which deletions are remembered.
//! Not thread-safe and not on disk: [`super::EmbeddedSeries`] adds both.
//!
//! What has ended, because it expired or was selected, is purged piece by piece: see [`super::purge`]. Until then,
//! nothing here takes it for live.
//! Invariant: `held + tombstones` series are in the hash table, each with its newest
//! change in the log; no batch is ever applied in part.

use super::core::Core;
use super::expiry::ExpiryWheel;
use super::log::ChangeLog;
use super::record::{BuildSlotHasher, NO_METADATA, NO_SLOT, Record, State};
use super::roles::{Changeable, NO_ROLE, RoleTable};
use super::tombstones::Tombstones;
use crate::model::batch::{BatchPoint, PointBatch};
use crate::model::series::{Sample, SeriesId};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::buffered::DirtySet;
use crate::store::scan::CreatedLog;
use crate::store::{
    OthersSeries, SeriesSettings, SeriesWriter, StoreResult, UpsertCounts, UpsertOutcome,
};

/// A slot's number must fit 32 bits, tombstones included.
const MOST_SERIES: usize = 1 << 31;

/// The series.
#[derive(Debug)]
pub(super) struct SeriesTable {
    pub(super) settings: SeriesSettings,
    pub(super) core: Core,
    pub(super) wheel: ExpiryWheel,
    pub(super) log: ChangeLog,
    pub(super) tombstones: Tombstones,
    pub(super) dirty: DirtySet<u32, BuildSlotHasher>,
    pub(super) created: CreatedLog<u32>,
    pub(super) roles: RoleTable,
    /// Nothing that had ended by the last access is left to be purged.
    pub(super) is_purged: bool,
    /// How many series are live, or have ended and are not purged yet.
    pub(super) held: usize,
    /// What these series count as, see [`series_bytes`](crate::store::series_bytes).
    pub(super) bytes: usize,
}

/// The times at which the table is changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// The time of points that have none: whole milliseconds of the system's clock.
    pub(super) stamp: Timestamp,
    /// The time by which series expire, see [`crate::clock::RetentionClock`].
    pub(super) expiry: Timestamp,
    /// The time of marks for the next flush.
    pub(super) steady: SteadyTime,
}

/// Where a point of a batch belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Slot(u32),
    Stale,
}

/// What a batch and its writer say about a sample, beside its value.
#[derive(Debug, Clone, Copy)]
struct Given {
    metadata: u32,
    role: u8,
}

/// What was found out about a batch before it is applied.
#[derive(Debug)]
struct Located {
    targets: Vec<Target>,
    growth: Growth,
    others: OthersSeries<usize>,
}

/// How much the series grow by a batch, or may grow.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    series: usize,
    bytes: usize,
}

impl Growth {
    /// Returns why a batch is refused that needs so much. What needs nothing is never refused, also when
    /// a limit was lowered.
    fn refusal(self, room: Self) -> Option<UpsertOutcome> {
        if self.series > room.series {
            Some(UpsertOutcome::OverBudget { new: self.series, room: room.series })
        } else if self.bytes > room.bytes {
            Some(UpsertOutcome::OverBytes { more: self.bytes, room: room.bytes })
        } else {
            None
        }
    }
}

impl SeriesTable {
    /// Makes an empty table.
    pub(super) fn new(settings: SeriesSettings) -> Self {
        let settings = SeriesSettings {
            max_series: settings.max_series.min(MOST_SERIES),
            max_tombstones: settings.max_tombstones.min(MOST_SERIES),
            ..settings
        };
        let retention =
            i64::try_from(settings.retention.as_nanos()).ok().filter(|nanos| *nanos > 0);
        Self {
            settings,
            core: Core::new(retention),
            wheel: ExpiryWheel::default(),
            log: ChangeLog::default(),
            tombstones: Tombstones::default(),
            dirty: DirtySet::default(),
            created: CreatedLog::default(),
            roles: RoleTable::default(),
            is_purged: true,
            held: 0,
            bytes: 0,
        }
    }

    /// Applies a batch, all or nothing. Returns `None` when it would be refused, but not all is purged that has ended
    /// and still uses up the budget: to be called again then. The fence is the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::store::ErrorKind::Full) when there are too many roles.
    pub(super) fn upsert(
        &mut self,
        batch: &PointBatch,
        writer: &SeriesWriter,
        now: Now,
    ) -> StoreResult<Option<UpsertOutcome>> {
        let role = self.roles.number_of(writer.role.as_ref())?;
        let changeable = self.roles.changeable_by(writer)?;
        self.purge_some(now);
        self.created.trim();
        let room = Growth {
            series: self.settings.max_series.saturating_sub(self.held),
            bytes: self.settings.max_bytes.saturating_sub(self.bytes),
        };
        let metadata: Vec<u32> =
            batch.metadata().iter().map(|m| self.core.metadata.acquire(m)).collect();
        let Located { targets, growth, others } =
            self.locate(batch, &metadata, &changeable, now, room);
        let outcome = if !others.is_empty() {
            self.give_up(&targets);
            Some(UpsertOutcome::OthersSeries(others))
        } else if let Some(refusal) = growth.refusal(room) {
            self.give_up(&targets);
            self.is_purged.then_some(refusal)
        } else {
            Some(UpsertOutcome::Applied(self.apply_all(batch, targets, &metadata, role, now)))
        };
        for id in metadata {
            self.core.metadata.release(id);
        }
        self.trim();
        Ok(outcome)
    }

    fn apply_all(
        &mut self,
        batch: &PointBatch,
        targets: Vec<Target>,
        metadata: &[u32],
        role: u8,
        now: Now,
    ) -> UpsertCounts {
        self.dirty.reserve(batch.len());
        let mut counts = UpsertCounts::default();
        for (point, target) in batch.iter().zip(targets) {
            let metadata = point.metadata.map_or(NO_METADATA, |index| metadata[index]);
            match target {
                Target::Stale => counts.stale += 1,
                Target::Slot(slot) => {
                    self.apply(slot, &point, Given { metadata, role }, now, &mut counts);
                }
            }
        }
        counts
    }

    /// Finds or reserves a slot for each point; also counts the series that are new, and the bytes by
    /// which all grow at most, and the points of series that the writer may not change. Beyond `room` none is
    /// reserved any more, so that a batch that can't be applied stays cheap.
    fn locate(
        &mut self,
        batch: &PointBatch,
        metadata: &[u32],
        changeable: &Changeable,
        now: Now,
        room: Growth,
    ) -> Located {
        let oldest = self.oldest_live_nanos();
        let mut targets = Vec::with_capacity(batch.len());
        let mut growth = Growth::default();
        let mut others = OthersSeries::default();
        let mut before = NO_SLOT;
        for (index, point) in batch.iter().enumerate() {
            let is_late = point.sample(now.stamp).updated_at.as_nanos() <= oldest;
            // What would change nothing is refused as well, so a refusal does not depend on times.
            if is_late && changeable.holds_all() {
                targets.push(Target::Stale);
                continue;
            }
            let found = self.core.find_after(before, &point);
            if let Ok(slot) = found {
                let role = self.core.slab.get(slot).role;
                if !changeable.holds(role)
                    && self.core.is_live(slot)
                    && let Some(role) = self.roles.get(role)
                {
                    others.add(index, role);
                }
            }
            if is_late {
                targets.push(Target::Stale);
                continue;
            }
            let slot = match found {
                Ok(slot) => {
                    if self.core.slab.get(slot).state == State::Live && !self.core.is_live(slot) {
                        // It has ended: the batch creates it anew.
                        self.delete_slot(slot, now.steady);
                    }
                    let record = self.core.slab.get_mut(slot);
                    if record.state == State::Tombstone {
                        record.state = State::Reviving;
                        growth.series += 1;
                        growth.bytes += point.name.len() + point.labels.len();
                    }
                    Some(slot)
                }
                Err(hash) => {
                    growth.series += 1;
                    growth.bytes += point.name.len() + point.labels.len();
                    let fits = growth.refusal(room).is_none();
                    let reserved = fits.then(|| self.core.reserve(&point, hash, before)).flatten();
                    if fits && reserved.is_none() {
                        // Every slot there can be is taken: over any budget.
                        growth.series = growth.series.max(room.series.saturating_add(1));
                    }
                    reserved
                }
            };
            let held = slot.map_or(NO_METADATA, |slot| self.core.slab.get(slot).metadata);
            let given = point.metadata.map_or(NO_METADATA, |index| metadata[index]);
            if given != NO_METADATA && given != held {
                let metadata = &self.core.metadata;
                growth.bytes += metadata.bytes(given).saturating_sub(metadata.bytes(held));
            }
            let Some(slot) = slot else { continue };
            targets.push(Target::Slot(slot));
            if before != NO_SLOT {
                self.core.slab.get_mut(before).follower = slot;
            }
            before = slot;
        }
        Located { targets, growth, others }
    }

    /// Returns the time at or before which a sample is past the retention.
    fn oldest_live_nanos(&self) -> i64 {
        self.core.retention_nanos().map_or(i64::MIN, |r| self.core.expired_by.saturating_sub(r))
    }

    fn give_up(&mut self, targets: &[Target]) {
        for target in targets {
            let Target::Slot(slot) = *target else { continue };
            match self.core.slab.get(slot).state {
                State::Reserved => self.core.unreserve(slot),
                State::Reviving => self.core.slab.get_mut(slot).state = State::Tombstone,
                _ => {}
            }
        }
    }

    fn apply(
        &mut self,
        slot: u32,
        point: &BatchPoint<'_>,
        given: Given,
        now: Now,
        counts: &mut UpsertCounts,
    ) {
        let Given { metadata, role } = given;
        let record = self.core.slab.get_mut(slot);
        let latest = now.stamp.saturating_add(self.settings.max_future_skew);
        let sample =
            Sample { value: point.value, updated_at: arrival(point, record, now.stamp, latest) };
        let earlier = sample.updated_at.as_nanos() < record.updated_at_nanos;
        let created = record.state != State::Live;
        if created {
            if record.state == State::Reserved {
                let name = self.core.names.get_mut(record.name);
                name.unreserve();
                name.add(slot);
            } else {
                let bytes = point.name.len() + point.labels.len();
                self.tombstones.revive(bytes);
            }
            record.state = State::Live;
            self.held += 1;
            self.bytes += point.name.len() + point.labels.len();
            counts.created += 1;
        } else if earlier && record.updated_at_nanos <= latest.as_nanos() {
            counts.stale += 1;
            return;
        } else {
            counts.updated += 1;
            let same = record.value.to_bits() == sample.value.to_bits()
                && record.updated_at_nanos == sample.updated_at.as_nanos()
                && (metadata == NO_METADATA || metadata == record.metadata)
                && (role == NO_ROLE || role == record.role);
            if same {
                return;
            }
        }
        record.value = sample.value;
        record.updated_at_nanos = sample.updated_at.as_nanos();
        if metadata != NO_METADATA && metadata != record.metadata {
            let old = std::mem::replace(&mut record.metadata, metadata);
            self.bytes += self.core.metadata.bytes(metadata);
            self.bytes -= self.core.metadata.bytes(old);
            self.core.metadata.retain(metadata);
            self.core.metadata.release(old);
        }
        if role != NO_ROLE {
            self.core.set_role(slot, role);
        }
        // A sample that replaces a later one makes the series expire sooner than its entry says.
        if created || earlier {
            self.wheel.insert(slot, &mut self.core);
            self.created.note(|| slot);
        }
        self.changed(slot, now.steady);
    }

    /// Assigns a sequence number to a change of a series, and marks the series for the next flush.
    pub(super) fn changed(&mut self, slot: u32, at: SteadyTime) {
        let slab = &self.core.slab;
        let seq = self.log.append(slot, |seq, slot| slab.get(slot).seq == seq);
        self.core.slab.get_mut(slot).seq = seq;
        self.dirty.mark(slot, at);
    }

    /// Returns the slot of a live series.
    pub(super) fn find_live(&self, id: SeriesId) -> Option<u32> {
        let slot = self.core.find_id(id)?;
        self.core.is_live(slot).then_some(slot)
    }
}

/// Returns the time of a point's sample. A point without a time is the newest when it arrives, also where the sample
/// that is held has a later time: a finer one within the millisecond `now`, or one of before the clock was set back.
/// Beyond `latest`, no sample has a time that it may keep.
fn arrival(point: &BatchPoint<'_>, held: &Record, now: Timestamp, latest: Timestamp) -> Timestamp {
    let held = Timestamp::from_nanos(held.updated_at_nanos);
    point.updated_at.unwrap_or(if now < held && held <= latest { held } else { now })
}
