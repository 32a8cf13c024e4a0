//! How much room each shard had for new series when it was last asked, so that most pushes need no check of their own.
//!
//! Only a hint: each shard checks its quota again when it applies its part. Invariant: a push is not checked as a whole
//! only where every shard had, a moment ago, far more room than the push can take.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::SharedClock;
use crate::model::time::SteadyTime;

/// How long a room is believed: other replicas push as well.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The least room that must be left over, so that other writers of this moment don't use it up.
const SLACK: usize = 1_000;

/// As [`SLACK`], for bytes.
const SLACK_BYTES: usize = 1 << 20;

/// Room for new series, or how much of it is needed or allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// In series.
    pub(super) series: usize,
    /// In bytes of all series.
    pub(super) bytes: usize,
}

/// The rooms of all shards.
pub(super) struct Rooms {
    clock: SharedClock,
    shards: Vec<Mutex<Option<(SteadyTime, Room)>>>,
}

impl Rooms {
    /// Makes rooms of which nothing is known.
    pub(super) fn new(shards: usize, clock: SharedClock) -> Self {
        Self { clock, shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Notes the room of a shard.
    pub(super) fn note(&self, shard: usize, room: Room) {
        *self.shards[shard].lock() = Some((self.clock.steady(), room));
    }

    /// Returns whether a shard of that quota surely has the room that is needed.
    pub(super) fn surely(&self, shard: usize, needed: Room, quota: Room) -> bool {
        let series = needed.series.saturating_add(SLACK.max(quota.series / 10));
        let bytes = needed.bytes.saturating_add(SLACK_BYTES.max(quota.bytes / 10));
        self.shards[shard].lock().is_some_and(|(at, room)| {
            let age = self.clock.steady().saturating_since(at);
            age < MAX_AGE && room.series >= series && room.bytes >= bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::model::time::Timestamp;

    #[test]
    fn only_ample_room_that_was_seen_just_now_is_believed() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1)));
        let rooms = Rooms::new(2, Arc::clone(&clock) as SharedClock);
        let room = |series, bytes| Room { series, bytes };
        let quota = room(10_000, 10 << 20);
        assert!(!rooms.surely(0, room(0, 0), quota), "nothing is known");
        rooms.note(0, room(1_005, (1 << 20) + 7));
        assert!(rooms.surely(0, room(5, 7), quota));
        assert!(!rooms.surely(0, room(6, 7), quota), "a thousand must be left");
        assert!(!rooms.surely(0, room(5, 8), quota), "a megabyte must be left");
        assert!(!rooms.surely(0, room(5, 7), room(20_000, 10 << 20)), "a tenth must be left");
        assert!(!rooms.surely(0, room(5, 7), room(10_000, 20 << 20)), "a tenth must be left");
        assert!(!rooms.surely(1, room(0, 0), quota), "another shard");
        clock.advance(MAX_AGE - Duration::from_nanos(1));
        assert!(rooms.surely(0, room(5, 7), quota));
        clock.advance(Duration::from_nanos(1));
        assert!(!rooms.surely(0, room(5, 7), quota), "it is too long ago");
    }
}
